"""Records as a table, RFC 4180, for spreadsheets and scripts."""

from __future__ import annotations

import csv
import io
import re
import string
from collections.abc import Iterable
from operator import attrgetter

from app.model import DumpRecord

CONTENT_TYPE = "text/csv"

_DISARMED = re.compile(r"'|[\"'\s]*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
"""What a spreadsheet may run, also behind quotes and blanks, and in the full-width forms that some of them take for it; and
what begins with the apostrophe that disarms it, so that one at the beginning of a cell always is one too many."""

_QUOTED = re.compile(r'["\r\n]')

_HARMLESS = frozenset(string.ascii_letters + string.digits + "/")
"""What nearly every cell begins with: there is nothing to look for in it."""

COLUMNS = (
    "dump_id",
    "timestamp",
    "dom",
    "vmid",
    "uuid",
    "hypervisor",
    "uri",
    "mode",
    "format",
    "captured_at",
    "guest_pause_ms",
    "guest_pauses_ms",
    "duration_sec",
    "raw_size_bytes",
    "sha256",
    "gzip_size_bytes",
    "stored_sha256",
    "compression.algorithm",
    "compression.level",
    "compression.block_bytes",
    "ctime",
    "mtime",
    "atime",
    "dump_path",
    "operator",
    "reason",
    "case",
    "versions.memory_dumps",
    "versions.libvirt",
    "versions.qemu",
    "warnings",
    "audit_head",
    "group",
)
"""The names of a record, flat."""

_values_of = attrgetter(*COLUMNS)
_LISTS = ((COLUMNS.index("guest_pauses_ms"), " "), (COLUMNS.index("warnings"), "\n"))
"""Which hold several values, and what stands between these in their cell."""

_END = "\r\n"


def header() -> bytes:
    """The first row."""
    return (",".join(COLUMNS) + _END).encode()


def rows_of(records: Iterable[DumpRecord]) -> bytes:
    """One row each. Takes its time: not for the event loop."""
    return "".join([_row(record) for record in records]).encode()


def _row(record: DumpRecord) -> str:
    values = list(_values_of(record))
    for place, between in _LISTS:
        values[place] = between.join(map(str, values[place]))
    cells = [_cell(value) for value in values]
    row = ",".join(cells)
    if row.count(",") == len(cells) - 1 and not _QUOTED.search(row):  # the module takes twice as long, and would write the same
        return row + _END
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=_END).writerow(cells)
    return text.getvalue()


def _cell(value: str | float | None) -> str:
    """A cell that no spreadsheet runs: with an apostrophe before what may be a formula, or begins with one."""
    if value is None:
        return ""
    if not isinstance(value, str):
        return repr(value)
    return value if value[:1] in _HARMLESS or not _DISARMED.match(value) else f"'{value}"
