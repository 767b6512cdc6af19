"""Which lines fit the tables there are, and what they add to them.

After ``influxdb3_write/src/write_buffer/validator.rs`` and ``influxdb3_catalog`` of InfluxDB 3 Core, texts as of 3.11:
the first write of a column fixes its type, and a line that conflicts is refused. With ``accept_partial`` the new columns that a
refused line named before its conflict stay all the same. ``line_number`` counts only lines that are neither empty nor a comment,
while ``original_line`` is the text of that many physical lines from the top, or a parsed line printed anew; cut to 20 bytes.

``tags_fixed``: earlier versions of Core refused a tag that the table's first write did not have; newer ones add it as a column.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tests.influx.line_protocol import FieldValue, Line, Malformed, Unsigned
from tests.influx.precision import nanoseconds

TAG, TIME, STRING, INTEGER, UINTEGER, FLOAT, BOOLEAN = (
    "tag", "timestamp", "field::string", "field::integer", "field::uinteger", "field::float", "field::boolean",
)  # fmt: skip
_ORIGINAL_LINE_BYTES = 20

Columns = dict[str, str]
Key = tuple[int, tuple[tuple[str, str], ...]]
Row = dict[str, FieldValue]


@dataclass(frozen=True, slots=True)
class LineError:
    error_message: str
    line_number: int
    original_line: str


class Batch:
    """The lines of one request, against a copy of the columns: a request refused as a whole leaves no column behind."""

    def __init__(self, columns: Mapping[str, Columns], *, precision: str, now_ns: int, tags_fixed: bool) -> None:
        self.columns = {name: dict(those) for name, those in columns.items()}
        self.rows: dict[str, dict[Key, Row]] = {}
        self.errors: list[LineError] = []
        self._precision, self._now_ns, self._tags_fixed = precision, now_ns, tags_fixed

    def take(self, number: int, line: Line | Malformed, physical: str) -> None:
        if isinstance(line, Malformed):
            self._refuse(str(line), number, physical)
            return
        try:
            time_ns = nanoseconds(line.timestamp, self._precision, self._now_ns)
            self._fit(line)
        except Malformed as refused:
            self._refuse(str(refused), number, str(line))
            return
        # Within one request the last of several points with the same tags and time wins.
        self.rows.setdefault(line.measurement, {})[(time_ns, tuple(sorted(line.tags)))] = dict(line.fields)

    def _refuse(self, problem: str, number: int, original: str) -> None:
        cut = original.encode()[:_ORIGINAL_LINE_BYTES].decode(errors="ignore")
        self.errors.append(LineError(problem, number, cut))

    def _fit(self, line: Line) -> None:
        new = line.measurement not in self.columns
        columns = {"time": TIME} if new else self.columns[line.measurement]
        seen: set[str] = set()
        for name, kind in _kinds(line):
            if new and name == "time":
                raise Malformed("'time' is a reserved column")
            if not new and self._tags_fixed and kind == TAG and name not in columns:
                raise Malformed(f"Detected a new tag '{name}' in write. The tag set is immutable on first write to the table.")
            if (known := columns.setdefault(name, kind)) != kind:
                raise Malformed(
                    f"invalid column type for column '{name}', expected iox::column_type::{known}, got iox::column_type::{kind}"
                )
            if name in seen:
                what = "tag" if kind == TAG else "field"
                raise Malformed(f"invalid line protocol - multiple instances of '{name}' {what} found")
            seen.add(name)
        self.columns[line.measurement] = columns


def _kinds(line: Line) -> Iterator[tuple[str, str]]:
    yield from ((name, TAG) for name, _ in line.tags)
    yield from ((name, _kind(value)) for name, value in line.fields)


def _kind(value: FieldValue) -> str:
    match value:
        case bool():
            return BOOLEAN
        case str():
            return STRING
        case int():
            return INTEGER
        case float():
            return FLOAT
        case Unsigned():
            return UINTEGER
