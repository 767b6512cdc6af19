"""What the stand-in keeps: databases of tables, and SQL over them run by DataFusion, as in InfluxDB 3 Core."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Iterator, Mapping

import pyarrow as pa
from datafusion import SessionConfig, SessionContext, SQLOptions

from tests.influx.line_protocol import lines
from tests.influx.schema import Batch, LineError
from tests.influx.tables import Table

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*\Z")
_BOUND = re.compile(r"(?:[\w.\"-]+\.)?time (>=|>|<=|<|=) TimestampNanosecond\((-?\d+), None\)\Z")
_CONFIG = SessionConfig().with_default_catalog_and_schema("public", "iox").with_information_schema()
_READING_ONLY = SQLOptions().with_allow_ddl(False).with_allow_dml(False)


class Refused(Exception):
    """A write refused before any of its lines was looked at; ``status`` is what HTTP answers."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class NoDatabase(Exception):
    """Its text is the name."""


class BadQuery(Exception):
    """``internal`` when Core blames itself, not the query, in the gRPC code."""

    def __init__(self, text: str, *, internal: bool = False) -> None:
        super().__init__(text)
        self.internal = internal


class Store:
    """Safe to use from the HTTP thread and the threads of Flight at once."""

    def __init__(self, *, file_limit: int, database_limit: int, tags_fixed: bool, seed: int) -> None:
        self._changed = threading.Condition()
        self._databases: dict[str, dict[str, Table]] = {}
        self._file_limit, self._database_limit = file_limit, database_limit
        self._tags_fixed, self._seed = tags_fixed, seed

    def write(self, database: str, body: str, *, precision: str, now_ns: int, accept_partial: bool) -> list[LineError]:
        """Take the good lines and say what is wrong with the others; with ``accept_partial`` off, all or nothing."""
        with self._changed:
            self._admit(database)
            tables = self._databases.get(database, {})
            columns = {name: table.columns for name, table in tables.items()}
            batch = Batch(columns, precision=precision, now_ns=now_ns, tags_fixed=self._tags_fixed)
            physical = body.split("\n")
            for number, line in enumerate(lines(body), 1):
                batch.take(number, line, physical[number - 1].removesuffix("\r"))
                if batch.errors and not accept_partial:
                    return batch.errors
            if not batch.errors and not batch.rows:
                raise Refused(400, "incoming write was empty")
            tables = self._databases.setdefault(database, {})
            for name, those in batch.columns.items():
                tables.setdefault(name, Table({})).columns = those
                tables[name].add(batch.rows.get(name, {}).items())
            return batch.errors

    def _admit(self, database: str) -> None:
        if not _NAME.match(database):
            raise Refused(
                400,
                "invalid character in database or rp name: must be ASCII, containing only letters, numbers, underscores, or hyphens"
                if database[:1].isascii() and database[:1].isalnum()
                else "db name did not start with a number or letter",
            )
        if database not in self._databases and len(self._databases) >= self._database_limit:
            raise Refused(422, f"Adding a new database would exceed limit of {self._database_limit} databases")

    def delete(self, database: str) -> None:
        with self._changed:
            if self._databases.pop(database, None) is None:
                raise NoDatabase(database)

    def flush(self) -> None:
        """What was written becomes what can be queried."""
        with self._changed:
            for table in self._tables():
                table.flush()
            self._changed.notify_all()

    def forget_pending(self) -> None:
        with self._changed:
            for table in self._tables():
                table.forget_pending()

    def wait_for_points(self, database: str, table: str, count: int, timeout_sec: float) -> bool:
        def there() -> bool:
            return len(self._databases.get(database, {}).get(table, ())) >= count

        with self._changed:
            return self._changed.wait_for(there, timeout_sec)

    def query(self, database: str, sql: str, parameters: Mapping[str, object]) -> pa.Table:
        context = SessionContext(_CONFIG)
        with self._changed:
            if database not in self._databases:
                raise NoDatabase(database)
            for name, table in self._databases[database].items():
                # Not even the same query twice is sure to see the same version, but with the same seed a test does.
                rows = table.rows(random.Random(f"{self._seed} {name} {sql}"))  # noqa: S311  # not a secret
                context.register_record_batches(
                    _quoted(name), [rows.to_batches() or [pa.RecordBatch.from_pylist([], schema=rows.schema)]]
                )
            held = dict(self._databases[database])
        try:
            frame = context.sql(sql, _READING_ONLY, dict(parameters))
            plan = frame.optimized_logical_plan().display_indent()
        except Exception as refused:
            raise BadQuery(str(refused).removeprefix("DataFusion error: ")) from refused
        self._count_files(plan, held)
        try:
            return frame.to_arrow_table()
        except Exception as failed:
            raise BadQuery(str(failed).removeprefix("DataFusion error: ")) from failed

    def _count_files(self, plan: str, held: Mapping[str, Table]) -> None:
        low, high = _time_range(plan)
        for name in (
            name for name in held if re.search(rf"TableScan: (public\.)?(iox\.)?{re.escape(name)}( |$)", plan, re.MULTILINE)
        ):
            if held[name].files(low, high) > self._file_limit:
                raise BadQuery(
                    f"External error: Query would exceed file limit of {self._file_limit} parquet files. Please specify a smaller "
                    "time range for your query. You can increase the file limit with the `--query-file-limit` option in the serve "
                    "command, however, query performance will be slower and the server may get OOM killed or become unstable as a "
                    "result",
                    internal=True,
                )

    def _tables(self) -> Iterator[Table]:
        return (table for tables in self._databases.values() for table in tables.values())


def _quoted(name: str) -> str:
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def _time_range(plan: str) -> tuple[int, int]:
    """The bounds that a plan's filters put on time. Only plain comparisons joined by AND narrow it, as in most of Core."""
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
        if kind == "Filter" and " OR " not in predicate:
            for part in predicate.split(" AND "):
                if found := _BOUND.match(part.strip()):
                    yield found[1], int(found[2])
