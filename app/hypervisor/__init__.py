"""libvirt, as the service sees it: connect, keep an inventory by libvirt's events, ask and resume.

libvirt is C and its daemon can hang; so can a single QEMU, and then only what enters that domain does (``domaincalls``). So
every call is waited for only so long; what the service answers comes from what is known, and ``status`` says whether that is
fresh. Events only mark what has to be looked at again. A daemon that is
gone or silent is noticed by libvirt's keepalive, and the connection is made anew, for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import libvirt
import structlog

from app.downtime import Downtime
from app.errors import (
    HypervisorNotResponding,
    HypervisorRefused,
    HypervisorUnreachable,
    MemoryDumpsError,
    VmNotResponding,
)
from app.hypervisor import calls
from app.hypervisor.calls import DUMP, Standing
from app.hypervisor.domaincalls import DomainCalls
from app.model import Domain, HypervisorStatus, Link

T = TypeVar("T")

log = structlog.get_logger()

_CALL_SEC = 3.0
_DOMAIN_CALL_SEC = 5.0  # libvirt may have to be connected to first
_LATE_ANSWER_SEC = 1.0  # a libvirt that hung answers what waited, one call after the other, when it goes on
_CONNECT_SEC = 5.0
_INSIDE_THIS_PROCESS = ("test:", "qemu:///embed")
"""Drivers without a daemon: what one connection knows another need not know."""
_FIRST_RETRY_SEC, _LAST_RETRY_SEC = 0.5, 5.0
_ENDS_SEC, _ENDS_TRIES = 10.0, 100


class Hypervisor:
    """One libvirt connection, made again whenever it is lost. All methods belong to the event loop's thread."""

    def __init__(self, uri: str, *, domains_changed: Callable[[], None], status_changed: Callable[[], None]) -> None:
        """``domains_changed`` and ``status_changed`` are called on the event loop after each change."""
        self.uri = uri
        self.status = HypervisorStatus(name="", uri=uri, state=Link.CONNECTING, since=datetime.now(UTC))
        self._domains: dict[str, Domain] = {}
        self._domains_changed = domains_changed
        self._status_changed = status_changed
        self._loop = asyncio.get_running_loop()
        self._connection: libvirt.virConnect | None = None
        self._domain_calls = DomainCalls(uri)
        self._unanswered: dict[str, asyncio.Future[Any]] = {}
        self._closed = asyncio.Event()
        self._closed_by_silence = False
        self._error: MemoryDumpsError | None = None
        self.tried = asyncio.Event()
        """Set once it is known whether libvirt can be reached."""
        self._stale: set[str] = set()
        self._something_is_stale = asyncio.Event()

    def domains(self) -> tuple[Domain, ...]:
        """The inventory as it was last seen, by name; kept while libvirt is away."""
        return tuple(sorted(self._domains.values(), key=lambda domain: (domain.name, domain.uuid)))

    def check(self) -> None:
        """Raises the ``HypervisorError`` that keeps libvirt from serving us now."""
        if self._error is not None:
            raise self._error.with_traceback(None)
        if self.status.state is not Link.CONNECTED:
            raise HypervisorUnreachable(self.uri, "the connection is being made")

    async def foreign_job(self, uuid: str) -> str | None:
        """What libvirt does with the domain right now (``migration out``, ``backup`` …), or None.

        Raises ``HypervisorError``; that is ``VmNotResponding`` where it is not libvirt that hangs, but the domain's QEMU.
        """
        return await self._enter(uuid, lambda connection: calls.foreign_job(connection, uuid))

    async def resume_left_paused(self, dumped: str = "") -> Standing:
        """Resume every guest that stands still because of a dump that nobody is making any more.

        Such a guest (state paused, reason dump, no job) stays so for ever if libvirtd was killed in mid-dump. Of the VM
        ``dumped``, of which it is known that its capture died, it is enough that libvirt does not know why it stands still,
        or takes the live dump for a migration; but while a job is on (a real one has one) it is left alone. Raises
        ``HypervisorError``.
        """
        left = await self._call(functools.partial(calls.left_paused, self._connected(), dumped))
        resumed, stuck = [], {}
        for uuid, name in left.items():
            try:
                why = await self._enter(uuid, functools.partial(calls.resume_left, uuid=uuid, dumped=dumped))
            except VmNotResponding as error:
                why = str(error).rstrip(".")
            if why:
                stuck[uuid] = f"{name} stands still after a dump, and could not be resumed: {why}."
            elif why is not None:
                resumed.append(name)
        return Standing(tuple(resumed), stuck)

    async def idle(self, uuid: str) -> bool:
        """Whether libvirt does nothing with the domain any more, after waiting a while for a dump that broke off to end.

        Raises ``HypervisorError``.
        """
        for _ in range(_ENDS_TRIES):
            if await self.foreign_job(uuid) is None:
                return True
            await asyncio.sleep(_ENDS_SEC / _ENDS_TRIES)
        return False

    async def set_downtime(self, wanted: Downtime) -> bool:
        """Set the maximum downtime of that run of a domain; whether it still runs, for else there is nothing to set.

        Raises ``HypervisorError``.
        """
        return await self._enter(wanted.uuid, lambda connection: calls.set_downtime(connection, wanted))

    async def follow(self, connected: Callable[[], None]) -> None:
        """Connect, keep the inventory, connect again: until cancelled. ``connected`` is called after each connection."""
        retry_sec = _FIRST_RETRY_SEC
        try:
            while True:
                try:
                    await self._connect()
                    retry_sec = _FIRST_RETRY_SEC
                    connected()
                    await self._keep_inventory()
                except MemoryDumpsError as error:
                    self._lost(error)
                await self._disconnect()
                await asyncio.sleep(retry_sec)
                retry_sec = min(retry_sec * 2, _LAST_RETRY_SEC)
        finally:
            await self._disconnect()

    # --- connection

    async def _connect(self) -> None:
        self._closed.clear()
        opening = calls.on_libvirts_thread(functools.partial(calls.open_connection, self.uri))
        try:
            done, _ = await asyncio.wait({opening}, timeout=_CONNECT_SEC)
            if not done:
                self._lost(HypervisorNotResponding(self.uri))
            connection = await asyncio.shield(opening)  # a daemon that hangs may come back, and answers then
        except libvirt.libvirtError as error:
            raise calls.translated(self.uri, error) from error
        self._connection = connection
        await self._call(functools.partial(calls.register, connection, self._event, self._close_event))
        name, found = await self._call(functools.partial(calls.inventory, connection))
        self._stale.clear()
        self._something_is_stale.clear()
        self._domains = {domain.uuid: domain for domain in found}
        self._say(HypervisorStatus(name=name, uri=self.uri, state=Link.CONNECTED, since=datetime.now(UTC)))
        self._domains_changed()
        log.info("hypervisor_connected", uri=self.uri, hypervisor=name, domains=len(found))

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            closing = calls.on_libvirts_thread(functools.partial(calls.close_connection, connection))
            await asyncio.wait({closing, calls.on_libvirts_thread(self._domain_calls.close)}, timeout=1.0)

    def _lost(self, error: MemoryDumpsError) -> None:
        self._error = error
        state = Link.NOT_RESPONDING if isinstance(error, HypervisorNotResponding) else Link.UNREACHABLE
        if self.status.state is not state or self.status.message != str(error):
            log.error("hypervisor_lost", uri=self.uri, code=error.code, message=str(error))
            name = self.status.name
            self._say(HypervisorStatus(name=name, uri=self.uri, state=state, since=datetime.now(UTC), message=str(error)))

    def _say(self, status: HypervisorStatus) -> None:
        self.status = status
        if status.state is Link.CONNECTED:
            self._error = None
        self.tried.set()
        self._status_changed()

    def _connected(self) -> libvirt.virConnect:
        self.check()
        assert self._connection is not None  # noqa: S101 - check() raised otherwise
        return self._connection

    async def _call(self, function: Callable[[], T]) -> T:
        """``function`` on libvirt's thread. Raises ``HypervisorNotResponding`` when it takes too long; it goes on, and
        when it ends after all, libvirt answers again. Other errors: ``HypervisorUnreachable``, ``HypervisorRefused``."""
        future = calls.on_libvirts_thread(function)
        done, _ = await asyncio.wait({future}, timeout=_CALL_SEC)
        if not done:
            error = HypervisorNotResponding(self.uri)
            self._lost(error)
            future.add_done_callback(self._answered_late)
            raise error
        return self._result(future)

    async def _enter(self, uuid: str, function: Callable[[libvirt.virConnect], T]) -> T:
        """``function``, which may wait for that domain, and so keeps nobody else waiting.

        While one call waits for a domain no other is made; it may answer just now. Raises ``VmNotResponding`` if libvirt
        itself answers meanwhile; else as ``_call``.
        """
        connection = self._connected()
        if self.uri.startswith(_INSIDE_THIS_PROCESS):
            return await self._call(functools.partial(function, connection))
        if (before := self._unanswered.get(uuid)) is not None:
            await asyncio.wait({before}, timeout=_LATE_ANSWER_SEC)
        if uuid not in self._unanswered:
            future = self._domain_calls.begin(function)
            done, _ = await asyncio.wait({future}, timeout=_DOMAIN_CALL_SEC)
            if done:
                return self._result(future)
            self._unanswered[uuid] = future
            future.add_done_callback(lambda ended: self._answered(uuid, ended))
        await self._call(connection.getLibVersion)
        raise VmNotResponding(self._domains[uuid].name if uuid in self._domains else uuid)

    def _answered(self, uuid: str, future: asyncio.Future[Any]) -> None:
        self._unanswered.pop(uuid, None)
        if not future.cancelled() and (error := future.exception()) is not None:
            log.info("domain_call_ended_late", uuid=uuid, message=str(error))

    def _result(self, future: asyncio.Future[T]) -> T:
        try:
            return future.result()
        except libvirt.libvirtError as error:
            raise calls.translated(self.uri, error) from error

    def _answered_late(self, future: asyncio.Future[T]) -> None:
        """A call that was given up came back: unless the connection broke, the daemon merely was slow."""
        failed = future.cancelled() or future.exception() is not None
        if not failed and self._connection is not None and self.status.state is Link.NOT_RESPONDING:
            name = self.status.name
            self._say(HypervisorStatus(name=name, uri=self.uri, state=Link.CONNECTED, since=datetime.now(UTC)))
            self._stale.update(self._domains)
            self._something_is_stale.set()

    # --- inventory

    def _event(self, _connection: libvirt.virConnect, raw: libvirt.virDomain, *_details: object) -> None:
        """On libvirt's thread."""
        self._loop.call_soon_threadsafe(self._mark, raw.UUIDString())

    def _mark(self, uuid: str) -> None:
        self._stale.add(uuid)
        self._something_is_stale.set()

    def _close_event(self, _connection: libvirt.virConnect, reason: int, _opaque: object) -> None:
        """On libvirt's thread."""
        self._loop.call_soon_threadsafe(self._close, reason == libvirt.VIR_CONNECT_CLOSE_REASON_KEEPALIVE)

    def _close(self, by_silence: bool) -> None:
        self._closed_by_silence = by_silence
        self._closed.set()

    async def _keep_inventory(self) -> None:
        """Look at what events marked, until the connection is lost; raises how."""
        connection = self._connected()
        closed = asyncio.ensure_future(self._closed.wait())
        try:
            while True:
                stale = asyncio.ensure_future(self._something_is_stale.wait())
                try:
                    await asyncio.wait({closed, stale}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    stale.cancel()
                if closed.done():
                    if self._closed_by_silence:
                        raise HypervisorNotResponding(self.uri)
                    raise HypervisorUnreachable(self.uri, "the connection was lost")
                self._something_is_stale.clear()
                uuids = tuple(self._stale)
                self._stale.clear()
                with contextlib.suppress(HypervisorNotResponding, HypervisorRefused):  # said so; keepalive ends it, or an answer
                    await self._look_again(connection, uuids)
        finally:
            closed.cancel()

    async def _look_again(self, connection: libvirt.virConnect, uuids: Sequence[str]) -> None:
        seen = await self._call(functools.partial(calls.look, connection, uuids, self.status.name))
        before = dict(self._domains)
        for uuid, domain in seen.items():
            if domain is None:
                self._domains.pop(uuid, None)
            else:
                self._domains[uuid] = domain
        if self._domains != before:
            self._domains_changed()


__all__ = ["DUMP", "Hypervisor", "Standing"]
