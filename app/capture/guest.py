"""The connection to libvirt, and one guest: looked up, described, watched, resumed.

Only this file and ``source.py`` in here import libvirt. Every call runs on a thread of its own (``patience.Call``), for
libvirtd may hang.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import libvirt

from app import __version__
from app.capture.hostmemory import available_here, available_there, reading_allocates
from app.capture.patience import Call, Patience
from app.capture.sshhost import elsewhere, ssh_host
from app.downtime import Downtime, promise, take_over
from app.errors import (
    CaptureFailed,
    DomainBusy,
    DumpDirUnusable,
    HostMemoryShort,
    HypervisorNotResponding,
    HypervisorRefused,
    HypervisorUnreachable,
    MemoryDumpsError,
    VmNotRunning,
)
from app.fifo import Rendezvous
from app.model import OPENNEBULA_NAMESPACE, Domain, DomainState, Versions, domain_of, domain_state, find_domain

T = TypeVar("T")

_KEEPALIVE_SEC, _KEEPALIVE_MISSES = 5, 3
_CONNECT_SEC = 15.0
_RESTORE_SEC = 35.0  # libvirt waits 30 s for the domain's job lock
_RESUME_FOR_SEC, _JOB_ENDS_SEC, _AGAIN_SEC = 60.0, 3.0, 0.2
_LOOK_SEC = 8.0
"""How long libvirt may take to say how the guest is: less than the service grants a capture process beyond its time."""

_RUNNING = (DomainState.RUNNING, DomainState.BLOCKED, DomainState.NOSTATE)
_REFUSALS = {
    libvirt.VIR_ERR_AUTH_FAILED,
    libvirt.VIR_ERR_AUTH_CANCELLED,
    libvirt.VIR_ERR_AUTH_UNAVAILABLE,
    libvirt.VIR_ERR_ACCESS_DENIED,
    libvirt.VIR_ERR_OPERATION_DENIED,
}
# Why a guest that ran before a dump may stand still after it: not known, the dump itself, an API that failed to resume.
_OURS = {
    libvirt.VIR_DOMAIN_PAUSED_UNKNOWN,
    libvirt.VIR_DOMAIN_PAUSED_DUMP,
    getattr(libvirt, "VIR_DOMAIN_PAUSED_API_ERROR", 14),
}


def connect(uri: str, patience: Patience) -> Connection:
    """A connection to libvirt. Raises ``HypervisorUnreachable``, ``HypervisorNotResponding`` or ``HypervisorRefused``."""
    _start_events()
    opening = Call(lambda: libvirt.open(uri))
    if not patience.wait((opening.done,), _CONNECT_SEC):
        raise HypervisorNotResponding(uri)
    try:
        return Connection(uri, patience.result(opening), patience)
    except libvirt.libvirtError as error:
        text = error.get_error_message() or str(error)
        if error.get_error_code() in _REFUSALS:
            raise _refused(uri, text) from error
        raise HypervisorUnreachable(uri, text) from error


class Connection:
    """One connection to libvirt, for one capture process."""

    def __init__(self, uri: str, conn: libvirt.virConnect, patience: Patience) -> None:
        """Use ``connect``."""
        self.uri = uri
        self.patience = patience
        self._conn = conn
        with contextlib.suppress(libvirt.libvirtError):  # drivers inside this process have nothing to keep alive
            conn.setKeepAlive(_KEEPALIVE_SEC, _KEEPALIVE_MISSES)
        self.hostname, self.qemu, self.versions = self.call(self._describe)

    def close(self) -> None:
        """Close, unless libvirt hangs; then the process's end closes it."""
        Call(self._conn.close).ended_within(1.0)

    def call(self, function: Callable[[], T]) -> T:
        """``function`` on a thread of its own; libvirt's errors become ours, cancel and deadline are heeded."""
        return self.result(Call(function))

    def result(self, call: Call[T]) -> T:
        """What a call returned; libvirt's errors become ours, cancel and deadline are heeded."""
        try:
            while not self.patience.wait((call.done,), 1.0):
                if self._has_forgotten(call):
                    raise HypervisorNotResponding(self.uri)
            return call.future.result()
        except libvirt.libvirtError as error:
            raise self._translated(error) from error

    def ended_within(self, call: Call[T], at_most_sec: float) -> bool:
        """Whether the call ended, after waiting for at most that long, whatever became of the capture."""
        until = time.monotonic() + at_most_sec
        while not call.ended_within(1.0):
            if time.monotonic() > until or self._has_forgotten(call):
                return False
        return True

    def _has_forgotten(self, call: Call[T]) -> bool:
        """Whether the connection broke and the call will never end: libvirt's keepalive ends only the first of several."""
        return not self._conn.isAlive() and not call.ended_within(1.0)

    def _translated(self, error: libvirt.libvirtError) -> MemoryDumpsError:
        code, text = error.get_error_code(), error.get_error_message() or str(error)
        if code in _REFUSALS:
            return _refused(self.uri, text)
        if not self._conn.isAlive():
            return HypervisorNotResponding(self.uri) if "keepalive" in text else HypervisorUnreachable(self.uri, text)
        if code == libvirt.VIR_ERR_OPERATION_TIMEOUT:
            return DomainBusy("The VM", text)
        return CaptureFailed(f"libvirt reported: {text}.")

    def guest(self, wanted: str) -> Guest:
        """The running guest that ``wanted`` names. Raises ``VmUnknown``, ``AmbiguousVm``, ``VmNotRunning``, ``DomainBusy``."""
        raw, domain = self.call(functools.partial(self._find, wanted))
        if not domain.active:
            raise VmNotRunning(domain.name, domain.state)
        guest = Guest(self, raw, domain)
        if self.qemu and self.call(functools.partial(_has_job, raw)):
            raise DomainBusy(domain.name, "not of this capture")
        return guest

    def active(self) -> list[Domain]:
        """Every domain whose memory can be read, by name."""
        found = self.call(lambda: [self._domain(raw) for raw in self._conn.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)])
        return sorted(found, key=lambda domain: domain.name)

    def _describe(self) -> tuple[str, bool, Versions]:
        qemu = self._conn.getType() == "QEMU"
        return (
            self._conn.getHostname(),
            qemu,
            Versions(
                memory_dumps=__version__,
                libvirt=_dotted(self._conn.getLibVersion()),
                qemu=_dotted(self._conn.getVersion()) if qemu else "",
            ),
        )

    def _find(self, wanted: str) -> tuple[libvirt.virDomain, Domain]:
        with contextlib.suppress(libvirt.libvirtError):  # the service always names the uuid: no need to list the rest
            raw = self._conn.lookupByUUIDString(wanted)
            return raw, self._domain(raw)
        known = {(domain := self._domain(raw)).uuid: (raw, domain) for raw in self._conn.listAllDomains()}
        return known[find_domain(wanted, [domain for _, domain in known.values()]).uuid]

    def _domain(self, raw: libvirt.virDomain) -> Domain:
        state, memory_kib, _, vcpus, _ = raw.info()
        metadata_xml = None
        with contextlib.suppress(libvirt.libvirtError):  # most domains have no such element
            metadata_xml = raw.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, OPENNEBULA_NAMESPACE)
        return domain_of(
            uuid=raw.UUIDString(),
            name=raw.name(),
            number=raw.ID(),
            state=state,
            memory_kib=memory_kib,
            vcpus=vcpus,
            metadata_xml=metadata_xml,
            hypervisor=self._conn.getHostname(),
        )


