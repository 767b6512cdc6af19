"""Records as a table, RFC 4180, for spreadsheets and scripts."""

from __future__ import annotations

import csv
import io
import re
import string
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Any

import msgspec

CONTENT_TYPE = "text/csv"

_HARMLESS = f"{string.ascii_letters}{string.digits}/".encode()
_DISARMED = re.compile(r"(?:^|(?<=[;\t\r\n]))(?='|[\"'\s\0]*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20])")
"""Before what a spreadsheet may run, also behind quotes and blanks, and in the full-width forms that some of them take for it; and
before the apostrophe that disarms it, so that one in such a place always is one too many. Such a place is the beginning of a cell,
and what some spreadsheets take for one: there is a country whose lists have semicolons, and a line within a cell begins anew where
its quotes are not understood."""


_NEXT_ROW = "\x1e"
"""Stands between rows while they are looked at: ASCII's own sign for that, which no text of a record is likely to have."""


def _kind(byte: int) -> int:
    """What a byte of rows means for a spreadsheet: ``a`` nothing, a comma the next cell, ``_NEXT_ROW`` itself, ``"`` that cells
    have to be looked at or quoted, and ``?`` that one which begins with it has to be looked at. Nearly no row has those there."""
    character = chr(byte)
    if character in f',"{_NEXT_ROW}':
        return byte
    if character in ";\t\r\n":
        return ord('"')
    return ord("a" if byte in _HARMLESS else "?")


class _Compression(msgspec.Struct, frozen=True, gc=False):
    algorithm: str
    level: int | None
    block_bytes: int


class _Versions(msgspec.Struct, frozen=True, gc=False):
    memory_dumps: str
    libvirt: str
    qemu: str


class Line(msgspec.Struct, frozen=True, gc=False):
    """What the table has of a record: of the index's JSON it is made in half the time that a ``DumpRecord`` takes."""

    dump_id: str
    timestamp: str
    dom: str
    vmid: str
    uuid: str
    hypervisor: str
    uri: str
    mode: str
    format: str
    captured_at: str
    guest_pause_ms: float
    guest_pauses_ms: list[float]
    duration_sec: float
    raw_size_bytes: int
    sha256: str
    gzip_size_bytes: int
    stored_sha256: str
    compression: _Compression
    ctime: int
    mtime: int
    atime: int
    dump_path: str
    operator: str
    reason: str | None
    case: str | None
    versions: _Versions
    warnings: list[str] = []
    audit_head: str | None = None
    group: str | None = None


def _flat(shape: type[msgspec.Struct], before: str = "") -> Iterator[str]:
    for field in msgspec.structs.fields(shape):
        if field.type in (_Compression, _Versions):
            yield from _flat(field.type, f"{field.name}.")
        else:
            yield before + field.name


COLUMNS = tuple(_flat(Line))
"""The names of a record, flat."""

_decoder = msgspec.json.Decoder(list[Line])
_values_of = attrgetter(*COLUMNS)

_LINES = "\n"
_BETWEEN = {"guest_pauses_ms": " ", "warnings": _LINES}
"""What stands between the values of those that have several."""

_KINDS = bytes(_kind(byte) for byte in range(256))
_COMMAS = len(COLUMNS) - 1
_FIRST = _NEXT_ROW.encode()

_END = b"\r\n"


def header() -> bytes:
    """The first row."""
    return ",".join(COLUMNS).encode() + _END


def lines_of(records: str) -> list[Line]:
    """Of records as the index gives them, a JSON array."""
    return _decoder.decode(records)


def rows_of(records: str) -> bytes:
    """One row each. Takes its time, so not for the event loop."""
    lines = lines_of(records)
    return _plain_rows(lines) or b"".join([_plain_rows([line]) or _row(line) for line in lines])


def _plain_rows(lines: Sequence[Line]) -> bytes:
    """The rows, if nothing has to be done to any cell of them, else nothing. All are looked at together: nearly all are such ones,
    and to look at each by itself takes as long as to make it."""
    plain = _NEXT_ROW.join(map(_plainly, lines)).encode()
    kinds = b"".join((_FIRST, plain.translate(_KINDS)))
    if kinds.count(_FIRST) != len(lines) or kinds.count(b",") != len(lines) * _COMMAS:
        return b""
    if b",?" in kinds or _FIRST + b"?" in kinds or b'"' in kinds:
        return b""
    return plain.replace(_FIRST, _END) + _END


def _row(line: Line) -> bytes:
    text = io.StringIO(newline="")
    cells = [_cell(value, name) for name, value in zip(COLUMNS, _values_of(line), strict=True)]
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return text.getvalue().encode()


def _plainly(line: Line) -> str:
    """The row, if nothing has to be done to it. All in one expression: with a million rows it is the time of these that counts."""
    of, by = line.compression, line.versions
    return (
        f"{line.dump_id},{line.timestamp},{line.dom},{line.vmid},{line.uuid},{line.hypervisor},{line.uri},{line.mode},"
        f"{line.format},{line.captured_at},{line.guest_pause_ms!r},{' '.join(map(repr, line.guest_pauses_ms))},"
        f"{line.duration_sec!r},{line.raw_size_bytes},{line.sha256},{line.gzip_size_bytes},{line.stored_sha256},"
        f"{of.algorithm},{'' if of.level is None else of.level},{of.block_bytes},{line.ctime},{line.mtime},{line.atime},"
        f"{line.dump_path},{line.operator},{line.reason or ''},{line.case or ''},{by.memory_dumps},{by.libvirt},{by.qemu},"
        f"{_LINES.join(line.warnings)},{line.audit_head or ''},{line.group or ''}"
    )


def _cell(value: Any, name: str) -> str:
    """A cell that no spreadsheet runs: with an apostrophe before what may be a formula."""
    if value is None:
        return ""
    if name in _BETWEEN:
        value = _BETWEEN[name].join(map(str, value))
    if not isinstance(value, str):
        return repr(value)
    return _DISARMED.sub("'", value)
