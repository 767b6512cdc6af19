"""A service that has something to show: ten VMs of libvirt's test driver, and the records of sixty days."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from app.config import Settings
from app.foundation import SCHEMAS
from app.model import Compression, Manifest, Versions, rfc3339
from app.records.index import RecordIndex
from app.state import State
from tests.browser.feed import GIB, NAMES
from tests.nodes import PAUSED, RUNNING, SHUTOFF, Vm, node, numbered_uuid
from tests.service import Service, running_service

RECORDS = 240
_DAYS = 60
_SISTERS = '[{"name": "Backups", "url": "https://backups.example.org/"}]'
_STATES = {7: PAUSED, 9: SHUTOFF, 10: SHUTOFF}
VMS = tuple(
    Vm(
        name=name,
        uuid=numbered_uuid(number),
        opennebula=str(100 + number),
        state=_STATES.get(number, RUNNING),
        memory_mib=64 * number,
    )
    for number, name in enumerate(NAMES, 1)
)


@contextlib.contextmanager
def showcase(folder: Path, *, records: int = RECORDS) -> Iterator[Service]:
    """The service; with ``records=0`` nothing has been dumped yet."""
    folder.mkdir(parents=True, exist_ok=True)
    uri = node(folder / "node.xml", VMS)
    with running_service(folder, LIBVIRT_URI=uri, MEMDUMP_NAV=_SISTERS, MEMDUMP_COMPRESSION="none") as started:
        if records:
            asyncio.run(fill(started, records))
        yield started


async def fill(service: Service, records: int = RECORDS) -> None:
    """Give it records, as a command line beside it would; it tells them within a second."""
    settings = Settings.from_environment(service.environment)
    now = datetime.now(UTC)
    with contextlib.closing(State.open(settings.state_file, *SCHEMAS)) as state:
        await RecordIndex(state).add_many(manifest(number, now, records) for number in range(records))


def manifest(number: int, now: datetime, of: int = RECORDS) -> Manifest:
    """The ``number``th of ``of``, the newest first: one of every way, and here and there a warning."""
    which = number * 7 % 8
    vm = VMS[which]
    at = now - timedelta(days=_DAYS) * (number + number * 7919 % 101 / 9) / of - timedelta(minutes=4)  # some days have more
    paused = number % 9 == 4
    pause_ms = 900.0 + number % 70 * 31 if paused else 7.0 + number * 31 % 190 / 10
    seconds = int(at.timestamp())
    raw, stored = (hashlib.sha256(f"{kind}{number}".encode()).hexdigest() for kind in ("raw", "stored"))
    size = (1 + which % 4) * GIB
    made = Manifest(
        dump_id=f"0199{number:04x}-0000-7000-8000-{number:012x}",
        timestamp=rfc3339(at),
        dom=vm.name,
        vmid=vm.opennebula or "",
        uuid=vm.uuid,
        hypervisor="kvm-07",
        uri="qemu:///system",
        mode="paused" if paused else "live",
        format="elf",
        captured_at=rfc3339(at + timedelta(seconds=2)),
        guest_pause_ms=pause_ms,
        guest_pauses_ms=(pause_ms,),
        duration_sec=1.4 + size / GIB * 1.1 + number % 13 / 10,
        raw_size_bytes=size + 8443,
        sha256=raw,
        gzip_size_bytes=size // 4 + number * 1_234_567 % (size // 8),
        stored_sha256=stored,
        compression=Compression(algorithm="gzip", level=1, block_bytes=1 << 20),
        ctime=seconds,
        mtime=seconds,
        atime=seconds,
        dump_path=f"/var/dumps/{vm.opennebula}_{seconds}.mem.gz",
        operator="admin",
        reason="suspicious traffic" if number % 5 == 0 else None,
        case="C-2026-17" if number % 5 == 0 else None,
        versions=Versions(memory_dumps="0.1.0", libvirt="9.0.0", qemu="7.2.22"),
    )
    if not paused:
        return made
    return replace(
        made, warnings=(f"{vm.name} rewrites its memory faster than it can be read, so it was captured the paused way.",)
    )
