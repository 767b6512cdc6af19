"""Guest memory → sealed dump. Knows nothing of jobs, records or web.

``capture`` tells the whole story: look the guest up, take a name and the room for the worst case, read the guest's
memory through a FIFO while it is hashed, packed and written, believe it only when libvirt says so *and* the image is as
long as its headers promise, see that the guest runs on, then give the dump its name.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import uuid_utils

from app.capture.alone import alone
from app.capture.codecs import codec
from app.capture.elfcore import CoreHeader, read_header
from app.capture.guest import Connection, Guest, connect
from app.capture.patience import Patience
from app.capture.pausemeter import PauseMeter, Stops
from app.capture.report import Report
from app.capture.seal import Image, Seal
from app.capture.source import Stream, dump
from app.capture.sshhost import ssh_host
from app.errors import (
    CaptureCancelled,
    CaptureError,
    CaptureTimedOut,
    GuestLeftPaused,
    LiveNotConverging,
    LiveNotPossible,
    StreamMalformed,
    StreamTruncated,
    WouldPauseTooLong,
)
from app.fifo import Rendezvous, rendezvous
from app.model import Algorithm, Manifest, Mode, Phase, Way, rfc3339

if TYPE_CHECKING:
    from app.capture.coreimage import CoreImage

_SLACK_BYTES = 64 << 20  # video memory, firmware, headers
_SLACK_FRACTION = 256  # what incompressible bytes grow by in any of the codecs, generously
_PAUSED_BYTES_PER_SEC = 700e6  # what a paused dump reads, on the slower of the machines it was measured on
_REMOTE_BYTES_PER_SEC = 100e6  # the same through SSH over a network of 1 Gbit/s


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be captured, and how. ``timeout_sec`` 0: no limit. ``level`` None: the codec's default.

    ``max_pause_ms`` is what this capture was asked for, and binds ``auto`` whatever way it takes; without it a live capture
    may stop the guest for ``live_pause_ms``, and ``auto`` falls back to the paused way if that is predicted to stop it for no
    longer than ``fallback_pause_ms``; ``spool_memory_bytes`` None: a quarter of what is available.
    """

    vm: str
    dump_dir: Path
    mode: Mode
    algorithm: Algorithm
    level: int | None
    timeout_sec: float
    operator: str
    reason: str | None
    case: str | None
    max_pause_ms: int | None = None
    live_pause_ms: int = 300
    fallback_pause_ms: int = 10_000
    spool_memory_bytes: int | None = None

    @property
    def final_stop_ms(self) -> int:
        """The longest final stop of a live capture."""
        return self.live_pause_ms if self.max_pause_ms is None else self.max_pause_ms

    @property
    def paused_way_ms(self) -> int:
        """The longest pause for which ``auto`` may fall back to the paused way."""
        return self.fallback_pause_ms if self.max_pause_ms is None else min(self.fallback_pause_ms, self.max_pause_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Capture:
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
class _Taken:
    """How the memory was captured, the instant that it shows (epoch seconds, None: not known), what that cost the guest, and
    the domain's XML."""

    way: Way
    xml: str
    at: float | None
    stops: Stops


def capture(order: Order, connection: Connection, report: Report, patience: Patience) -> Manifest:
    """Capture the memory of one guest and seal it. Returns the manifest of the dump, which then exists.

    Raises ``VmError``, ``HypervisorError`` or ``CaptureError``; then no partial file and no FIFO is left.
    """
    chosen = codec(order.algorithm, order.level)
    patience.restart(order.timeout_sec)
    guest = connection.guest(order.vm)
    report.phase(Phase.PREPARING, guest.domain.name)
    started, began = datetime.now(UTC), time.monotonic()
    where = rendezvous(connection.uri, order.dump_dir)
    with (
        Seal(order.dump_dir, guest.domain.vmid, int(started.timestamp()), chosen, _worst_case(guest)) as seal,
        alone(where, guest.domain),
    ):
        with PauseMeter(guest) as meter:
            under_way = _Capture(
                order=order,
                guest=guest,
                xml=guest.xml(),
                dump_id=str(uuid_utils.uuid7()),
                where=where,
                seal=seal,
                report=report,
                patience=patience,
                meter=meter,
                started=started,
                began=began,
            )
            taken = _fill(under_way)
        image = seal.finish(patience)
        patience.check()
        return seal.publish(lambda path: _manifest(under_way, taken, image, path))


def _worst_case(guest: Guest) -> int:
    """Bytes that a dump may need if nothing of it can be compressed."""
    memory_bytes = guest.domain.memory_bytes if guest.connection.qemu else 0
    return memory_bytes + memory_bytes // _SLACK_FRACTION + _SLACK_BYTES


def _fill(under_way: _Capture) -> _Taken:
    """Send the guest's memory to the seal, by the best way that the order allows."""
    guest, report, mode = under_way.guest, under_way.report, under_way.order.mode
    if not guest.connection.qemu:
        return _paused(under_way, "plain")
    guest.check_host_memory(under_way.xml)
    if mode == "paused":
        return _paused(under_way, "paused")
    if not guest.ran:
        report.warn("captured-suspended", f"{guest.domain.name} is suspended: captured the paused way, which costs it nothing.")
        return _paused(under_way, "paused")
    try:
        return _live(under_way)
    except (LiveNotPossible, LiveNotConverging, StreamMalformed) as error:
        if guest.runs():
            if mode == "live":
                raise
            _allow_fallback(under_way, error)
        else:
            report.warn("captured-suspended", f"{error.message} So it was captured the paused way, which costs it nothing.")
    return _paused(under_way, "paused")


def _allow_fallback(under_way: _Capture, cause: CaptureError) -> None:
    """Raises ``WouldPauseTooLong`` unless the paused way would stop the guest for no longer than is allowed."""
    order, name = under_way.order, under_way.guest.domain.name
    allowed_ms = order.paused_way_ms
    remote = ssh_host(under_way.guest.connection.uri) is not None
    predicted_ms = under_way.guest.domain.memory_bytes / (_REMOTE_BYTES_PER_SEC if remote else _PAUSED_BYTES_PER_SEC) * 1000
    if predicted_ms > allowed_ms:
        limit = "MEMDUMP_FALLBACK_PAUSE_MS" if allowed_ms == order.fallback_pause_ms else "max_pause_ms"
        raise WouldPauseTooLong(name, predicted_ms, allowed_ms, limit, cause) from cause
    under_way.report.warn("fell-back-to-paused", f"{cause.message} So {name} was captured the paused way.")


def _live(under_way: _Capture) -> _Taken:
    from app.capture.live import LivePlan, live_image  # NumPy: the paused way neither needs it nor waits for it

    order, guest, report = under_way.order, under_way.guest, under_way.report
    report.way("live")
    plan = LivePlan(
        guest=guest,
        xml=under_way.xml,
        where=under_way.where,
        capture_id=under_way.dump_id,
        dump_dir=order.dump_dir,
        max_pause_ms=order.final_stop_ms,
        # Where the paused way would be taken instead, a second short stop may take as long as that way.
        max_stops_ms=max(order.final_stop_ms, order.paused_way_ms) if order.mode == "auto" else order.final_stop_ms,
        spool_memory_bytes=order.spool_memory_bytes,
    )
    with _looked_after(guest, report), live_image(plan, under_way.meter, report, lambda: _captured(under_way)) as live:
        stops = under_way.meter.stops()  # that for QEMU's headers, too
        _send(live.image, under_way)
    return _Taken(way="live", xml=live.xml, at=live.captured_at, stops=stops)


def _send(image: CoreImage, under_way: _Capture) -> None:
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


def _paused(under_way: _Capture, way: Way) -> _Taken:
    guest, report = under_way.guest, under_way.report
    report.way(way)
    under_way.seal.brace()
    with _looked_after(guest, report):
        with dump(guest, way, under_way.where, under_way.dump_id, under_way.meter, report) as stream:
            report.phase(Phase.CAPTURING, guest.domain.name)
            _read(stream, under_way, expect_elf=way == "paused")
        stops = _captured(under_way)
    return _Taken(way=way, xml=under_way.xml, at=stops.last_at, stops=stops)


def _read(stream: Stream, under_way: _Capture, *, expect_elf: bool) -> None:
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
    stream.confirm(tick)
    if expect_elf and (header is None or done != header.size_bytes):
        raise StreamTruncated(
            f"The image ended after {done} bytes, and its headers promise {total}. libvirtd or QEMU may have died. Try again."
        )
    under_way.report.progress(done, total or done, guest_paused=stream.guest_paused, always=True)


def _captured(under_way: _Capture) -> Stops:
    """The memory is captured, and the time limit, which was for that alone, is over. See that the guest runs on; the stops
    that all of this cost it."""
    under_way.report.phase(Phase.SEALING, under_way.guest.domain.name)
    _see_it_run_on(under_way.guest, under_way.report)
    under_way.patience.restart(0)
    stops = under_way.meter.stops()
    under_way.report.guest_runs(not under_way.meter.standing)
    return stops


def _see_it_run_on(guest: Guest, report: Report) -> None:
    """After every capture the guest's state is looked at, also when libvirt said success."""
    name = guest.domain.name
    try:
        if guest.run_on():
            report.warn("guest-resumed", f"{name} stood still after the dump and was resumed.")
    except CaptureCancelled:
        raise
    except CaptureTimedOut:
        report.warn("guest-state-unknown", f"Whether {name} runs on could not be seen, for libvirt does not answer. Look at it.")
    except CaptureError as error:
        stuck = GuestLeftPaused(f"{name} stands still after the dump and could not be resumed: {error} Resume it by hand.")
        report.warn(stuck.code, str(stuck))


@contextmanager
def _looked_after(guest: Guest, report: Report) -> Iterator[None]:
    """If the capture fails in here, see that the guest runs on, with a patience of its own: the capture's may be over."""
    try:
        yield
    except BaseException:
        patience, guest.connection.patience = guest.connection.patience, Patience()
        try:
            _see_it_run_on(guest, report)
        except Exception as error:  # noqa: BLE001 - what ended the capture is told; this comes on top
            report.warn("guest-state-unknown", f"Whether {guest.domain.name} runs on could not be seen: {error}")
        finally:
            guest.connection.patience = patience
        raise


def _manifest(under_way: _Capture, taken: _Taken, image: Image, path: Path) -> Manifest:
    order, domain, connection = under_way.order, under_way.guest.domain, under_way.guest.connection
    captured_at = under_way.started if taken.at is None else datetime.fromtimestamp(taken.at, UTC)
    return Manifest(
        dump_id=under_way.dump_id,
        timestamp=rfc3339(under_way.started),
        dom=domain.name,
        vmid=domain.vmid,
        uuid=domain.uuid,
        hypervisor=connection.hostname,
        uri=connection.uri,
        mode=taken.way,
        format="raw" if taken.way == "plain" else "elf",
        captured_at=rfc3339(captured_at),
        guest_pause_ms=round(sum(taken.stops.each_ms), 3),
        guest_pauses_ms=taken.stops.each_ms,
        duration_sec=round(time.monotonic() - under_way.began, 6),
        raw_size_bytes=image.raw_size_bytes,
        sha256=image.sha256,
        gzip_size_bytes=image.stored_size_bytes,
        stored_sha256=image.stored_sha256,
        compression=image.compression,
        ctime=image.ctime,
        mtime=image.mtime,
        atime=image.atime,
        dump_path=str(path),
        operator=order.operator,
        reason=order.reason,
        case=order.case,
        versions=connection.versions,
        warnings=tuple(under_way.report.warnings),
        domain_xml=taken.xml,
    )


__all__ = ["Connection", "Order", "Patience", "Report", "capture", "connect"]
