"""The rows of one table, and which Parquet files a query of it would open."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence

import pyarrow as pa

from tests.influx.line_protocol import Unsigned
from tests.influx.schema import BOOLEAN, FLOAT, INTEGER, STRING, TAG, TIME, UINTEGER, Columns, Key, Row

SLOT_NS = 600 * 10**9
"""Core writes one Parquet file for each table and ten minutes of time."""

_ARROW = {
    TAG: pa.dictionary(pa.int32(), pa.string()),
    TIME: pa.timestamp("ns"),
    STRING: pa.string(),
    INTEGER: pa.int64(),
    UINTEGER: pa.uint64(),
    FLOAT: pa.float64(),
    BOOLEAN: pa.bool_(),
}


class Table:
    """Points that only one write gave are kept as Arrow; for the others it is chance which version a query sees."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._pending: list[tuple[Key, Row]] = []
        self._versions: dict[Key, list[Row]] = {}
        self._repeated: set[Key] = set()
        self._slots: dict[int, tuple[int, int]] = {}
        self._single: pa.Table | None = None

    @property
    def columns(self) -> Columns:
        return self._columns

    @columns.setter
    def columns(self, columns: Columns) -> None:
        if columns != self._columns:
            self._columns, self._single = columns, None

    def __len__(self) -> int:
        return len(self._versions)

    def add(self, rows: Iterable[tuple[Key, Row]]) -> None:
        self._pending += rows

    def forget_pending(self) -> None:
        self._pending.clear()

    def flush(self) -> None:
        if not self._pending:
            return
        for key, row in self._pending:
            versions = self._versions.setdefault(key, [])
            versions.append(row)
            if len(versions) > 1:
                self._repeated.add(key)
            low, high = self._slots.get(key[0] // SLOT_NS, (key[0], key[0]))
            self._slots[key[0] // SLOT_NS] = (min(low, key[0]), max(high, key[0]))
        self._pending.clear()
        self._single = None

    def files(self, low: int, high: int) -> int:
        """How many files hold times from ``low`` to ``high``, going by the first and last time in each."""
        return sum(first <= high and last >= low for first, last in self._slots.values())

    def rows(self, chance: random.Random) -> pa.Table:
        if self._single is None:
            self._single = self._arrow((key, versions[0]) for key, versions in self._versions.items() if key not in self._repeated)
        if not self._repeated:
            return self._single
        chosen = self._arrow((key, chance.choice(self._versions[key])) for key in sorted(self._repeated))
        return pa.concat_tables([self._single, chosen], promote_options="none")

    def _arrow(self, rows: Iterable[tuple[Key, Row]]) -> pa.Table:
        values: dict[str, list[object]] = defaultdict(list)
        names = sorted(self._columns)
        for (time_ns, tags), fields in rows:
            row: dict[str, object] = {"time": time_ns, **dict(tags), **fields}
            for name in names:
                value = row.get(name)
                values[name].append(value.value if isinstance(value, Unsigned) else value)
        return pa.table([_array(values[name], self._columns[name]) for name in names], schema=self._schema(names))

    def _schema(self, names: Sequence[str]) -> pa.Schema:
        fields = (
            pa.field(name, _ARROW[kind], nullable=kind != TIME, metadata={"iox::column::type": f"iox::column_type::{kind}"})
            for name, kind in ((name, self._columns[name]) for name in names)
        )
        return pa.schema(fields)


def _array(values: list[object], kind: str) -> pa.Array:
    return pa.array(values, type=_ARROW[kind])
