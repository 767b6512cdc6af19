"""A record as a point of InfluxDB, and back. Pure: knows line protocol, and no client.

Every value survives the way exactly. Line protocol has no way to write some (an empty tag, a backslash at the end of a
tag), clients and servers disagree about others (newlines, NUL), and InfluxDB takes no string above 64 KiB. Such a value
goes as text that is safe and readable in its own column, and exactly in the field ``exact``: percent-encoded pairs as in
a query string, plain ASCII, in as many fields (``exact``, ``exact_2`` …) as it needs.

The types of columns are fixed by the first point for ever, so each field has one type: ``duration_sec`` is a float even
when it is whole.
"""

from __future__ import annotations

import hashlib
import math
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, TypeVar
from urllib.parse import urlencode

import msgspec

from app.model import (
    ALGORITHMS,
    Algorithm,
    Compression,
    Manifest,
    Versions,
    from_rfc3339,
    is_timestamp,
    rfc3339,
)
from app.records.columns import Columns, NoRecord, piece_name

MEASUREMENT = "mem_dumps"

FOREIGN_IDS = uuid.UUID("6f1f9f5c-7f0a-5c0e-9d0a-3f6c5b7a2e11")
"""Namespace of the ``dump_id`` of points that have none: UUIDv5 of ``["dom","vmid",nanoseconds]`` as compact JSON."""

UNKNOWN = "This record is from another program's point in InfluxDB: what that does not say (uuid, mode, pause, …) is not known."
"""Stands in the warnings of such a record."""

Value = str | int | float

Word = TypeVar("Word", bound=str)

_MODES: tuple[Literal["live", "paused", "plain"], ...] = ("live", "paused", "plain")
_FORMATS: tuple[Literal["elf", "raw"], ...] = ("elf", "raw")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LONGEST_BYTES = 32 * 1024  # of a value in a column of its own; InfluxDB's limit is 64 KiB
_SHOWN_CHARS = 1000
_PIECE_CHARS = 60_000
_INT64 = range(-(2**63), 2**63)
_NOT_IN_FIELDS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_NOT_IN_TAGS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\\\\]")
_UUID = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_SUFFIXES: Mapping[str, Algorithm] = {".gz": "gzip", ".zst": "zstd", ".lz4": "lz4"}


@dataclass(frozen=True, slots=True)
class Point:
    """One point: two tags, a time in nanoseconds, fields. Values are exact; ``line_of`` sees to what cannot be written."""

    dom: str
    vmid: str
    time_ns: int
    fields: Mapping[str, Value]


# --- there --------------------------------------------------------------------------------------------------------


def point_of(record: Manifest) -> Point:
    """The point of a record: all of it but the domain's XML.

    Raises ``ValueError`` when its timestamp is no time, or a number is none that InfluxDB can hold.
    """
    values: dict[str, Value | None] = {
        "sha256": record.sha256,
        "duration_sec": float(record.duration_sec),
        "gzip_size_bytes": record.gzip_size_bytes,
        "ctime": record.ctime,
        "mtime": record.mtime,
        "atime": record.atime,
        "dump_path": record.dump_path,
        "dump_id": record.dump_id,
        "uuid": record.uuid,
        "hypervisor": record.hypervisor,
        "uri": record.uri,
        "mode": record.mode,
        "format": record.format,
        "captured_at": record.captured_at,
        "guest_pause_ms": float(record.guest_pause_ms),
        "guest_pauses_ms": msgspec.json.encode(record.guest_pauses_ms).decode(),
        "raw_size_bytes": record.raw_size_bytes,
        "stored_sha256": record.stored_sha256,
        "compression_algorithm": record.compression.algorithm,
        "compression_level": record.compression.level,
        "compression_block_bytes": record.compression.block_bytes,
        "operator": record.operator,
        "reason": record.reason,
        "case": record.case,
        "versions_memory_dumps": record.versions.memory_dumps,
        "versions_libvirt": record.versions.libvirt,
        "versions_qemu": record.versions.qemu,
        "warnings": msgspec.json.encode(record.warnings).decode(),
        "audit_head": record.audit_head,
        "group": record.group,
    }
    fields = {name: value for name, value in values.items() if value is not None}
    for name, value in fields.items():
        if not (math.isfinite(value) if isinstance(value, float) else isinstance(value, str) or value in _INT64):
            raise ValueError(f"InfluxDB cannot hold {name}={value}")
    return Point(record.dom, record.vmid, _nanoseconds(record.timestamp), fields)


def line_of(point: Point) -> str:
    """The point as one line of line protocol, without a newline in it or at its end."""
    tags = {"dom": point.dom, "vmid": point.vmid}
    texts = {name: value for name, value in point.fields.items() if isinstance(value, str)}
    exact = {name: value for name, value in tags.items() if not _tag_can_hold(value)}
    exact |= {name: value for name, value in texts.items() if not _field_can_hold(value)}
    fields = {**point.fields, **{name: _shown(texts[name]) for name in exact if name in texts}, **_pieces(exact)}
    named = ",".join(f"{name}={_tag(value)}" for name, value in tags.items())
    return f"{MEASUREMENT},{named} {','.join(f'{name}={_field(value)}' for name, value in fields.items())} {point.time_ns}"


def _nanoseconds(timestamp: str) -> int:
    """Whole microseconds, by integers alone: a float of such a size is off by hundreds of nanoseconds."""
    nanoseconds = (from_rfc3339(timestamp) - _EPOCH) // timedelta(microseconds=1) * 1000
    if nanoseconds not in _INT64:
        raise ValueError(f"InfluxDB cannot hold the time {timestamp}")
    return nanoseconds


