"""FIFO and libvirt's call → bytes; and how long the guest stood still for it.

Beside ``guest.py`` the only file in here that imports libvirt. The guest pause is measured by QEMU's own STOP and RESUME
events where the driver is QEMU, else by libvirt's lifecycle events.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import libvirt
import libvirt_qemu

from app.capture.guest import Guest
from app.capture.opening import Opening, make_opening
from app.capture.patience import Call
from app.capture.report import Report
from app.errors import CaptureFailed, GuestGone, HypervisorUnreachable, LiveNotPossible
from app.fifo import Rendezvous
from app.model import Way

_LATE_EVENT_SEC = 2.0
_CALL_ENDS_SEC = 3.0

# QEMU stops the guest for a memory dump whatever the flags are. Without VIR_DUMP_LIVE libvirtd stops it before that and
# has to start it again; with it QEMU alone does both, so that a libvirtd which hangs or dies in between cannot leave the
# guest standing (docs/decisions/0002). VIR_DUMP_LIVE alone is something else: a live migration into the file.
_FLAGS = {"paused": libvirt.VIR_DUMP_MEMORY_ONLY | libvirt.VIR_DUMP_LIVE, "live": libvirt.VIR_DUMP_LIVE}


@contextmanager
def dump(guest: Guest, way: Way, where: Rendezvous, capture_id: str, meter: PauseMeter, report: Report) -> Iterator[Stream]:
    """libvirt's dump through a FIFO: ``live`` a migration stream, ``paused`` an ELF vmcore, ``plain`` what the driver has.

    However this is left, the FIFO is gone and the dump has ended or will fail. Raises ``CaptureError`` or, where the way
    to libvirtd's host is broken, ``HypervisorError``.
    """
    opening = make_opening(guest, where, capture_id)
    call: Call[None] | None = None
    stream: Stream | None = None
    try:
        report.fifo(str(Path(opening.path).parent))
        meter.expect(True)
        call = Call(functools.partial(_core_dump, guest, way, opening.path))
        stream = Stream(guest, opening, call, meter)
        yield stream
    finally:
        # Once something has come libvirt has opened the FIFO, and every moment that it stays may be one of the guest's.
        opening.drop(settled=call is None or call.ended_within(0) or (stream is not None and stream.begun))
        if call is not None and not call.ended_within(_CALL_ENDS_SEC):
            report.warn("hypervisor-not-responding", "libvirt has not yet said that the dump ended.")
        meter.expect(False)


def _core_dump(guest: Guest, way: Way, path: str) -> None:
    if way == "plain":
        guest.raw.coreDump(path, 0)
    else:
        guest.raw.coreDumpWithFormat(path, libvirt.VIR_DOMAIN_CORE_DUMP_FORMAT_RAW, _FLAGS[way])


@dataclass(frozen=True, slots=True)
class Stops:
    """The stops that a capture caused: when the last began (epoch seconds, or None), and each one's milliseconds."""

    last_at: float | None
    each_ms: tuple[float, ...]


