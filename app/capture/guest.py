"""One guest: looked up, described, watched, resumed."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable
from pathlib import Path

import libvirt

from app.capture.connection import Connection
from app.capture.hostmemory import available_here, available_there, reading_allocates
from app.capture.patience import Call
from app.capture.sshhost import elsewhere, ssh_host
from app.errors import CaptureFailed, DomainBusy, HostMemoryShort, MemoryDumpsError, VmNotRunning
from app.model import Domain, DomainState, domain_state
from app.virt import LEFT_BY_A_DUMP

_RESUME_FOR_SEC, _JOB_ENDS_SEC, _AGAIN_SEC = 60.0, 3.0, 0.2
_LOOK_SEC = 8.0
"""How long libvirt may take to say how the guest is: less than the service grants a capture process beyond its time."""

_RUNNING = (DomainState.RUNNING, DomainState.BLOCKED, DomainState.NOSTATE)


def look_up(connection: Connection, wanted: str) -> Guest:
    """The running guest that ``wanted`` names. Raises ``VmUnknown``, ``AmbiguousVm``, ``VmNotRunning``, ``DomainBusy``."""
    raw, domain = connection.find(wanted)
    if not domain.active:
        raise VmNotRunning(domain.name, domain.state)
    guest = Guest(connection, raw, domain)
    if connection.qemu:
        guest.refuse_busy()
    return guest


class StillBusy(Exception):
    """The guest stands still, and libvirt works on it."""


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

    def run_on(self, stuck: Callable[[CaptureFailed], None]) -> bool:
        """Resume the guest if a dump left it standing; tried for a minute, for another program may hold a disk image and
        let go. Whether it had to be. ``stuck`` is told each time why it could not be.

        Raises ``CaptureFailed`` if it cannot be resumed at all, ``CaptureTimedOut`` if libvirt hangs, and what ``call`` raises.

        While libvirt works on it, on a dump of ours that is breaking off or for somebody else, it is left alone: it goes on
        with the end of that. Raises ``StillBusy`` if that takes long.
        """
        if not self.ran:  # before the dump, by somebody's will
            return False
        begun = time.monotonic()
        while True:
            self.connection.patience.restart(_LOOK_SEC)
            state, reason = self.state()
            if state is not DomainState.PAUSED or reason not in LEFT_BY_A_DUMP:
                return False
            if self.connection.qemu and self.connection.call(functools.partial(_has_job, self.raw)):
                if time.monotonic() > begun + _JOB_ENDS_SEC:
                    raise StillBusy
            else:
                try:
                    self.connection.call(self.raw.resume)
                except CaptureFailed as error:
                    if time.monotonic() > begun + _RESUME_FOR_SEC:
                        raise
                    stuck(error)
                else:
                    return True
            time.sleep(_AGAIN_SEC)

    def check_host_memory(self, xml: str) -> int:
        """Bytes that reading the guest's shared memory will allocate on its host, by what is there of it already.

        Raises ``HostMemoryShort`` if that could drive the host out of memory.

        Each capture looks for itself: several that begin at once may count on the same memory.
        """
        if not reading_allocates(xml):
            return 0
        resident_kib, available_bytes = self.connection.call(lambda: (self.raw.memoryStats().get("rss", 0), self._host_has_bytes()))
        missing_bytes = max(0, self.domain.memory_bytes - resident_kib * 1024)
        if missing_bytes > available_bytes:
            raise HostMemoryShort(self.domain.name, missing_bytes, available_bytes)
        return int(missing_bytes)

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

    def refuse_busy(self) -> None:
        """Raises ``DomainBusy`` if libvirt works on it."""
        if self.connection.call(functools.partial(_has_job, self.raw)):
            raise DomainBusy(self.domain.name, "not of this capture")

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
        return state is DomainState.PAUSED and reason not in LEFT_BY_A_DUMP

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
