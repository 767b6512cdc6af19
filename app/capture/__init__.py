"""Guest memory → sealed dump. Knows nothing of jobs, records or web.

``capture`` tells the whole story: look the guest up, take a name and the room for the worst case, read the guest's
memory through a FIFO while it is hashed, packed and written, believe it only when libvirt says so *and* the image is as
long as its headers promise, see that the guest runs on, then give the dump its name.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import uuid_utils

from app.capture.aftercare import told_of
from app.capture.alone import alone
from app.capture.codecs import codec
from app.capture.connection import Connection, connect
from app.capture.guest import Guest, look_up
from app.capture.order import Order
from app.capture.patience import Patience
from app.capture.pausemeter import PauseMeter
from app.capture.report import Report
from app.capture.seal import Image, Seal
from app.capture.ways import Taken, UnderWay, take
from app.fifo import rendezvous
from app.model import Manifest, Phase, rfc3339

_SLACK_BYTES = 64 << 20  # video memory, firmware, headers
_SLACK_FRACTION = 256  # what incompressible bytes grow by in any of the codecs, generously


def capture(order: Order, connection: Connection, report: Report, patience: Patience) -> Manifest:
    """Capture the memory of one guest and seal it. Returns the manifest of the dump, which then exists.

    Raises ``VmError``, ``HypervisorError`` or ``CaptureError``; then no partial file and no FIFO is left.
    """
    chosen = codec(order.algorithm, order.level)
    patience.restart(order.timeout_sec)
    guest = look_up(connection, order.vm)
    report.phase(Phase.PREPARING, guest.domain.name)
    started, began = datetime.now(UTC), time.monotonic()
    where = rendezvous(connection.uri, order.dump_dir)
    with (
        told_of(guest, report),
        Seal(order.dump_dir, guest.domain.vmid, int(started.timestamp()), chosen, _worst_case(guest)) as seal,
        alone(where, guest.domain),
    ):
        with PauseMeter(guest) as meter:
            under_way = UnderWay(
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
            taken = take(under_way)
        image = seal.finish(patience)
        patience.check()
        return seal.publish(lambda path: _manifest(under_way, taken, image, path))


def _worst_case(guest: Guest) -> int:
    """Bytes that a dump may need if nothing of it can be compressed."""
    memory_bytes = guest.domain.memory_bytes if guest.connection.qemu else 0
    return memory_bytes + memory_bytes // _SLACK_FRACTION + _SLACK_BYTES


def _manifest(under_way: UnderWay, taken: Taken, image: Image, path: Path) -> Manifest:
    order, domain, connection = under_way.order, under_way.guest.domain, under_way.guest.connection
    captured_at = under_way.started if taken.at is None else datetime.fromtimestamp(taken.at, UTC)
    return Manifest(
        dump_id=under_way.dump_id,
        timestamp=rfc3339(under_way.started),
        dom=domain.name,
        vmid=domain.vmid,
        uuid=domain.uuid,
        hypervisor=connection.hostname,
        group=domain.group,
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
        audit_head=order.audit_head,
        domain_xml=taken.xml,
    )


__all__ = ["Connection", "Order", "Patience", "Report", "capture", "connect"]
