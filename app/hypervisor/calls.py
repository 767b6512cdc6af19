"""Every call to libvirt that the service makes, and the threads that libvirt needs.

libvirt's own event loop turns on one thread; whatever waits for libvirtd alone is called on another, one after the other; what
enters a domain, whose QEMU can hang, on a thread of its own (``domaincalls``, docs/decisions/0003). The service's loop only
hands over and waits. What stands below ``on_libvirts_thread`` blocks, and raises ``libvirt.libvirtError``; ``foreign_job``,
``resume_left`` and ``set_downtime`` enter the domain.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import libvirt

from app.downtime import Downtime
from app.errors import HypervisorNotResponding, HypervisorUnreachable, MemoryDumpsError
from app.model import Domain
from app.virt import LEFT_BY_A_DUMP, described, refusal, start_events, text_of

T = TypeVar("T")

_KEEPALIVE_SEC, _KEEPALIVE_MISSES = 3, 2
_EVENTS = (
    libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE,
    libvirt.VIR_DOMAIN_EVENT_ID_REBOOT,
    libvirt.VIR_DOMAIN_EVENT_ID_METADATA_CHANGE,
    libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED,
    libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED,
    libvirt.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED,
)
"""After any of these a domain may look different from what is known."""

# virDomainJobOperation, by number: what the words of `virsh domjobinfo` are.
_OPERATIONS = {
    1: "start",
    2: "save",
    3: "restore",
    4: "migration in",
    5: "migration out",
    6: "snapshot",
    7: "snapshot revert",
    8: "dump",
    9: "backup",
}
DUMP = _OPERATIONS[8]


@dataclass(frozen=True, slots=True)
class Standing:
    """Guests that stood still because of a dump: the names of those that were resumed, and of those that could not be, by
    uuid, with libvirt's reason."""

    resumed: tuple[str, ...]
    stuck: dict[str, str]


@functools.cache
def libvirts_loop() -> asyncio.AbstractEventLoop:
    """The loop of libvirt's thread, started at the first use, after libvirt's events. The thread is a daemon, as theirs is."""
    start_events()
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="libvirt", daemon=True).start()
    return loop


def on_libvirts_thread(function: Callable[[], T]) -> asyncio.Future[T]:
    async def call() -> T:
        return function()

    return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call(), libvirts_loop()))


def open_connection(uri: str) -> libvirt.virConnect:
    connection = libvirt.open(uri)
    with contextlib.suppress(libvirt.libvirtError):  # drivers inside this process have nothing to keep alive
        connection.setKeepAlive(_KEEPALIVE_SEC, _KEEPALIVE_MISSES)
    return connection


def register(
    connection: libvirt.virConnect, event: Callable[..., None], closed: Callable[[libvirt.virConnect, int, object], None]
) -> None:
    for kind in _EVENTS:
        with contextlib.suppress(libvirt.libvirtError):  # a driver need not have all of them
            connection.domainEventRegisterAny(None, kind, event, None)
    connection.registerCloseCallback(closed, None)


def close_connection(connection: libvirt.virConnect) -> None:
    with contextlib.suppress(libvirt.libvirtError):
        connection.unregisterCloseCallback()
    with contextlib.suppress(libvirt.libvirtError):
        connection.close()


def inventory(connection: libvirt.virConnect) -> tuple[str, list[Domain]]:
    name = connection.getHostname()
    found = []
    for raw in connection.listAllDomains():
        with contextlib.suppress(libvirt.libvirtError):  # it went away meanwhile; its event comes
            found.append(described(raw, name))
    return name, found


def look(connection: libvirt.virConnect, uuids: Sequence[str], hypervisor: str) -> dict[str, Domain | None]:
    """Each domain as it is now, None where it is no more."""
    seen: dict[str, Domain | None] = {}
    for uuid in uuids:
        try:
            seen[uuid] = described(connection.lookupByUUIDString(uuid), hypervisor)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
            seen[uuid] = None
    return seen


def foreign_job(connection: libvirt.virConnect, uuid: str) -> str | None:
    try:
        stats = connection.lookupByUUIDString(uuid).jobStats()
    except libvirt.libvirtError as error:
        # The test driver has no jobs; a domain that is gone or stopped has none either, and its own capture says so.
        if error.get_error_code() in (libvirt.VIR_ERR_NO_SUPPORT, libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID):
            return None
        if error.get_error_code() == libvirt.VIR_ERR_OPERATION_FAILED:
            return DUMP  # one that broke off and has not ended yet: "dump query failed"
        raise
    if stats.get("type", libvirt.VIR_DOMAIN_JOB_NONE) == libvirt.VIR_DOMAIN_JOB_NONE:
        return None
    return _OPERATIONS.get(stats.get("operation", 0), "unknown operation")


def left_paused(connection: libvirt.virConnect, dumped: str) -> dict[str, str]:
    """The names, by uuid, of the domains that may stand still because of a dump. Waits for no domain."""
    found = {}
    for raw in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_PAUSED):
        try:
            if _is_left(raw, dumped):
                found[raw.UUIDString()] = raw.name()
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
    return found


def resume_left(connection: libvirt.virConnect, uuid: str, dumped: str) -> str | None:
    """Resume a domain that was left so, and on which nobody works. "" if that was done, why it could not be, or None if there
    is nothing to do."""
    try:
        raw = connection.lookupByUUIDString(uuid)
        if not _is_left(raw, dumped) or foreign_job(connection, uuid) is not None:
            return None
        raw.resume()
    except libvirt.libvirtError as error:
        return str(error) if _is_there(connection, uuid) else None
    return ""


def _is_left(raw: libvirt.virDomain, dumped: str) -> bool:
    state, reason = raw.state()
    reasons = LEFT_BY_A_DUMP if raw.UUIDString() == dumped else (libvirt.VIR_DOMAIN_PAUSED_DUMP,)
    return state == libvirt.VIR_DOMAIN_PAUSED and reason in reasons


def _is_there(connection: libvirt.virConnect, uuid: str) -> bool:
    try:
        return bool(connection.lookupByUUIDString(uuid).isActive())
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:  # a transient domain is not known any more
            return False
        raise


def set_downtime(connection: libvirt.virConnect, wanted: Downtime) -> bool:
    try:
        raw = connection.lookupByUUIDString(wanted.uuid)
        if raw.ID() != wanted.libvirt_id:
            return False
        raw.migrateSetMaxDowntime(wanted.downtime_ms, 0)
    except libvirt.libvirtError as error:
        if error.get_error_code() not in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID):
            raise
        return False
    return True


def translated(uri: str, error: libvirt.libvirtError) -> MemoryDumpsError:
    if (refused := refusal(uri, error)) is not None:
        return refused
    text = text_of(error)
    return HypervisorNotResponding(uri) if "keepalive" in text else HypervisorUnreachable(uri, text)
