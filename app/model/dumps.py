"""Dumps: their manifests and records."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from app.model.domains import Subject
from app.model.moments import is_timestamp

Way = Literal["live", "paused", "plain"]
Algorithm = Literal["gzip", "zstd", "lz4", "none"]

ALGORITHMS: tuple[Algorithm, ...] = ("gzip", "zstd", "lz4", "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class Compression:
    """How a dump is stored: independent blocks of ``block_bytes`` raw bytes."""

    algorithm: Algorithm
    level: int | None
    block_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """The programs that made a dump."""

    memory_dumps: str
    libvirt: str
    qemu: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What is known about one dump; field names and order are the contract's (section 5).

    Times are RFC 3339 text with microseconds, for a manifest is kept and compared as it was written;
    ``ctime mtime atime`` are epoch seconds. ``audit_head`` is the hash of the last entry that the audit trail had then.
    """

    dump_id: str
    timestamp: str
    dom: str
    vmid: str
    uuid: str
    hypervisor: str
    uri: str
    mode: Way
    format: Literal["elf", "raw"]
    captured_at: str
    guest_pause_ms: float
    guest_pauses_ms: tuple[float, ...]
    duration_sec: float
    raw_size_bytes: int
    sha256: str
    gzip_size_bytes: int
    stored_sha256: str
    compression: Compression
    ctime: int
    mtime: int
    atime: int
    dump_path: str
    operator: str
    reason: str | None
    case: str | None
    versions: Versions
    warnings: tuple[str, ...] = field(default=())
    audit_head: str | None = None
    group: str | None = None
    domain_xml: str = ""

    @property
    def subject(self) -> Subject:
        return Subject(self.hypervisor, self.dom, self.group)


MOST_BYTES = 2**43
"""8 TiB, more than any guest's memory: a million dumps of that size still add up to a number that SQLite and InfluxDB hold."""

MOST_TIME = 1e9
"""Of a duration in seconds and of a pause in milliseconds."""


def check_values(record: Manifest) -> None:
    """Raise ``ValueError`` if a number or a time of ``record``, which somebody else wrote, is none that a dump can have.

    One such value would be fatal to every total it is part of, or could never be delivered.
    """
    for name in ("timestamp", "captured_at"):
        text = getattr(record, name)
        if not is_timestamp(text):
            raise ValueError(f"{name}={text[:64]!r} is no time such as 2026-11-23T10:30:00.000000Z")
    for name in ("raw_size_bytes", "gzip_size_bytes", "ctime", "mtime", "atime"):
        if not 0 <= getattr(record, name) <= MOST_BYTES:
            raise ValueError(f"{name} is not within 0 and {MOST_BYTES}")
    if not (0 <= record.compression.block_bytes <= MOST_BYTES and abs(record.compression.level or 0) <= MOST_BYTES):
        raise ValueError(f"a number of compression is not within {MOST_BYTES}")
    for name, values in (
        ("duration_sec", (record.duration_sec,)),
        ("guest_pause_ms", (record.guest_pause_ms,)),
        ("guest_pauses_ms", record.guest_pauses_ms),
    ):
        if not all(0 <= value <= MOST_TIME for value in values):
            raise ValueError(f"{name} is not within 0 and {MOST_TIME:.0f}")


DumpRecord = Manifest
"""A record is the manifest's searchable copy: the same names, the same values."""
