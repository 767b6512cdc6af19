"""What holds for every test: it leaves no task, thread, child process, FIFO or partial file behind."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import stat
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import hypothesis
import pytest

# Hypothesis' own time limit on an example would be an assertion on time.
hypothesis.settings.register_profile("ours", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("ours")

if TYPE_CHECKING:
    from tests.service import Service

T = TypeVar("T")

pytest_plugins = ["tests.lab", "tests.sshd"]

RUN_NAME = "MEMORY_DUMPS_TEST_RUN"
"""Every process that this test run starts, grandchildren too, carries this name in its environment."""

PATIENCE_SEC = 5.0
"""What is ending already may take this long."""

watched_folders: set[Path] = set()
"""Folders beside a test's ``tmp_path`` in which no FIFO and no partial file may stay; fixtures add theirs."""

_shared_services: list[Service] = []


@contextlib.contextmanager
def shared(service: Service) -> Iterator[None]:
    """Tests may end the service and start it again: for the length of this, whatever process it is then is none of theirs."""
    _shared_services.append(service)
    try:
        yield
    finally:
        _shared_services.remove(service)


def pytest_configure(config: pytest.Config) -> None:
    os.environ[RUN_NAME] = uuid.uuid4().hex
    config.addinivalue_line("markers", "leaves_partial_files: the partial files in tmp_path are what the test is about")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """With CI=true a skipped test is a failure: what is not run there is run nowhere."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = len(reporter.stats.get("skipped", [])) if reporter else 0
    if reporter and skipped and os.environ.get("CI") == "true":
        reporter.write_line(f"\nCI=true: {skipped} skipped tests are failures", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True)
def nothing_is_left_behind(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    """Compare what was there before the test with what is there after all its fixtures are gone."""
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        request.getfixturevalue("no_task_is_left_behind")
    threads, pids = _threads(), _pids()
    yield
    left = [f"thread {thread.name}" for thread in _wait_until_empty(lambda: _threads() - threads)]
    left += [f"process {pid}: {_command(pid)}" for pid in _wait_until_empty(lambda: _processes(apart_from=pids | _shared_pids()))]
    if request.node.get_closest_marker("leaves_partial_files") is None:
        left += [str(path) for folder in (tmp_path, *watched_folders) for path in _unfinished(folder)]
    if left:
        pytest.fail("The test left behind: " + "; ".join(left))


@pytest.fixture
async def no_task_is_left_behind() -> AsyncIterator[None]:
    """The same for the tasks of the event loop."""
    before = asyncio.all_tasks()
    yield
    left = {task for task in asyncio.all_tasks() - before if task is not asyncio.current_task()}
    if left:
        _, left = await asyncio.wait(left, timeout=PATIENCE_SEC)
    if left:
        pytest.fail(f"The test left tasks behind: {left}")


def _threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.is_alive()}


def _pids() -> set[int]:
    return {int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()}


def _shared_pids() -> set[int]:
    return {service.process.pid for service in _shared_services}


def _processes(*, apart_from: set[int]) -> set[int]:
    """The living processes that this test run started, wherever they hang in the tree."""
    mark = f"{RUN_NAME}={os.environ[RUN_NAME]}".encode()
    found = set()
    for pid in _pids() - apart_from:  # to read what every process of the machine has in its environment takes 5 ms
        try:
            # A zombie has no environment left: it ended, and is its parent's to reap.
            if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.add(pid)
        except OSError:
            continue
    return found


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return "gone by now"


def _wait_until_empty(look: Callable[[], set[T]]) -> set[T]:
    """What ``look`` still finds when patience is at its end."""
    deadline = time.monotonic() + PATIENCE_SEC
    while (found := look()) and time.monotonic() < deadline:
        # Other people's threads and processes give no event when they end; this is the bounded wait for it.
        threading.Event().wait(0.02)
    return found


def _unfinished(folder: Path) -> list[Path]:
    """FIFOs and partial files below ``folder``."""
    return [
        Path(at) / name
        for at, _folders, names in os.walk(folder)
        for name in names
        if name.endswith(".partial") or _is_fifo(Path(at) / name)
    ]


def _is_fifo(path: Path) -> bool:
    try:
        return stat.S_ISFIFO(path.lstat().st_mode)
    except FileNotFoundError:
        return False
