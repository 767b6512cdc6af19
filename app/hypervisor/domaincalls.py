"""Calls that wait for one domain: for its QEMU, which can hang, or for whoever else works on it.

Each runs on a thread and a connection of its own. A QEMU that hangs then holds up what is asked about its own VM alone, for
libvirtd serves a client only a few calls at a time (``max_client_requests``, 5).
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

import libvirt

from app.hypervisor import calls

T = TypeVar("T")


class DomainCalls:
    """Threads for such calls. One connection is kept for the next call; one more is made for each call beside it."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._spare: list[libvirt.virConnect] = []
        self._taking = threading.Lock()

    def begin(self, function: Callable[[libvirt.virConnect], T]) -> asyncio.Future[T]:
        """What ``function`` returns or raises, some day. The thread is a daemon: one that hangs does not keep the process."""
        future: Future[T] = Future()
        threading.Thread(target=self._run, args=(function, future), name="libvirt-domain", daemon=True).start()
        return asyncio.wrap_future(future)

    def close(self) -> None:
        """Let the spare connection go; blocks."""
        while self._spare:
            calls.close_connection(self._spare.pop())

    def _run(self, function: Callable[[libvirt.virConnect], T], future: Future[T]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            connection = self._take()
            try:
                found = function(connection)
            finally:
                self._give_back(connection)
        except BaseException as error:  # noqa: BLE001 - it is raised again where the result is asked for
            future.set_exception(error)
        else:
            future.set_result(found)

    def _take(self) -> libvirt.virConnect:
        with self._taking:
            spare = self._spare.pop() if self._spare else None
        if spare is not None and spare.isAlive():
            return spare
        return calls.open_connection(self._uri)

    def _give_back(self, connection: libvirt.virConnect) -> None:
        with self._taking:
            if not self._spare:
                self._spare.append(connection)
                return
        with contextlib.suppress(libvirt.libvirtError):
            connection.close()
