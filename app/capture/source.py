"""FIFO and libvirt's call → bytes.

With ``connection.py``, ``guest.py`` and ``pausemeter.py`` the only file in here that imports libvirt.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import libvirt

from app.capture.guest import Guest
from app.capture.heartbeat import Heartbeat
from app.capture.opening import Opening, make_opening
from app.capture.patience import Call
from app.capture.pausemeter import PauseMeter
from app.capture.report import Report
from app.errors import CaptureFailed, GuestGone, HypervisorNotResponding, HypervisorUnreachable, LiveNotPossible
from app.fifo import Rendezvous
from app.model import Way

_CALL_ENDS_SEC = 3.0
_SILENCE_SEC = 25.0
"""How long a libvirtd that does not answer is waited for; longer than keepalive, which ends the dump's own call first."""

# QEMU stops the guest for a memory dump whatever the flags are. Without VIR_DUMP_LIVE libvirtd stops it before that and
# has to start it again; with it QEMU alone does both, so that a libvirtd which hangs or dies in between cannot leave the
# guest standing (docs/decisions/0002). VIR_DUMP_LIVE alone is something else: a live migration into the file.
_FLAGS = {"paused": libvirt.VIR_DUMP_MEMORY_ONLY | libvirt.VIR_DUMP_LIVE, "live": libvirt.VIR_DUMP_LIVE}


@contextmanager
def dump(
    guest: Guest,
    way: Way,
    where: Rendezvous,
    capture_id: str,
    meter: PauseMeter,
    report: Report,
    just_before: Callable[[], None] = lambda: None,
) -> Iterator[Stream]:
    """libvirt's dump through a FIFO: ``live`` a migration stream, ``paused`` an ELF vmcore, ``plain`` what the driver has.

    ``just_before`` is called as late as can be before libvirt is; what it raises, ``confirm`` raises. However this is left,
    the FIFO is gone and the dump has ended or will fail. Raises ``CaptureError`` or, where the way to libvirtd's host is
    broken, ``HypervisorError``.
    """
    opening = make_opening(guest, where, capture_id)
    call: Call[None] | None = None
    stream: Stream | None = None
    heart: Heartbeat | None = None
    try:
        report.fifo(str(Path(opening.path).parent))
        call = Call(functools.partial(_core_dump, guest, way, opening.path, meter, just_before))
        if way == "live":  # of a paused dump QEMU itself lets the guest go on
            heart = Heartbeat(guest.raw.connect().getLibVersion)
        stream = Stream(guest, opening, call, meter, heart)
        yield stream
    finally:
        # Once something has come libvirt has opened the FIFO, and every moment that it stays may be one of the guest's.
        opening.drop(settled=call is None or call.ended_within(0) or (stream is not None and stream.begun))
        if heart is not None:
            heart.stop()
        if call is not None and not call.ended_within(_CALL_ENDS_SEC):
            report.warn("hypervisor-not-responding", "libvirt has not yet said that the dump ended.")
        meter.expect(None)


def _core_dump(guest: Guest, way: Way, path: str, meter: PauseMeter, just_before: Callable[[], None]) -> None:
    just_before()
    meter.expect(way)
    if way == "plain":
        guest.raw.coreDump(path, 0)
    else:
        guest.raw.coreDumpWithFormat(path, libvirt.VIR_DOMAIN_CORE_DUMP_FORMAT_RAW, _FLAGS[way])


class Stream:
    """The bytes of one dump as libvirt hands them over."""

    def __init__(self, guest: Guest, opening: Opening, call: Call[None], meter: PauseMeter, heart: Heartbeat | None) -> None:
        self._guest = guest
        self._opening = opening
        self._descriptor = opening.reader
        self._call = call
        self._meter = meter
        self._heart = heart
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
            if not self._worth_reading(tick):
                return 0
            try:
                count = os.readv(self._descriptor, [view])
            except BlockingIOError:
                tick()
                if not self.begun and self._call.ended_within(0):
                    self._opening.hang_up()
                self._guest.connection.patience.wait((self._descriptor,), 0.1)
                continue
            self.begun = self.begun or count > 0
            self._ended = count == 0 and (self.begun or self._call.ended_within(0.01))
            if count:
                return count
        return 0

    def _worth_reading(self, tick: Callable[[], None]) -> bool:
        """Whether this can still become a dump. Without a libvirtd that answers, a live dump is not read on meanwhile.

        QEMU, which waits for its reader, lets the guest run. Read to its end it stops the guest, and libvirtd alone would
        resume it. Raises ``HypervisorNotResponding``, and as ``Patience``.
        """
        connection, call, until = self._guest.connection, self._call, time.monotonic() + _SILENCE_SEC
        while self._heart is not None and self._heart.silent and not call.future.done():
            tick()
            if time.monotonic() > until:
                raise HypervisorNotResponding(connection.uri)
            connection.patience.wait((call.done,), 0.1)
        self._ended = self.begun and call.future.done() and call.future.exception() is not None
        return not self._ended

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
                raise GuestGone(
                    f"{name} ended or was migrated away before its memory was read, so there is no dump of it ({error}).",
                    "If it was to run here, look into its QEMU log; start it, then ask again.",
                ) from error
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
