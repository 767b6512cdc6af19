"""The ways in which a guest's memory is taken: live, paused, plain; and which of them an order allows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from app.capture.aftercare import looked_after, see_it_run_on
from app.capture.budget import budget
from app.capture.elfcore import CoreHeader, read_header
from app.capture.guest import Guest
from app.capture.order import Order
from app.capture.patience import Patience
from app.capture.pausemeter import PauseMeter, Stops
from app.capture.report import Report
from app.capture.seal import Seal
from app.capture.source import Stream, dump
from app.capture.sshhost import ssh_host
from app.errors import (
    RUNS_ON,
    CaptureError,
    LiveNotConverging,
    LiveNotPossible,
    StreamMalformed,
    StreamTruncated,
    WouldPauseTooLong,
)
from app.fifo import Rendezvous
from app.model import Phase, Way

if TYPE_CHECKING:
    from app.capture.coreimage import CoreImage

_PAUSED_BYTES_PER_SEC = 700e6  # what a paused dump reads, on the slower of the machines it was measured on
_REMOTE_BYTES_PER_SEC = 100e6  # the same through SSH over a network of 1 Gbit/s


@dataclass(frozen=True, slots=True, kw_only=True)
class UnderWay:
    """One capture under way."""

    order: Order
    guest: Guest
    xml: str
    dump_id: str
    where: Rendezvous
    seal: Seal
    report: Report
    patience: Patience
    meter: PauseMeter
    started: datetime
    began: float  # time.monotonic()


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """How the memory was captured, the instant that it shows (epoch seconds, None: not known), what that cost the guest, and
    the domain's XML."""

    way: Way
    xml: str
    at: float | None
    stops: Stops


def take(under_way: UnderWay) -> Taken:
    """Send the guest's memory to the seal, by the best way that the order allows."""
    guest, report, mode = under_way.guest, under_way.report, under_way.order.mode
    if not guest.connection.qemu:
        return _paused(under_way, "plain")
    allocated_bytes = guest.check_host_memory(under_way.xml)
    if mode == "paused":
        if guest.ran and under_way.order.max_pause_ms is not None:
            _allow_pause(under_way, under_way.order.max_pause_ms)
        return _paused(under_way, "paused")
    if not guest.ran:
        report.warn("captured-suspended", f"{guest.domain.name} is suspended: captured the paused way, which costs it nothing.")
        return _paused(under_way, "paused")
    try:
        return _live(under_way, allocated_bytes)
    except (LiveNotPossible, LiveNotConverging, StreamMalformed) as error:
        if guest.runs():
            if mode == "live":
                raise
            _allow_pause(under_way, under_way.order.paused_way_ms, error)
            report.warn("fell-back-to-paused", f"{error.message} So {guest.domain.name} was captured the paused way.")
        else:
            report.warn("captured-suspended", f"{error.message} So it was captured the paused way, which costs it nothing.")
    return _paused(under_way, "paused")


def _allow_pause(under_way: UnderWay, allowed_ms: int, cause: CaptureError | None = None) -> None:
    """Raises ``WouldPauseTooLong`` unless the paused way, with the stops that there were already, is predicted to stop the guest
    for no longer than ``allowed_ms``. ``cause``: why it is not captured live."""
    order, domain = under_way.order, under_way.guest.domain
    remote = ssh_host(under_way.guest.connection.uri) is not None
    predicted_ms = domain.memory_bytes / (_REMOTE_BYTES_PER_SEC if remote else _PAUSED_BYTES_PER_SEC) * 1000
    predicted_ms += sum(under_way.meter.stops().each_ms)
    if predicted_ms > allowed_ms:
        limit = "max_pause_ms" if allowed_ms == order.max_pause_ms else "MEMDUMP_FALLBACK_PAUSE_MS"
        raise WouldPauseTooLong(domain.name, predicted_ms, allowed_ms, limit, cause) from cause


