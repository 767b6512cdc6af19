"""Which records are meant, of those that a scope covers: the same answers as of an index that holds no others.

The covered VMs' records stand together in ``records_by_vm``, each VM's by time, so the newest of all of them have to be found by
sorting. To sort no more than a few days' worth, the totals of months and days say first which stretch of time the page is in. A
piece is looked for by looking through all that is covered: the trigrams know of all records, and how long they take would tell
of others.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from app.records.covered import RECORDS, SPANS, VMS, Covered
from app.records.pieces import needle_of
from app.records.search import Filters, Order, Position, Row
from app.records.totals import DAY, END, MONTH, Part, parts_of


def walk(
    connection: sqlite3.Connection,
    covered: Covered,
    filters: Filters,
    order: Order,
    limit: int,
    offset: int,
    after: Position | None,
) -> list[Row]:
    """A page. ``covered`` are those that the filters' name and vmid let through."""
    where, values = _where(connection, covered, filters)
    if after is not None:
        where += f" AND (timestamp, dump_id) {'<' if order == 'desc' else '>'} (?, ?)"
        values += [after.timestamp, after.dump_id]
    if not filters.q:
        stretch = _stretch(connection, covered, filters, order, limit, offset, after)
        where += " AND timestamp >= ? AND timestamp < ?"
        values += [stretch.low, stretch.high]
        offset = stretch.offset
    question = (
        f"SELECT timestamp, dump_id, number FROM {RECORDS} WHERE {where} "
        f"ORDER BY timestamp {order}, dump_id {order} LIMIT ? OFFSET ?"
    )
    return connection.execute(question, (covered.numbers, *values, limit, offset)).fetchall()


def count(connection: sqlite3.Connection, covered: Covered, filters: Filters) -> int:
    """How many match."""
    if not filters.q:
        return sum(one.dumps for one in _slices(connection, covered, parts_of(filters.since, filters.until, MONTH, DAY)))
    where, values = _where(connection, covered, filters)
    return _one(connection, f"SELECT count(*) FROM {RECORDS} WHERE {where}", covered.numbers, *values)


def matches(connection: sqlite3.Connection, covered: Covered, filters: Filters, order: Order) -> array[int]:
    """The numbers of all that match."""
    where, values = _where(connection, covered, filters)
    question = f"SELECT number FROM {RECORDS} WHERE {where} ORDER BY timestamp {order}, dump_id {order}"
    return array("q", (number for (number,) in connection.execute(question, (covered.numbers, *values))))


def _where(connection: sqlite3.Connection, covered: Covered, filters: Filters) -> tuple[str, list[object]]:
    where, values = "timestamp >= ? AND timestamp < ?", [filters.since or "", filters.until or END]
    if not filters.q:
        return where, list(values)
    needle = needle_of(filters.q)
    named = f"SELECT vm FROM {VMS} WHERE instr(haystack, ?)"
    return f"{where} AND (vm IN ({named}) OR instr(haystack, ?))", [*values, covered.numbers, needle, needle]


# --- which stretch of time a page is in ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Slice:
    """A stretch of time, and how many covered records are in it."""

    low: str
    high: str
    dumps: int


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Timestamps from ``low`` on and before ``high``, and how many records of those to skip."""

    low: str
    high: str
    offset: int


def _stretch(
    connection: sqlite3.Connection,
    covered: Covered,
    filters: Filters,
    order: Order,
    limit: int,
    offset: int,
    after: Position | None,
) -> _Stretch:
    """Where the page is: first by months, then by days."""
    low, high = filters.since or "", filters.until or END
    if after is not None:  # those of its moment that come before it are in the stretch, too, and not on the page
        low, high = (low, min(high, after.timestamp + END)) if order == "desc" else (max(low, after.timestamp), high)
        question = f"SELECT count(*) FROM {RECORDS} WHERE timestamp = ?"
        limit += _one(connection, question, covered.numbers, after.timestamp)
    for width in (MONTH, DAY):
        slices = _slices(connection, covered, parts_of(low, high, width))
        ordered = sorted((one for one in slices if one.dumps), key=lambda one: one.low, reverse=order == "desc")
        taken, offset = _taken(ordered, limit, offset)
        if not taken:
            return _Stretch("", "", 0)
        low, high = min(one.low for one in taken), max(one.high for one in taken)
    return _Stretch(low, high, offset)


def _taken(slices: Iterable[_Slice], limit: int, offset: int) -> tuple[list[_Slice], int]:
    """Those that hold the page, and what is still to be skipped in them."""
    taken: list[_Slice] = []
    held = 0
    for one in slices:
        if not taken and offset >= one.dumps:
            offset -= one.dumps
        elif held < offset + limit:
            taken.append(one)
            held += one.dumps
    return taken, offset


def _slices(connection: sqlite3.Connection, covered: Covered, parts: Iterable[Part]) -> Iterator[_Slice]:
    for part in parts:
        between = (covered.numbers, part.low, part.high)
        if part.width is None:
            question = f"SELECT count(*) FROM {RECORDS} WHERE timestamp >= ? AND timestamp < ?"
            yield _Slice(part.low, part.high, _one(connection, question, *between))
        else:
            question = (
                f"SELECT span, sum(spans.dumps) FROM {SPANS} WHERE width = {part.width} AND span >= ? AND span < ? GROUP BY span"
            )
            for span, dumps in connection.execute(question, between):
                yield _Slice(span, span + END, dumps)


def _one(connection: sqlite3.Connection, question: str, *values: object) -> int:
    return int(connection.execute(question, values).fetchone()[0])
