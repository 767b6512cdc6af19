"""What the stand-in keeps: databases of tables with fixed column types, and SQL over them run by DataFusion.

Column types, texts and numbering follow InfluxDB 3 Core (``influxdb3_write/src/write_buffer/validator.rs`` and
``influxdb3_catalog``, texts as of 3.11): the first write of a column fixes its type, a line that conflicts is refused, and
new columns that a refused line names stay registered all the same. What cannot be queried yet (its write waits for the
WAL) is held in ``Table.pending``.
"""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import pyarrow as pa
from datafusion import SessionConfig, SessionContext, SQLOptions

from tests.influx.line_protocol import FieldValue, Line, Malformed, Unsigned, lines

SLOT_NS = 600 * 10**9
"""Core writes one Parquet file for each table and ten minutes of time."""

_TAG, _TIME = "tag", "timestamp"
_ARROW = {
    _TAG: pa.dictionary(pa.int32(), pa.string()),
    _TIME: pa.timestamp("ns"),
    "field::string": pa.string(),
    "field::integer": pa.int64(),
    "field::uinteger": pa.uint64(),
    "field::float": pa.float64(),
    "field::boolean": pa.bool_(),
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*\Z")
_BOUND = re.compile(r"(?:[\w.\"]+\.)?time (>=|>|<=|<|=) TimestampNanosecond\((-?\d+), None\)\Z")
_ORIGINAL_LINE_BYTES = 20

Columns = dict[str, str]
Key = tuple[int, tuple[tuple[str, str], ...]]


class Refused(Exception):
    """A write refused as a whole. ``status`` is what HTTP answers."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class NoDatabase(Exception):
    pass


class BadQuery(Exception):
    pass


@dataclass(frozen=True, slots=True)
class LineError:
    error_message: str
    line_number: int
    original_line: str


@dataclass(slots=True)
class Table:
    columns: Columns
    rows: dict[Key, list[dict[str, FieldValue]]] = field(default_factory=dict)
    pending: list[tuple[Key, dict[str, FieldValue]]] = field(default_factory=list)


class Store:
    """Safe to use from the HTTP thread and the threads of Flight at once."""

    def __init__(self, *, file_limit: int, database_limit: int, seed: int) -> None:
        self._lock = threading.Lock()
        self._databases: dict[str, dict[str, Table]] = {}
        self._file_limit, self._database_limit = file_limit, database_limit
        self._random = random.Random(seed)  # noqa: S311  # chance that can be repeated, not a secret

    def write(self, database: str, body: str, *, unit_ns: int, now_ns: int, accept_partial: bool) -> list[LineError]:
        """Take the good lines, unless one is bad and ``accept_partial`` is false; give back what is wrong with the others."""
        if not _NAME.match(database):
            raise Refused(
                400,
                "invalid character in database or rp name: must be ASCII, containing only letters, numbers, underscores, or hyphens",
            )
        with self._lock:
            if database not in self._databases and len(self._databases) >= self._database_limit:
                raise Refused(422, f"Adding a new database would exceed limit of {self._database_limit} databases")
            tables = self._databases.get(database, {})
            batch = _Batch(tables, unit_ns, now_ns)
            physical = body.splitlines() or [""]
            for number, line in enumerate(lines(body), 1):
                batch.take(number, line, physical[min(number, len(physical)) - 1])
                if batch.errors and not accept_partial:
                    return batch.errors
            self._databases[database] = batch.commit()
            return batch.errors

    def flush(self) -> None:
        """What was written becomes what can be queried."""
        with self._lock:
            for table in (table for tables in self._databases.values() for table in tables.values()):
                for key, row in table.pending:
                    table.rows.setdefault(key, []).append(row)
                table.pending.clear()

    def query(self, database: str, sql: str, parameters: Mapping[str, object]) -> pa.Table:
        with self._lock:
            if database not in self._databases:
                raise NoDatabase(database)
            held = {name: self._arrow(table) for name, table in self._databases[database].items()}
        context = SessionContext(
            SessionConfig({"datafusion.sql_parser.enable_ident_normalization": "true"})
            .with_default_catalog_and_schema("public", "iox")
            .with_information_schema()
        )
        for name, table in held.items():
            context.register_record_batches(f'"{name}"', [table.to_batches()])
        try:
            frame = context.sql(sql, SQLOptions().with_allow_ddl(False).with_allow_dml(False), dict(parameters))
            self._count_files(frame.optimized_logical_plan().display_indent(), held)
            return frame.to_arrow_table()
        except BadQuery:
            raise
        except Exception as refused:  # noqa: BLE001  # DataFusion raises bare Exception
            raise BadQuery(str(refused).removeprefix("DataFusion error: ")) from refused

    def _arrow(self, table: Table) -> pa.Table:
        rows = [self._one_of(key, versions) for key, versions in table.rows.items()]
        names = sorted(table.columns)
        return pa.table(
            [pa.array((row.get(name) for row in rows), type=_ARROW[table.columns[name]]) for name in names],
            schema=pa.schema([pa.field(name, _ARROW[table.columns[name]], nullable=name != "time") for name in names]),
        )

    def _one_of(self, key: Key, versions: list[dict[str, FieldValue]]) -> dict[str, object]:
        """Which of several points with the same tags and time is seen is chance, anew with each query."""
        chosen = versions[0] if len(versions) == 1 else self._random.choice(versions)
        time_ns, tags = key
        values = {name: value.value if isinstance(value, Unsigned) else value for name, value in chosen.items()}
        return {"time": time_ns, **dict(tags), **values}

    def _count_files(self, plan: str, held: Mapping[str, pa.Table]) -> None:
        low, high = _time_range(plan)
        for name, table in held.items():
            if f"TableScan: {name}" not in plan and f"TableScan: iox.{name}" not in plan and f'"{name}"' not in plan:
                continue
            times = table.column("time").cast(pa.int64()).to_pylist()
            if len({time // SLOT_NS for time in times if low <= time <= high}) > self._file_limit:
                raise BadQuery(
                    f"External error: Query would exceed file limit of {self._file_limit} parquet files. Please specify a smaller time "
                    "range for your query. You can increase the file limit with the `--query-file-limit` option in the serve command, "
                    "however, query performance will be slower and the server may get OOM killed or become unstable as a result"
                )


class _Batch:
    """The lines of one request against a copy of the schema, for a refused request leaves none behind."""

    def __init__(self, tables: Mapping[str, Table], unit_ns: int, now_ns: int) -> None:
        self._tables, self._unit_ns, self._now_ns = tables, unit_ns, now_ns
        self._columns: dict[str, Columns] = {name: dict(table.columns) for name, table in tables.items()}
        self._rows: dict[str, dict[Key, dict[str, FieldValue]]] = {}
        self.errors: list[LineError] = []

    def take(self, number: int, line: Line | Malformed, physical: str) -> None:
        if isinstance(line, Malformed):
            self._refuse(str(line), number, physical)
        elif problem := self._conflict(line):
            self._refuse(problem, number, str(line))
        else:
            time_ns = self._now_ns if line.timestamp is None else line.timestamp * self._unit_ns
            # Within one request the last of several equal points wins.
            self._rows.setdefault(line.measurement, {})[(time_ns, tuple(sorted(line.tags)))] = dict(line.fields)

    def _refuse(self, problem: str, number: int, original: str) -> None:
        cut = original.encode()[:_ORIGINAL_LINE_BYTES].decode(errors="ignore")
        self.errors.append(LineError(problem, number, cut))

    def _conflict(self, line: Line) -> str | None:
        new = line.measurement not in self._columns
        columns = {"time": _TIME} if new else self._columns[line.measurement]
        seen: set[str] = set()
        for name, kind in _kinds(line):
            if new and name == "time":
                return "'time' is a reserved column"
            if (known := columns.setdefault(name, kind)) != kind:
                return f"invalid column type for column '{name}', expected iox::column_type::{known}, got iox::column_type::{kind}"
            if name in seen:
                return f"invalid line protocol - multiple instances of '{name}' {'tag' if kind == _TAG else 'field'} found"
            seen.add(name)
        self._columns[line.measurement] = columns
        return None

    def commit(self) -> dict[str, Table]:
        tables = dict(self._tables)
        for name, columns in self._columns.items():
            tables.setdefault(name, Table({})).columns = columns
            tables[name].pending += self._rows.get(name, {}).items()
        return tables


def _kinds(line: Line) -> Iterable[tuple[str, str]]:
    yield from ((name, _TAG) for name, _ in line.tags)
    yield from ((name, _kind(value)) for name, value in line.fields)


def _kind(value: FieldValue) -> str:
    match value:
        case bool():
            return "field::boolean"
        case str():
            return "field::string"
        case int():
            return "field::integer"
        case float():
            return "field::float"
        case Unsigned():
            return "field::uinteger"


def _time_range(plan: str) -> tuple[int, int]:
    """The bounds on time that a plan's filters state as plain comparisons joined by AND; others do not narrow anything."""
    low, high = -(2**63), 2**63 - 1
    for comparison, value in _bounds(plan):
        if comparison in (">", ">=", "="):
            low = max(low, value + (comparison == ">"))
        if comparison in ("<", "<=", "="):
            high = min(high, value - (comparison == "<"))
    return low, high


def _bounds(plan: str) -> Iterator[tuple[str, int]]:
    for line in plan.splitlines():
        kind, _, predicate = line.strip().partition(": ")
        if kind != "Filter":
            continue
        for part in predicate.split(" AND "):
            if found := _BOUND.match(part.strip()):
                yield found[1], int(found[2])
