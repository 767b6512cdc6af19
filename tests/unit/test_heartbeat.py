"""When a libvirtd counts as silent, and that nobody who looks waits for it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from app.capture.heartbeat import SILENT_AFTER_SEC, Heartbeat

WAIT_SEC = 10.0


class Daemon:
    """Answers when it is let; ``now`` is what the clock says."""

    def __init__(self) -> None:
        self.now = 0.0
        self.asked = threading.Semaphore(0)
        self.let = threading.Semaphore(0)
        self.answers = True

    def ask(self) -> int:
        self.asked.release()
        assert self.let.acquire(timeout=WAIT_SEC)
        if not self.answers:
            raise OSError("the connection broke")
        return 9_000_000

    def is_asked(self) -> None:
        assert self.asked.acquire(timeout=WAIT_SEC)


@pytest.fixture
def daemon() -> Daemon:
    return Daemon()


@pytest.fixture
def heart(daemon: Daemon) -> Iterator[Heartbeat]:
    heart = Heartbeat(daemon.ask, lambda: daemon.now)
    yield heart
    heart.stop()
    daemon.let.release()


def test_daemon_is_not_silent_before_it_had_time_to_answer(daemon: Daemon, heart: Heartbeat) -> None:
    daemon.is_asked()
    daemon.now = SILENT_AFTER_SEC
    assert not heart.silent


def test_daemon_that_does_not_answer_is_silent_until_it_does(daemon: Daemon, heart: Heartbeat) -> None:
    daemon.is_asked()
    daemon.now = 2 * SILENT_AFTER_SEC
    assert heart.silent
    daemon.let.release()
    daemon.is_asked()  # anew, so the first answer has come
    assert not heart.silent


def test_error_is_no_answer(daemon: Daemon, heart: Heartbeat) -> None:
    daemon.is_asked()
    daemon.now, daemon.answers = 2 * SILENT_AFTER_SEC, False
    daemon.let.release()
    daemon.is_asked()
    assert heart.silent
