"""A real browser, Debian's Chromium without its windows, for the whole session; real guests and services to look at with it.

Playwright's asynchronous API lives on the session's event loop, and so do the tests here: its synchronous one would leave
a running loop in this thread, where no other asynchronous test could be run.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright, expect

from demo import Guest, PrivateLibvirt
from tests.browser.visitor import WAIT_MS, Visitor
from tests.conftest import PATIENCE_SEC, RUN_NAME
from tests.faults.processes import eventually
from tests.lab import add_ready, running_lab
from tests.nodes import SHUTOFF, Vm, node, numbered_uuid
from tests.service import Service, running_service

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium-headless-shell")
_TURNED_OFF = (
    # By Playwright. Chromium heeds the last such list alone, so they stand here as well.
    "AvoidUnnecessaryBeforeUnloadCheckSync",
    "DestroyProfileOnBrowserClose",
    "HttpsUpgrades",
    "HttpsFirstBalancedModeAutoEnable",
    "LensOverlay",
    "MediaRouter",
    "PaintHolding",
    "ThirdPartyStoragePartitioning",
    "AvoidCorsURLLoaderRestartOnRedirect",
    "OptimizationHints",
    "NetworkTimeServiceQuerying",
    "AimEnabled",
    "PreconnectToSearch",
    # By us: what pops up below the address bar. These are two more pages to load for every window, and nobody types there.
    "WebUIOmniboxPopup",
    "WebUIOmniboxAimPopup",
)
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    f"--disable-features={','.join(_TURNED_OFF)}",
)
BROWSER_NAME = "MEMORY_DUMPS_TEST_BROWSER"
"""The browser's processes carry this name, not the test run's: they come and go with the session, not with a test."""

SHOP = Guest(name="vm-web-01", memory_mib=512, text_mib=64, random_mib=16, vmid="101")
"""Linux runs in it; large enough that its capture takes many steps."""

IDLE = Guest(name="vm-db-01", memory_mib=128, vmid="102", boots=False)
"""Runs, but finds nothing to boot."""

OFF = Guest(name="vm-off-01", memory_mib=128, boots=False, starts=False)
"""Shut off."""

ALPHA = Vm(name="alpha", uuid=numbered_uuid(1), opennebula="42")
BETA = Vm(name="beta", uuid=numbered_uuid(2), memory_mib=96)
GONE = Vm(name="gone", uuid=numbered_uuid(3), state=SHUTOFF)

OpenWindow = Callable[..., Awaitable[Visitor]]


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def browser() -> AsyncIterator[Browser]:
    """One browser, and the proof that nothing of it is left."""
    mark = uuid.uuid4().hex
    environment = {name: value for name, value in os.environ.items() if name != RUN_NAME} | {BROWSER_NAME: mark}
    expect.set_options(timeout=WAIT_MS)
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS), env={**environment})
        yield started
        await started.close()
    eventually(lambda: not processes_marked(f"{BROWSER_NAME}={mark}"), "the browser's processes have ended", PATIENCE_SEC)


@pytest_asyncio.fixture(loop_scope="session")
async def no_task_is_left_behind() -> AsyncIterator[None]:
    """As for every test, but on the loop on which these run."""
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    if left:
        _, left = await asyncio.wait(left, timeout=PATIENCE_SEC)
    assert not left, f"The test left tasks behind: {left}"


@pytest_asyncio.fixture(loop_scope="session")
async def window(browser: Browser) -> AsyncIterator[OpenWindow]:
    """Opens a window, as a person with another computer would; at the end nothing may have gone wrong in any.

    Name it after the services that are looked at: then it is closed before they end.
    """
    async with contextlib.AsyncExitStack() as stack:
        opened: list[Visitor] = []

        async def open_window(service: Service, *, log_in: bool = True, width: int = 1280, scripts: bool = True) -> Visitor:
            context = await browser.new_context(viewport={"width": width, "height": 900}, java_script_enabled=scripts)
            stack.push_async_callback(context.close)
            context.set_default_timeout(WAIT_MS)
            visitor = Visitor(service, context, await context.new_page())
            await visitor.prepare()
            opened.append(visitor)
            if log_in:
                await visitor.log_in()
            return visitor

        yield open_window
        for visitor in opened:
            if not visitor.page.is_closed():
                await visitor.assert_untroubled()


@pytest.fixture(scope="session")
def rack() -> Iterator[PrivateLibvirt]:
    """A private libvirt with real guests for these tests; each leaves them running, or not, as it found them."""
    with running_lab() as started:
        add_ready(started, SHOP)
        for guest in (IDLE, OFF):
            started.add(guest)
        with started.connection() as connection:
            connection.lookupByName(IDLE.name).resume()
        yield started


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, rack: PrivateLibvirt) -> Iterator[Service]:
    """A service over ``rack``."""
    with running_service(tmp_path_factory.mktemp("service"), LIBVIRT_URI=rack.uri, MEMDUMP_MODE="paused") as started:
        yield started


@pytest.fixture
def new_service(tmp_path: Path, rack: PrivateLibvirt) -> Iterator[Service]:
    """A service over ``rack`` that has just been started for the first time."""
    with running_service(tmp_path, LIBVIRT_URI=rack.uri, MEMDUMP_MODE="paused") as started:
        yield started


@pytest.fixture
def small_service(tmp_path: Path) -> Iterator[Service]:
    """A service for this test alone, over libvirt's test driver: its dumps take no time."""
    with running_service(tmp_path, LIBVIRT_URI=node(tmp_path / "node.xml", (ALPHA, BETA, GONE))) as started:
        yield started


def processes_marked(mark: str) -> list[int]:
    """The living processes with ``mark`` in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile, or is not ours to read
            if mark.encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
    return found
