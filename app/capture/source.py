"""FIFO and libvirt's call → bytes. The only room beside ``app/hypervisor.py`` that imports libvirt.

Every call to libvirt runs on a thread of its own (``patience.Call``), for libvirtd may hang. The guest pause is measured
by QEMU's own STOP and RESUME events where the driver is QEMU, else by libvirt's lifecycle events.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import libvirt
import libvirt_qemu

from app import __version__
from app.capture.patience import Call, Patience
from app.capture.report import Report
from app.errors import (
    CaptureFailed,
    DomainBusy,
    DumpDirUnusable,
    GuestGone,
    HypervisorNotResponding,
    HypervisorRefused,
    HypervisorUnreachable,
    MemoryDumpsError,
    VmNotRunning,
)
from app.fifo import Fifo, Rendezvous, make_fifo
from app.model import OPENNEBULA_NAMESPACE, Domain, DomainState, Versions, find_domain, opennebula_vmid, vmid_of

T = TypeVar("T")

_PIPE_BYTES = 1 << 20
_F_SETPIPE_SZ = 1031
_KEEPALIVE_SEC, _KEEPALIVE_MISSES = 5, 3
_CONNECT_SEC = 15.0
_LATE_EVENT_SEC = 2.0
_CALL_ENDS_SEC = 3.0
_RESUME_FOR_SEC, _AGAIN_SEC = 3.0, 0.2

# QEMU stops the guest for a memory dump whatever the flags are. Without VIR_DUMP_LIVE libvirtd stops it before that and
# has to start it again; with it QEMU alone does both, so that a libvirtd which hangs or dies in between cannot leave the
# guest standing (docs/decisions/0002).
_PAUSED_FLAGS = libvirt.VIR_DUMP_MEMORY_ONLY | libvirt.VIR_DUMP_LIVE

_STATES = tuple(DomainState)  # in the order of virDomainState
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
            return self.patience.result(call)
        except libvirt.libvirtError as error:
            raise self._translated(error) from error

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
            raise DomainBusy(domain.name, "of somebody else")
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
        state, max_kib, _, vcpus, _ = raw.info()
        number = raw.ID()
        vmid = None
        with contextlib.suppress(libvirt.libvirtError):  # most domains have no such element
            vmid = opennebula_vmid(raw.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, OPENNEBULA_NAMESPACE))
        libvirt_id = None if number < 0 else number
        return Domain(
            uuid=raw.UUIDString(),
            name=raw.name(),
            id=libvirt_id,
            vmid=vmid_of(name=raw.name(), libvirt_id=libvirt_id, opennebula_vmid=vmid),
            state=_STATES[state],
            memory_bytes=max_kib * 1024,
            vcpus=vcpus,
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
        return _STATES[state], reason

    def gone(self) -> bool:
        """Whether the guest has ended."""
        try:
            return not self.connection.call(self.raw.isActive)
        except CaptureFailed:  # a transient domain is not known any more
            return True
        except MemoryDumpsError:
            return False

    def run_on(self) -> bool:
        """Resume the guest if a dump left it standing. Whether it had to be; raises ``CaptureError`` if it cannot be.

        While libvirt works on it, on a dump of ours that is breaking off or for somebody else, it is left alone: it goes on
        with the end of that.
        """
        until = time.monotonic() + _RESUME_FOR_SEC
        while True:
            state, reason = self.state()
            if state is not DomainState.PAUSED or reason not in _OURS:
                return False
            if self.connection.qemu and self.connection.call(functools.partial(_has_job, self.raw)):
                if time.monotonic() > until:
                    return False
            elif self._resumed(try_again=time.monotonic() < until):
                return True
            time.sleep(_AGAIN_SEC)

    def _resumed(self, *, try_again: bool) -> bool:
        """Whether ``resume`` succeeded. Raises why not unless ``try_again``: a program that holds a disk image may let go."""
        try:
            self.connection.call(self.raw.resume)
        except CaptureFailed:
            if not try_again:
                raise
            return False
        return True

    @contextmanager
    def dump(self, where: Rendezvous, capture_id: str, report: Report) -> Iterator[Stream]:
        """The paused way: libvirt's memory-only dump, or what the driver has, through a FIFO.

        However this is left, the FIFO is gone and the dump has ended or will fail. Raises ``CaptureError``.
        """
        fifo, reader = _open_fifo(where, capture_id)
        report.fifo(str(fifo.folder))
        call: Call[None] | None = None
        try:
            meter = PauseMeter(self)
            call = Call(functools.partial(self._core_dump, str(fifo.path)))
            yield Stream(self, reader, call, meter)
            meter.close()
        finally:
            os.close(reader)
            fifo.drop(settled=call is None or call.ended_within(0))
            if call is not None and not call.ended_within(_CALL_ENDS_SEC):
                report.warn("hypervisor-not-responding", "libvirt has not yet said that the dump ended.")

    def _core_dump(self, path: str) -> None:
        if self.connection.qemu:
            self.raw.coreDumpWithFormat(path, libvirt.VIR_DOMAIN_CORE_DUMP_FORMAT_RAW, _PAUSED_FLAGS)
        else:
            self.raw.coreDump(path, 0)


@dataclass(frozen=True, slots=True)
class Stops:
    """The stops that a capture caused: when the first began (epoch seconds, or None), and each one's milliseconds."""

    first_at: float | None
    each_ms: tuple[float, ...]