def _tag_can_hold(text: str) -> bool:
    return text != "" and not _NOT_IN_TAGS.search(text) and len(text.encode()) <= _LONGEST_BYTES


def _field_can_hold(text: str) -> bool:
    return not _NOT_IN_FIELDS.search(text) and len(text.encode()) <= _LONGEST_BYTES


def _shown(text: str) -> str:
    """What a person can still read of a text that cannot stand in a column."""
    return _NOT_IN_TAGS.sub("\N{REPLACEMENT CHARACTER}", text[:_SHOWN_CHARS])


def _tag(text: str) -> str:
    if not _tag_can_hold(text):
        # Two VMs whose names look alike must not become one series: their points would overwrite each other.
        text = f"{_shown(text)}~{hashlib.sha256(text.encode()).hexdigest()[:32]}"
    return re.sub("([,= ])", r"\\\1", text)


def _field(value: Value) -> str:
    if isinstance(value, str):
        return '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'
    return repr(value) if isinstance(value, float) else f"{value}i"


def _pieces(exact: Mapping[str, str]) -> dict[str, str]:
    text = urlencode(exact)
    starts = range(0, len(text), _PIECE_CHARS)
    return {piece_name(n): text[start : start + _PIECE_CHARS] for n, start in enumerate(starts, 1)}


# --- and back -----------------------------------------------------------------------------------------------------


def record_of(row: Mapping[str, object]) -> Manifest:
    """The record that a queried row is a copy of; ``time`` is its only column that must be there, in nanoseconds.

    A point of another producer has less: without a ``dump_id`` that is a UUID one is made from (dom, vmid, time), texts and
    numbers that it does not have are empty and 0, and ``UNKNOWN`` is among the warnings. Columns of other names or types, and
    what no dump has in a column beyond the nine that every producer writes, are passed over as if they were not there. Raises
    ``NoRecord`` for a row without a time that a timestamp can show, or with a number among the nine that no dump has.
    """
    time_ns, timestamp = _time_of(row)
    columns = Columns(row)
    dom, vmid, dump_path = columns.text("dom"), columns.text("vmid"), columns.text("dump_path")
    dump_id = columns.text("dump_id") if _UUID.fullmatch(columns.text("dump_id")) else None
    return Manifest(
        dump_id=dump_id or foreign_dump_id(dom, vmid, time_ns),
        timestamp=timestamp,
        dom=dom,
        vmid=vmid,
        uuid=columns.text("uuid"),
        hypervisor=columns.text("hypervisor"),
        uri=columns.text("uri"),
        mode=_one_of(columns.text("mode"), _MODES, "plain"),
        format=_one_of(columns.text("format"), _FORMATS, "raw"),
        captured_at=columns.text("captured_at") if is_timestamp(columns.text("captured_at")) else timestamp,
        guest_pause_ms=columns.number("guest_pause_ms"),
        guest_pauses_ms=columns.pauses("guest_pauses_ms"),
        duration_sec=columns.number("duration_sec"),
        raw_size_bytes=columns.whole("raw_size_bytes"),
        sha256=columns.text("sha256"),
        gzip_size_bytes=columns.whole("gzip_size_bytes"),
        stored_sha256=columns.text("stored_sha256"),
        compression=_compression(columns, dump_path),
        ctime=columns.whole("ctime"),
        mtime=columns.whole("mtime"),
        atime=columns.whole("atime"),
        dump_path=dump_path,
        operator=columns.text("operator"),
        reason=columns.text_or_none("reason"),
        case=columns.text_or_none("case"),
        versions=Versions(
            memory_dumps=columns.text("versions_memory_dumps"),
            libvirt=columns.text("versions_libvirt"),
            qemu=columns.text("versions_qemu"),
        ),
        warnings=columns.json("warnings", tuple[str, ...], () if dump_id else (UNKNOWN,)),
        audit_head=columns.text_or_none("audit_head"),
        group=columns.text_or_none("group"),
    )


def _time_of(row: Mapping[str, object]) -> tuple[int, str]:
    """When the capture began, in nanoseconds and as a timestamp. Raises ``NoRecord``."""
    time_ns = row.get("time")
    if not isinstance(time_ns, int):
        raise NoRecord("time", time_ns)
    try:
        return time_ns, rfc3339(_EPOCH + timedelta(microseconds=time_ns // 1000))
    except OverflowError:
        raise NoRecord("time", time_ns) from None


def foreign_dump_id(dom: str, vmid: str, time_ns: int) -> str:
    """The ``dump_id`` of a point that has none: the same whoever reads it, and whenever."""
    return str(uuid.uuid5(FOREIGN_IDS, msgspec.json.encode([dom, vmid, time_ns]).decode()))


def _compression(columns: Columns, dump_path: str) -> Compression:
    by_name: Algorithm = next((algorithm for suffix, algorithm in _SUFFIXES.items() if dump_path.endswith(suffix)), "none")
    return Compression(
        algorithm=_one_of(columns.text("compression_algorithm"), ALGORITHMS, by_name),
        level=columns.level("compression_level"),
        block_bytes=columns.whole("compression_block_bytes"),
    )


def _one_of(text: str, allowed: tuple[Word, ...], default: Word) -> Word:
    return next((word for word in allowed if word == text), default)