class PauseMeter:
    """Hears when the guest stops and goes on, while a ``with`` block lasts.

    While libvirt dumps, nobody else can stop the guest: so the first stop after ``expect`` is the dump's, and any other is
    somebody else's, who had to wait for it.
    """

    def __init__(self, guest: Guest) -> None:
        self._changed = threading.Condition()
        self._began_at: list[float] = []
        self._ended_at: list[float] = []
        self._expecting = self._standing = self._ours = False
        self._guest = guest
        self._number = guest.connection.call(self._register)

    @property
    def standing(self) -> bool:
        """Whether the guest stands still at this moment."""
        return self._standing

    def expect(self, expecting: bool) -> None:
        """A dump begins, or has ended: the next stop is its own, or is not."""
        with self._changed:
            self._expecting = expecting

    def instant(self) -> float | None:
        """When the stop of the dump that has just succeeded began; waits a little for an event that is late."""
        with self._changed:
            self._changed.wait_for(lambda: not self._expecting, _LATE_EVENT_SEC)
            return None if self._expecting or not self._began_at else self._began_at[-1]

    def stops(self) -> Stops:
        """The stops of our dumps, after waiting a little for an event that is late; one that lasts is counted up to now."""
        with self._changed:
            self._changed.wait_for(lambda: not self._ours, _LATE_EVENT_SEC)
            ends = [*self._ended_at, time.time()] if self._ours else self._ended_at
            spans = zip(self._began_at, ends, strict=True)
            last = self._began_at[-1] if self._began_at else None
            return Stops(last, tuple(round((until - since) * 1000, 3) for since, until in spans))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Hear no more; libvirt forgets it by itself when the connection ends."""
        Call(self._deregister).ended_within(_LATE_EVENT_SEC)

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
            self._standing = stopped
            if stopped and self._expecting:
                self._expecting, self._ours = False, True
                self._began_at.append(at)
            elif not stopped and self._ours:
                self._ours = False
                self._ended_at.append(at)
            self._changed.notify_all()


class Stream:
    """The bytes of one dump as libvirt hands them over."""

    def __init__(self, guest: Guest, opening: Opening, call: Call[None], meter: PauseMeter) -> None:
        self._guest = guest
        self._opening = opening
        self._descriptor = opening.reader
        self._call = call
        self._meter = meter
        self.begun = self._ended = False

    @property
    def guest_paused(self) -> bool:
        """Whether the guest stands still at this moment."""
        return self._meter.standing

    def fill(self, buffer: bytearray | memoryview, tick: Callable[[], None]) -> int:
        """Read until ``buffer`` is full or the stream ends; how many bytes that were. Else as ``read``."""
        view, length = memoryview(buffer), 0
        while length < len(view) and (count := self.read(view[length:], tick)):
            length += count
        return length

    def read(self, view: memoryview, tick: Callable[[], None]) -> int:
        """Read what there is, at least one byte, into ``view``; 0 at the end of the stream.

        Calls ``tick`` at least ten times a second while it waits. Raises what the capture's patience raises.
        """
        while not self._ended:
            if not self.begun:
                self._await_writer(tick)
            try:
                count = os.readv(self._descriptor, [view])
            except BlockingIOError:
                tick()
                if not self.begun and self._call.ended_within(0):
                    self._opening.hang_up()
                came = self._guest.connection.patience.wait((self._descriptor,), 0.1)
                if not came and self.begun and self._call.ended_within(0) and self._call.future.exception() is not None:
                    self._ended = True  # libvirt has given up, the connection to it broke: nobody will write to the end
                continue
            self.begun = self.begun or count > 0
            self._ended = count == 0 and (self.begun or self._call.ended_within(0.01))
            if count:
                return count
        return 0

    def _await_writer(self, tick: Callable[[], None]) -> None:
        """Until libvirt has opened the FIFO, or its call has ended without doing so."""
        while not self._guest.connection.patience.wait((self._descriptor, self._call.done), 0.1):
            tick()

    def confirm(self, tick: Callable[[], None]) -> None:
        """Wait for libvirt's own word that the dump succeeded, for the end of the stream alone proves nothing.

        Calls ``tick`` as ``read`` does. Raises ``LiveNotPossible``, ``GuestGone``, ``CaptureFailed``, ``DomainBusy`` or a
        ``HypervisorError``.
        """
        while not self._guest.connection.patience.wait((self._call.done,), 0.1):
            tick()
        try:
            self._guest.connection.result(self._call)
        except CaptureFailed as error:
            name = self._guest.domain.name
            if self._guest.gone():
                raise GuestGone(f"{name} ended while its memory was being read, so there is no dump of it. ({error})") from error
            if not self.begun and _cannot_migrate(error.__cause__):
                raise LiveNotPossible(f"{name} cannot be captured live: {error}", "The guest was not touched.") from error
            if trouble := self._opening.trouble():
                raise HypervisorUnreachable(
                    self._guest.connection.uri, f"the ssh that brings the memory broke off: {trouble}"
                ) from error
            raise


def _cannot_migrate(error: BaseException | None) -> bool:
    """libvirt refuses before QEMU is asked, or QEMU does: a device or a setting stands against it."""
    codes = (libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_OPERATION_UNSUPPORTED, libvirt.VIR_ERR_CONFIG_UNSUPPORTED)
    return isinstance(error, libvirt.libvirtError) and (
        error.get_error_code() in codes or "migrat" in (error.get_error_message() or "").lower()
    )
