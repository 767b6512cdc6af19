"""Processes that tests stop, kill and wait for: by pidfd, so that never a stranger is hit."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

PATIENCE_SEC = 30.0


def eventually(look: Callable[[], T], what: str, within_sec: float = PATIENCE_SEC) -> T:
    """What ``look`` finds once it finds something; for states of other processes that give no event."""
    deadline = time.monotonic() + within_sec
    while not (found := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_sec:g} s: {what}")
        threading.Event().wait(0.002)
    return found


def below(folder: Path) -> Iterator[Path]:
    """All that is in ``folder`` at any depth, though some of it may be removed at this moment, which ``rglob`` does not bear."""
    for root, folders, files in os.walk(folder):
        yield from (Path(root, name) for name in (*folders, *files))


class Process:
    """A process that somebody else started."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._descriptor = os.pidfd_open(pid)

    def close(self) -> None:
        """Let a stopped one go on, for nobody else would, and let it be."""
        self.go_on()
        os.close(self._descriptor)

    def stop(self) -> None:
        """SIGSTOP, and wait until every thread of it stands still; or until it has ended."""
        self._send(signal.SIGSTOP)
        eventually(lambda: self.ended(0) or self._stands_still(), f"{self.pid} stands still")

    def go_on(self) -> None:
        """SIGCONT."""
        self._send(signal.SIGCONT)

    def terminate(self) -> None:
        """SIGTERM."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        self._send(signal.SIGKILL)
        assert self.ended(PATIENCE_SEC), f"{self.pid} survived SIGKILL"

    def ended(self, within_sec: float) -> bool:
        """Whether it ended, after waiting for at most so long."""
        return bool(select.select([self._descriptor], [], [], within_sec)[0])

    def _send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, number)

    def _stands_still(self) -> bool:
        return set(_states(self.pid)) == {"T"}


def _states(pid: int) -> list[str]:
    """The state of each thread, as in field 3 of ``/proc/PID/task/TID/stat`` (proc(5)); none, if one ended meanwhile."""
    with contextlib.suppress(OSError):
        return [(task / "stat").read_text().rpartition(")")[2].split()[0] for task in Path(f"/proc/{pid}/task").iterdir()]
    return []


def children_of(pid: int) -> dict[int, list[str]]:
    """The living children of a process: pid and argument list."""
    found = {}
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                with contextlib.suppress(OSError):  # it ended meanwhile
                    command = Path(f"/proc/{child}/cmdline").read_bytes()
                    if command:  # a zombie has none
                        found[int(child)] = command.decode().rstrip("\0").split("\0")
    return found
