"""How long a capture waits: until somebody cancels it, or until its time is over. Nothing in a capture blocks longer."""

from __future__ import annotations

import os
import select
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Generic, TypeVar

from app.errors import CaptureCancelled, CaptureTimedOut

T = TypeVar("T")


def _eventfd_of(owner: object) -> int:
    """A descriptor for one signal, which is closed when nobody holds ``owner`` any more. (At the end of the process a call may
    still hang: then it is left to that.)"""
    descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    weakref.finalize(owner, os.close, descriptor).atexit = False
    return descriptor


class Patience:
    """Cancellation and deadline of one capture. ``cancel`` may be called from a signal or from any thread."""

    def __init__(self, timeout_sec: float = 0.0) -> None:
        """``timeout_sec`` counts from now; 0 means no limit."""
        self._timeout_sec = timeout_sec
        self._deadline = time.monotonic() + timeout_sec if timeout_sec else None
        self._cancelled = _eventfd_of(self)

    def cancel(self) -> None:
        """Make every wait, present and to come, end with ``CaptureCancelled``."""
        os.eventfd_write(self._cancelled, 1)

    def restart(self, timeout_sec: float) -> None:
        """Count ``timeout_sec`` from now; 0 means no limit. What is cancelled stays so."""
        self._timeout_sec = timeout_sec
        self._deadline = time.monotonic() + timeout_sec if timeout_sec else None

    @contextmanager
    def set_aside(self) -> Iterator[None]:
        """What was ``restart``ed in here is forgotten afterwards: the limit of before counts again."""
        before = self._timeout_sec, self._deadline
        try:
            yield
        finally:
            self._timeout_sec, self._deadline = before

    def check(self) -> None:
        """Raises ``CaptureCancelled`` or ``CaptureTimedOut`` if it is so."""
        self.wait((), 0.0)

    def wait(self, readable: Iterable[int], at_most_sec: float) -> set[int]:
        """Wait until one of the descriptors has something or was hung up, or for ``at_most_sec``. Which ones those are.

        Raises ``CaptureCancelled`` or ``CaptureTimedOut``.
        """
        now = time.monotonic()
        if self._deadline is not None:
            if now >= self._deadline:
                raise CaptureTimedOut(self._timeout_sec)
            at_most_sec = min(at_most_sec, self._deadline - now)
        poll = select.poll()
        poll.register(self._cancelled, select.POLLIN)
        for descriptor in readable:
            poll.register(descriptor, select.POLLIN)
        ready = {descriptor for descriptor, _ in poll.poll(at_most_sec * 1000)}
        if self._cancelled in ready:
            raise CaptureCancelled
        return ready

    def result(self, call: Call[T]) -> T:
        """What ``call`` returned or raised. Raises ``CaptureCancelled`` or ``CaptureTimedOut`` if that comes first."""
        while not self.wait((call.done,), 1.0):
            pass
        return call.future.result()


class Call(Generic[T]):
    """One blocking call on a thread of its own, for libvirt is C, can hang, and cannot be interrupted.

    ``done`` is a descriptor that is readable once ``future`` has its result. The thread is a daemon: a call that never
    returns does not keep the process. Where several calls wait for a libvirtd that hangs, libvirt's keepalive ends only the
    one that was first (seen with 9.0.0): so beside a dump nothing may be waited for without a bound.
    """

    def __init__(self, function: Callable[[], T]) -> None:
        self.future: Future[T] = Future()
        self.done = _eventfd_of(self)
        threading.Thread(target=self._run, args=(function,), name="libvirt-call", daemon=True).start()

    def _run(self, function: Callable[[], T]) -> None:
        try:
            self.future.set_result(function())
        except BaseException as error:  # noqa: BLE001 - it is raised again where the result is asked for
            self.future.set_exception(error)
        os.eventfd_write(self.done, 1)

    def ended_within(self, at_most_sec: float) -> bool:
        """Whether the call ended, after waiting for at most that long, whatever became of the capture."""
        poll = select.poll()
        poll.register(self.done, select.POLLIN)
        return bool(poll.poll(at_most_sec * 1000))
