"""Manifests by the moment of their capture, and a shared history in memory: for tests of how records come and go."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from app.errors import HistoryError, HistoryFailed, HistoryTooWide, HistoryTypeConflict
from app.model import Compression, Manifest, Versions, rfc3339
from app.records.point import Point

SEC_NS = 10**9
HOUR_NS = 3600 * SEC_NS
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def manifest_at(time_ns: int, *, dom: str = "vm-web-01", vmid: str = "101", dump_id: str | None = None) -> Manifest:
    """A manifest of a capture that began then."""
    timestamp = rfc3339(_EPOCH + timedelta(microseconds=time_ns // 1000))
    return Manifest(
        dump_id=dump_id or str(uuid.UUID(int=time_ns // 1000)),
        timestamp=timestamp,
        dom=dom,
        vmid=vmid,
        uuid="a3090414-a879-482f-852d-f2fd8e7300e5",
        hypervisor="kvm-07",
        uri="qemu:///system",
        mode="paused",
        format="elf",
        captured_at=timestamp,
        guest_pause_ms=14.2,
        guest_pauses_ms=(14.2,),
        duration_sec=5.0,
        raw_size_bytes=1000,
        sha256="0" * 64,
        gzip_size_bytes=100,
        stored_sha256="1" * 64,
        compression=Compression(algorithm="gzip", level=1, block_bytes=1 << 20),
        ctime=1,
        mtime=2,
        atime=3,
        dump_path=f"/dumps/{vmid}_{time_ns // SEC_NS}.mem.gz",
        operator="admin",
        reason=None,
        case=None,
        versions=Versions(memory_dumps="0.1.0", libvirt="9.0.0", qemu="7.2.22"),
    )


class MemoryHistory:
    """A history that keeps points as rows, every write of one as a row of its own, and fails as it is told to."""

    def __init__(self, *, widest_ns: int | None = None) -> None:
        self.rows: list[dict[str, object]] = []
        self.asked: list[tuple[int, int]] = []
        self.writes: list[int] = []
        self.widest_ns = widest_ns
        self.of_wide: HistoryError = HistoryTooWide("500 files")
        self.ill_ns: tuple[int, int] | None = None
        self.failing: HistoryError | None = None
        self.failing_after_write: HistoryError | None = None
        self.refused_doms: set[str] = set()

    def add(self, *manifests: Manifest) -> None:
        """Points of another writer, with the nine original columns and the dump's id."""
        for one in manifests:
            moment = datetime.fromisoformat(one.timestamp)
            time_ns = ((moment - _EPOCH) // timedelta(microseconds=1)) * 1000
            self.rows.append({"time": time_ns, "dom": one.dom, "vmid": one.vmid, "dump_id": one.dump_id})

    async def write(self, points: Sequence[Point]) -> None:
        self.writes.append(len(points))
        if self.failing is not None:
            raise self.failing
        refused = {place: "column type conflict" for place, point in enumerate(points) if point.dom in self.refused_doms}
        for place, point in enumerate(points):
            if place not in refused:
                self.rows.append({"time": point.time_ns, "dom": point.dom, "vmid": point.vmid, **point.fields})
        if self.failing_after_write is not None:
            raise self.failing_after_write
        if refused:
            raise HistoryTypeConflict(refused)

    async def window(self, since_ns: int, until_ns: int, *, limit: int) -> list[dict[str, object]]:
        self.asked.append((since_ns, until_ns))
        if self.failing is not None:
            raise self.failing
        if self.widest_ns is not None and until_ns - since_ns > self.widest_ns and self._any(since_ns, until_ns):
            raise self.of_wide
        if self.ill_ns is not None and since_ns < self.ill_ns[1] and self.ill_ns[0] < until_ns:
            raise HistoryFailed("InfluxDB answered with 500: a file of that time cannot be read.")
        found = sorted((row for row in self.rows if since_ns <= time_of(row) < until_ns), key=time_of)
        return found[:limit]

    async def close(self) -> None:
        pass

    def _any(self, since_ns: int, until_ns: int) -> bool:
        return any(since_ns <= time_of(row) < until_ns for row in self.rows)


def time_of(row: dict[str, object]) -> int:
    """A row's time."""
    return int(str(row["time"]))