class Guest:
    """A running guest, looked up once."""

    def __init__(self, connection: Connection, raw: libvirt.virDomain, domain: Domain) -> None:
        self.connection = connection
        self.domain = domain
        self.raw = raw

    def xml(self) -> str:
        """The domain's description, which without VIR_DOMAIN_XML_SECURE holds no secrets."""
        return str(self.connection.call(lambda: self.raw.XMLDesc(0)))

    def state(self) -> tuple[DomainState, int]:
        """The state and libvirt's number for its reason, now."""
        state, reason = self.connection.call(self.raw.state)
        return domain_state(state), reason

    def gone(self) -> bool:
        """Whether the guest has ended."""
        try:
            return not self.connection.call(self.raw.isActive)
        except CaptureFailed as error:
            cause = error.__cause__  # a transient domain is not known any more
            return isinstance(cause, libvirt.libvirtError) and cause.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN
        except MemoryDumpsError:
            return False

    def run_on(self) -> bool:
        """Resume the guest if a dump left it standing; tried for a minute, for another program may hold a disk image and
        let go. Whether it had to be. Raises ``CaptureError`` if it cannot be resumed, ``CaptureTimedOut`` if libvirt hangs.

        While libvirt works on it, on a dump of ours that is breaking off or for somebody else, it is left alone: it goes on
        with the end of that.
        """
        if not self.ran:  # before the dump, by somebody's will
            return False
        begun = time.monotonic()
        while True:
            self.connection.patience.restart(_LOOK_SEC)
            state, reason = self.state()
            if state is not DomainState.PAUSED or reason not in _OURS:
                return False
            if self.connection.qemu and self.connection.call(functools.partial(_has_job, self.raw)):
                if time.monotonic() > begun + _JOB_ENDS_SEC:
                    return False
            elif self._resumed(try_again=time.monotonic() < begun + _RESUME_FOR_SEC):
                return True
            time.sleep(_AGAIN_SEC)

    def _resumed(self, *, try_again: bool) -> bool:
        """Whether ``resume`` succeeded. Raises why not unless ``try_again``."""
        try:
            self.connection.call(self.raw.resume)
        except CaptureFailed:
            if not try_again:
                raise
            return False
        return True

    def check_host_memory(self, xml: str) -> None:
        """Raises ``HostMemoryShort`` if reading the guest's shared memory could drive its host out of memory.

        Each capture looks for itself: several that begin at once may count on the same memory.
        """
        if not reading_allocates(xml):
            return
        resident_kib, available_bytes = self.connection.call(lambda: (self.raw.memoryStats().get("rss", 0), self._host_has_bytes()))
        missing_bytes = self.domain.memory_bytes - resident_kib * 1024
        if missing_bytes > available_bytes:
            raise HostMemoryShort(self.domain.name, missing_bytes, available_bytes)

    def _host_has_bytes(self) -> int:
        """What the guest's host has available: by its own kernel if that is this host, else as well as libvirt knows."""
        connection = self.raw.connect()
        uri = connection.getURI()
        if ssh_host(uri) is None and elsewhere(uri) is None:
            with contextlib.suppress(OSError):
                if (here := available_here(Path("/proc/meminfo").read_text())) is not None:
                    return here
        node = connection.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS)
        flags = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE | libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
        guests = connection.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_BALLOON, flags)
        return available_there(node, sum(said.get("balloon.rss", 0) for raw, said in guests if reading_allocates(raw.XMLDesc(0))))

    @property
    def ran(self) -> bool:
        """Whether the guest ran when it was looked up. One that was suspended is to stay so; one that crashed, too."""
        return self.domain.state in _RUNNING

    def runs(self) -> bool:
        """Whether it runs at this moment."""
        return self.state()[0] in _RUNNING

    def suspended(self) -> bool:
        """Whether it stands still at this moment, and not because of a dump."""
        state, reason = self.state()
        return state is DomainState.PAUSED and reason not in _OURS

    @contextmanager
    def downtime(self, where: Rendezvous, capture_id: str) -> Iterator[Callable[[int], None]]:
        """What lets the final stop of a migration take at most so many milliseconds; afterwards it is what it was before.

        Raises ``DumpDirUnusable`` if the promise cannot be written down.
        """
        uuid, number = self.domain.uuid, self.domain.id
        owed = self.connection.call(lambda: take_over(where, uuid, number))  # the value of now may be a dead capture's
        try:
            if owed is None:
                now_ms = int(self.connection.call(lambda: self.raw.migrateGetMaxDowntime(0)))
                owed = promise(where, capture_id, Downtime(uuid, number, now_ms))
        except OSError as error:
            text = f"Nothing can be written to {where.directory}: {error.strerror}. The guest was not touched."
            raise DumpDirUnusable(text) from error

        def set_ms(downtime_ms: int) -> None:
            self.connection.call(lambda: self.raw.migrateSetMaxDowntime(downtime_ms, 0))

        try:
            yield set_ms
        finally:
            # The capture's own patience may be over; the domain is to be as it was all the same.
            restoring = Call(lambda: self.raw.migrateSetMaxDowntime(owed.before.downtime_ms, 0))
            restored = self.connection.ended_within(restoring, _RESTORE_SEC) and (
                restoring.future.exception() is None or self.gone()
            )
            if restored:
                owed.kept()
            else:
                owed.broken()

    def abort(self) -> Call[None]:
        """Abort the running live dump: the guest runs on. That nothing is left to abort is no error.

        QEMU heeds it only once what it has written is read, so this does not wait.
        """
        return Call(self.raw.abortJob)


def _has_job(raw: libvirt.virDomain) -> bool:
    try:
        return bool(raw.jobInfo()[0] != libvirt.VIR_DOMAIN_JOB_NONE)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_OPERATION_FAILED:  # a dump that broke off and has not ended yet
            return True
        raise


def _refused(uri: str, text: str) -> HypervisorRefused:
    return HypervisorRefused(f"libvirt at {uri} refused: {text}. Check this user's rights in libvirt.")


def _dotted(number: int) -> str:
    """libvirt's way to write a version: major × 1,000,000 + minor × 1,000 + release."""
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


@functools.cache
def _start_events() -> None:
    """Once a process: libvirt's own event loop on a thread, which events and keepalive need; and no words on stderr."""
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    libvirt.virEventRegisterDefaultImpl()
    threading.Thread(target=_turn, name="libvirt-events", daemon=True).start()


def _turn() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()