class PauseMeter:
    """Hears when the guest stops and goes on."""

    def __init__(self, guest: Guest) -> None:
        self._changed = threading.Condition()
        self._stopped_at: float | None = None
        self._stops: list[tuple[float, float]] = []
        self._guest = guest
        self._number = guest.connection.call(self._register)

    @property
    def standing(self) -> bool:
        """Whether the guest stands still at this moment."""
        return self._stopped_at is not None

    def stops(self) -> Stops:
        """What was heard, after waiting a little for an event that is late."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped_at is None, _LATE_EVENT_SEC)
            first = self._stops[0][0] if self._stops else self._stopped_at
            return Stops(first, tuple(round((until - since) * 1000, 3) for since, until in self._stops))

    def close(self) -> None:
        """Hear no more."""
        with contextlib.suppress(MemoryDumpsError):
            self._guest.connection.call(self._deregister)

    def _register(self) -> int:
        connection = self._guest.raw.connect()
        if self._guest.connection.qemu:
            return int(libvirt_qemu.qemuMonitorEventRegister(connection, self._guest.raw, None, self._from_qemu, None, 0))
        kind = libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE
        return int(connection.domainEventRegisterAny(self._guest.raw, kind, self._from_libvirt, None))

    def _deregister(self) -> None:
        connection = self._guest.raw.connect()
        if self._guest.connection.qemu:
            libvirt_qemu.qemuMonitorEventDeregister(connection, self._number)
        else:
            connection.domainEventDeregisterAny(self._number)

    def _from_qemu(self, *event: object) -> None:
        _, _, name, seconds, micros, *_ = event
        if name in ("STOP", "RESUME") and isinstance(seconds, int) and isinstance(micros, int):
            self._heard(name == "STOP", seconds + micros / 1e6)

    def _from_libvirt(self, *event: object) -> None:
        kind = event[2]
        if kind in (libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_RESUMED):
            self._heard(kind == libvirt.VIR_DOMAIN_EVENT_SUSPENDED, time.time())

    def _heard(self, stopped: bool, at: float) -> None:
        with self._changed:
            if stopped:
                self._stopped_at = at
            elif self._stopped_at is not None:
                self._stops.append((self._stopped_at, at))
                self._stopped_at = None
            self._changed.notify_all()


class Stream:
    """The bytes of one dump as libvirt hands them over."""

    def __init__(self, guest: Guest, descriptor: int, call: Call[None], meter: PauseMeter) -> None:
        self._guest = guest
        self._descriptor = descriptor
        self._call = call
        self._meter = meter
        self._begun = self._ended = False

    @property
    def guest_paused(self) -> bool:
        """Whether the guest stands still at this moment."""
        return self._meter.standing

    def fill(self, buffer: bytearray, tick: Callable[[], None]) -> int:
        """Read until ``buffer`` is full or the stream ends; how many bytes that were.

        Calls ``tick`` at least ten times a second while it waits. Raises what the capture's patience raises.
        """
        view, length = memoryview(buffer), 0
        while length < len(view) and not self._ended:
            if not self._begun:
                self._await_writer(tick)
            try:
                count = os.readv(self._descriptor, [view[length:]])
            except BlockingIOError:
                tick()
                self._guest.connection.patience.wait((self._descriptor,), 0.1)
                continue
            self._begun = self._begun or count > 0
            self._ended = count == 0 and (self._begun or self._call.ended_within(0.01))
            length += count
        return length

    def _await_writer(self, tick: Callable[[], None]) -> None:
        """Until libvirt has opened the FIFO, or its call has ended without doing so."""
        while not self._guest.connection.patience.wait((self._descriptor, self._call.done), 0.1):
            tick()

    def confirm(self) -> None:
        """Wait for libvirt's own word that the dump succeeded, for the end of the stream alone proves nothing.

        Raises ``GuestGone``, ``CaptureFailed``, ``DomainBusy`` or a ``HypervisorError``.
        """
        try:
            self._guest.connection.result(self._call)
        except CaptureFailed as error:
            if self._guest.gone():
                raise GuestGone(
                    f"{self._guest.domain.name} ended while its memory was being read, so there is no dump of it. ({error})"
                ) from error
            raise

    def stops(self) -> Stops:
        """The stops that this dump caused."""
        return self._meter.stops()


def _open_fifo(where: Rendezvous, capture_id: str) -> tuple[Fifo, int]:
    """A FIFO with its reading end open, which has to be before libvirt is called."""
    try:
        fifo = make_fifo(where, capture_id)
    except OSError as error:
        raise DumpDirUnusable(f"No FIFO can be made in {where.directory}: {error.strerror}. The guest was not touched.") from error
    try:
        reader = os.open(fifo.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        fifo.drop(settled=True)
        raise DumpDirUnusable(f"The FIFO in {where.directory} cannot be opened: {error.strerror}.") from error
    with contextlib.suppress(OSError):  # beyond fs.pipe-user-pages-soft the pipe stays small: slower, not wrong
        fcntl.fcntl(reader, _F_SETPIPE_SZ, _PIPE_BYTES)
    return fifo, reader


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
