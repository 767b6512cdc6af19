"""Guest memory → sealed dump. Knows nothing of jobs, records or web.

``capture`` tells the whole story: look the guest up, take a name and the room for the worst case, read the guest's
memory through a FIFO while it is hashed, packed and written, believe it only when libvirt says so *and* the image is as
long as its headers promise, see that the guest runs on, then give the dump its name.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import uuid_utils

from app.capture.codecs import codec
from app.capture.elfcore import CoreHeader, read_header
from app.capture.patience import Patience
from app.capture.report import Report
from app.capture.seal import Image, Seal
from app.capture.source import Connection, Guest, Stops, Stream, connect
from app.errors import CaptureCancelled, CaptureError, CaptureTimedOut, GuestLeftPaused, LiveNotAvailable, StreamTruncated
from app.fifo import rendezvous
from app.model import Algorithm, Manifest, Mode, Phase, rfc3339

_SLACK_BYTES = 64 << 20  # video memory, firmware, headers
_SLACK_FRACTION = 256  # what incompressible bytes grow by in any of the codecs, generously
_LOOK_SEC = 8.0
"""How long it may take to see that the guest runs on: less than the service grants a capture process beyond its time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be captured, and how. ``timeout_sec`` 0: no limit. ``level`` None: the codec's default."""

    vm: str
    dump_dir: Path
    mode: Mode
    algorithm: Algorithm
    level: int | None
    timeout_sec: float
    operator: str
    reason: str | None
    case: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Captured:
    """What is known when the memory has been read."""

    started: datetime
    began: float  # time.monotonic()
    elf: bool
    stops: Stops


def capture(order: Order, connection: Connection, report: Report, patience: Patience) -> Manifest:
    """Capture the memory of one guest and seal it. Returns the manifest of the dump, which then exists.

    Raises ``VmError``, ``HypervisorError`` or ``CaptureError``; then no partial file and no FIFO is left.
    """
    if order.mode == "live":
        raise LiveNotAvailable
    chosen = codec(order.algorithm, order.level)
    patience.restart(order.timeout_sec)
    guest = connection.guest(order.vm)
    domain = guest.domain
    report.phase(Phase.PREPARING, domain.name)
    started, began = datetime.now(UTC), time.monotonic()
    xml = guest.xml()
    dump_id = str(uuid_utils.uuid7())
    reserve = domain.memory_bytes + domain.memory_bytes // _SLACK_FRACTION + _SLACK_BYTES if connection.qemu else _SLACK_BYTES
    with Seal(order.dump_dir, domain.vmid, int(started.timestamp()), chosen, reserve) as seal:
        try:
            with guest.dump(rendezvous(connection.uri, order.dump_dir), dump_id, report) as stream:
                report.phase(Phase.CAPTURING, domain.name)
                header = _read(stream, seal, report, patience, connection.qemu)
                patience.restart(_LOOK_SEC)
                _see_it_run_on(guest, report)
                taken = _Captured(started=started, began=began, elf=header is not None, stops=stream.stops())
        except BaseException:
            _tidy(guest, report)
            raise
        patience.restart(0)
        report.phase(Phase.SEALING, domain.name)
        image = seal.finish()
        patience.check()
        return seal.publish(lambda path: _manifest(order, guest, report, taken, image, dump_id, xml, path))


def _read(stream: Stream, seal: Seal, report: Report, patience: Patience, expect_elf: bool) -> CoreHeader | None:
    """Send the whole stream to the seal, then make sure that it was whole. The ELF header, or None for a plain dump."""
    header: CoreHeader | None = None
    done = total = 0

    def tick() -> None:
        report.progress(done, total, guest_paused=stream.guest_paused)

    while True:
        slot = seal.take(patience)
        length = stream.fill(slot.buffer, tick)
        if done == 0 and expect_elf and length == len(slot.buffer):
            header = read_header(slot.buffer)
            total = header.size_bytes
        done += length
        tick()
        if length:
            seal.put(slot, length)
        if length < len(slot.buffer):
            break
    stream.confirm()
    if expect_elf and (header is None or done != header.size_bytes):
        raise StreamTruncated(
            f"The image ended after {done} bytes, and its headers promise {total}. libvirtd or QEMU may have died. Try again."
        )
    report.progress(done, total or done, guest_paused=stream.guest_paused, always=True)
    return header


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


def _tidy(guest: Guest, report: Report) -> None:
    """After a capture that failed: its own patience is over, so the guest's state is looked at with another."""
    guest.connection.patience = Patience(_LOOK_SEC)
    try:
        _see_it_run_on(guest, report)
    except Exception as error:  # noqa: BLE001 - what ended the capture is told; this comes on top
        report.warn("guest-state-unknown", f"Whether {guest.domain.name} runs on could not be seen: {error}")


def _manifest(
    order: Order, guest: Guest, report: Report, taken: _Captured, image: Image, dump_id: str, xml: str, path: Path
) -> Manifest:
    domain, connection = guest.domain, guest.connection
    captured_at = taken.started if taken.stops.first_at is None else datetime.fromtimestamp(taken.stops.first_at, UTC)
    return Manifest(
        dump_id=dump_id,
        timestamp=rfc3339(taken.started),
        dom=domain.name,
        vmid=domain.vmid,
        uuid=domain.uuid,
        hypervisor=connection.hostname,
        uri=connection.uri,
        mode="paused" if connection.qemu else "plain",
        format="elf" if taken.elf else "raw",
        captured_at=rfc3339(captured_at),
        guest_pause_ms=round(sum(taken.stops.each_ms), 3),
        guest_pauses_ms=taken.stops.each_ms,
        duration_sec=round(time.monotonic() - taken.began, 6),
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
        warnings=tuple(report.warnings),
        domain_xml=xml,
    )


__all__ = ["Connection", "Order", "Patience", "Report", "capture", "connect"]
