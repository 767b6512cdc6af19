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

_DISARMED = re.compile(r"'|[\"'\s]*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
"""What a spreadsheet may run, also behind quotes and blanks, and in the full-width forms that some of them take for it; and
what begins with the apostrophe that disarms it, so that one at the beginning of a cell always is one too many."""

_HARMLESS = frozenset(string.ascii_letters + string.digits + "/") | {""}
"""What nearly every cell begins with: there is nothing to look for in it."""

_NUMBERS = {int, float}


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

_BETWEEN = {"guest_pauses_ms": " ", "warnings": "\n"}
"""What stands between the values of those that have several."""

_COLUMNS = [(attrgetter(name), _BETWEEN.get(name)) for name in COLUMNS]

_END = "\r\n"


def header() -> bytes:
    """The first row."""
    return (",".join(COLUMNS) + _END).encode()


def lines_of(records: str) -> list[Line]:
    """Of records as the index gives them, a JSON array."""
    return _decoder.decode(records)


def rows_of(records: str) -> bytes:
    """One row each. Takes its time, so not for the event loop; column by column it takes less than it would row by row."""
    lines = lines_of(records)
    columns = [_cells(list(map(value_of, lines)), between) for value_of, between in _COLUMNS]
    return "".join([_row(cells) for cells in zip(*columns, strict=True)]).encode()


def _row(cells: Sequence[str]) -> str:
    row = ",".join(cells)
    # The module takes twice as long, and would write the same.
    if row.count(",") == len(cells) - 1 and not ('"' in row or "\r" in row or "\n" in row):
        return row + _END
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=_END).writerow(cells)
    return text.getvalue()


def _cells(values: Sequence[Any], between: str | None) -> Sequence[str]:
    """Those of one column, nearly always of one kind."""
    if between is not None:
        values = [between.join(map(str, several)) for several in values]
    kinds = set(map(type, values))
    if kinds == {str} and _HARMLESS.issuperset([value[:1] for value in values]):
        return values
    return list(map(repr, values)) if kinds <= _NUMBERS else list(map(_cell, values))


def _cell(value: str | float | None) -> str:
    """A cell that no spreadsheet runs: with an apostrophe before what may be a formula, or begins with one."""
    if value is None:
        return ""
    if not isinstance(value, str):
        return repr(value)
    return value if value[:1] in _HARMLESS or not _DISARMED.match(value) else f"'{value}"
