"""Records as a table, RFC 4180, for spreadsheets and scripts."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Sequence

from app.model import DumpRecord

CONTENT_TYPE = "text/csv"

_DISARMED = re.compile(r"'|[\"'\s]*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
"""What a spreadsheet may run, also behind quotes and blanks, and in the full-width forms that some of them take for it; and
what begins with the apostrophe that disarms it, so that one at the beginning of a cell always is one too many."""

_Value = str | int | float | None

COLUMNS: Sequence[tuple[str, Callable[[DumpRecord], _Value]]] = (
    ("dump_id", lambda of: _text(of.dump_id)),
    ("timestamp", lambda of: of.timestamp),
    ("dom", lambda of: _text(of.dom)),
    ("vmid", lambda of: _text(of.vmid)),
    ("uuid", lambda of: _text(of.uuid)),
    ("hypervisor", lambda of: _text(of.hypervisor)),
    ("uri", lambda of: _text(of.uri)),
    ("mode", lambda of: of.mode),
    ("format", lambda of: of.format),
    ("captured_at", lambda of: _text(of.captured_at)),
    ("guest_pause_ms", lambda of: of.guest_pause_ms),
    ("guest_pauses_ms", lambda of: _text(" ".join(map(str, of.guest_pauses_ms)))),
    ("duration_sec", lambda of: of.duration_sec),
    ("raw_size_bytes", lambda of: of.raw_size_bytes),
    ("sha256", lambda of: _text(of.sha256)),
    ("gzip_size_bytes", lambda of: of.gzip_size_bytes),
    ("stored_sha256", lambda of: _text(of.stored_sha256)),
    ("compression.algorithm", lambda of: of.compression.algorithm),
    ("compression.level", lambda of: of.compression.level),
    ("compression.block_bytes", lambda of: of.compression.block_bytes),
    ("ctime", lambda of: of.ctime),
    ("mtime", lambda of: of.mtime),
    ("atime", lambda of: of.atime),
    ("dump_path", lambda of: _text(of.dump_path)),
    ("operator", lambda of: _text(of.operator)),
    ("reason", lambda of: _text(of.reason)),
    ("case", lambda of: _text(of.case)),
    ("versions.memory_dumps", lambda of: _text(of.versions.memory_dumps)),
    ("versions.libvirt", lambda of: _text(of.versions.libvirt)),
    ("versions.qemu", lambda of: _text(of.versions.qemu)),
    ("warnings", lambda of: _text("\n".join(of.warnings))),
    ("audit_head", lambda of: _text(of.audit_head)),
    ("group", lambda of: _text(of.group)),
)
"""The names of a record, flat."""


def header() -> bytes:
    """The first row."""
    return _rows([[name for name, _ in COLUMNS]])


def rows_of(records: Iterable[DumpRecord]) -> bytes:
    """One row each. Takes its time: not for the event loop."""
    # One by one: between two rows, unlike in a call of C that has all of them, the event loop may get its turn.
    return _rows([value(record) for _, value in COLUMNS] for record in records)


def _rows(rows: Iterable[Sequence[_Value]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()


def _text(text: str | None) -> str | None:
    """A cell that no spreadsheet runs: with an apostrophe before what may be a formula, or begins with one."""
    return f"'{text}" if text and _DISARMED.match(text) else text