def _live(under_way: UnderWay, allocated_bytes: int) -> Taken:
    from app.capture.live import After, LivePlan, live_image  # NumPy: the paused way neither needs it nor waits for it

    order, guest, report = under_way.order, under_way.guest, under_way.report
    report.way("live")
    after = After(looks=lambda: _seen(under_way), captured=lambda: _captured(under_way))
    with (
        budget(guest, under_way.where, under_way.dump_id, lambda: report.guest in (RUNS_ON, "")) as allowed,
        looked_after(guest, report),
    ):
        plan = LivePlan(
            guest=guest,
            budget=allowed,
            xml=under_way.xml,
            where=under_way.where,
            capture_id=under_way.dump_id,
            dump_dir=order.dump_dir,
            max_pause_ms=order.final_stop_ms,
            # Where the paused way would be taken instead, a second short stop may take as long as that way.
            max_stops_ms=max(order.final_stop_ms, order.paused_way_ms) if order.mode == "auto" else order.final_stop_ms,
            spool_memory_bytes=order.spool_memory_bytes,
            allocated_bytes=allocated_bytes,
        )
        with live_image(plan, under_way.meter, report, after) as live:
            stops = under_way.meter.stops()  # that for QEMU's headers, too
            _send(live.image, under_way)
    return Taken(way="live", xml=live.xml, at=live.captured_at, stops=stops)


def _send(image: CoreImage, under_way: UnderWay) -> None:
    """The spooled image to the seal; the guest has nothing to do with it any more."""
    done = 0
    while True:
        slot = under_way.seal.take(under_way.patience)
        length = image.fill(slot.buffer)
        if length:
            under_way.seal.put(slot, length)
        done += length
        under_way.report.progress(done, image.size_bytes, guest_paused=False, always=length < len(slot.buffer))
        if length < len(slot.buffer):
            return


def _paused(under_way: UnderWay, way: Way) -> Taken:
    guest, report = under_way.guest, under_way.report
    report.way(way)
    under_way.seal.brace()
    with looked_after(guest, report):
        with dump(guest, way, under_way.where, under_way.dump_id, under_way.meter, report) as stream:
            report.phase(Phase.CAPTURING, guest.domain.name)
            _read(stream, under_way, expect_elf=way == "paused")
        stops = _captured(under_way)
    return Taken(way=way, xml=under_way.xml, at=stops.last_at, stops=stops)


def _read(stream: Stream, under_way: UnderWay, *, expect_elf: bool) -> None:
    """Send the whole stream to the seal, then make sure that it was whole."""
    header: CoreHeader | None = None
    done = total = 0

    def tick() -> None:
        under_way.report.progress(done, total, guest_paused=stream.guest_paused)

    while True:
        slot = under_way.seal.take(under_way.patience)
        length = stream.fill(slot.buffer, tick)
        if done == 0 and expect_elf and length == len(slot.buffer):
            header = read_header(slot.buffer)
            total = header.size_bytes
        done += length
        tick()
        if length:
            under_way.seal.put(slot, length)
        if length < len(slot.buffer):
            break
    under_way.seal.all_read()
    stream.confirm(tick)
    if expect_elf and (header is None or done != header.size_bytes):
        raise StreamTruncated(
            f"The image ended after {done} bytes, and its headers promise {total}. libvirtd or QEMU may have died. Try again."
        )
    under_way.report.progress(done, total or done, guest_paused=stream.guest_paused, always=True)


def _seen(under_way: UnderWay) -> None:
    """See that the guest runs on, though it is not known yet whether the memory is captured: the time limit stays."""
    with under_way.patience.set_aside():
        see_it_run_on(under_way.guest, under_way.report)


def _captured(under_way: UnderWay) -> Stops:
    """The memory is captured, and the time limit, which was for that alone, is over. See that the guest runs on; the stops
    that all of this cost it."""
    under_way.report.phase(Phase.SEALING, under_way.guest.domain.name)
    see_it_run_on(under_way.guest, under_way.report)
    under_way.patience.restart(0)
    stops = under_way.meter.stops()
    under_way.report.guest_runs(not under_way.meter.standing)
    return stops
