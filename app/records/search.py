"""Which records are meant, in which order: filters, and the ways to find what they let through.

Without a piece to look for, a page is a stretch of one index, and the count comes from totals that are kept. With one, there
are two ways. If the matches are few, they are found by trigrams (or, where the piece is too short for those, by looking
through everything once), and count and page are a matter of sorting them. If they are many, an index is walked in the order
that is asked for until the page is full, and the count is another look through everything. Nothing is ever found that does
not really hold the piece.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Literal

from app.records.pieces import TRIGRAM, needle_of, trigrams_match
from app.records.totals import count_without_piece, skip

Order = Literal["desc", "asc"]

FEW = 10_000
"""As many matches are sorted; more are walked through."""
_SAMPLE = 64
_BEHIND = "FROM records WHERE number > (SELECT indexed_to FROM trigrams_reach) AND instr(haystack, ?)"
"""Those that hold a piece and are not in the trigram index yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """What a record has to be. ``q`` is a part of its name, vmid, uuid, hashes or path, ASCII in any case, otherwise literal;
    ``since`` and ``until`` (exclusive) are texts as in manifests."""

    q: str | None = None
    since: str | None = None
    until: str | None = None
    dom: str | None = None
    vmid: str | None = None


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the order of records: just behind this one."""

    timestamp: str
    dump_id: str


Row = tuple[str, str, int]
"""A record that was found: timestamp, ``dump_id``, number."""


def few(connection: sqlite3.Connection, filters: Filters) -> list[Row] | None:
    """All records that match, oldest first, if ``filters`` ask for a piece and they are few."""
    if not filters.q:
        return None
    needle = needle_of(filters.q)
    match = trigrams_match(needle, _sample(connection))
    numbers = _with_trigrams(connection, needle, match) if match else None
    where, values = _where(filters)
    if numbers is not None:
        source, values = "json_each(?) AS found CROSS JOIN records ON number = found.value", [json.dumps(numbers), *values]
    elif len(needle) == TRIGRAM:
        return None
    else:
        source = _source(filters)
    question = f"SELECT timestamp, dump_id, number FROM {source}{where} LIMIT ?"
    rows = connection.execute(question, (*values, FEW + 1)).fetchall()
    return sorted(rows) if len(rows) <= FEW else None


def _sample(connection: sqlite3.Connection) -> list[bytes]:
    rows = connection.execute("SELECT haystack FROM records ORDER BY number DESC LIMIT ?", (_SAMPLE,))
    return [haystack for (haystack,) in rows]


def _with_trigrams(connection: sqlite3.Connection, needle: bytes, match: str) -> list[int] | None:
    """The numbers of all records that may hold ``needle``; None if that would be too many."""
    found = connection.execute("SELECT rowid FROM trigrams WHERE trigrams MATCH ? LIMIT ?", (match, FEW + 1)).fetchall()
    if len(found) > FEW:
        return None
    return [number for (number,) in (*found, *connection.execute(f"SELECT number {_BEHIND}", (needle,)))]


def part(rows: list[Row], order: Order, limit: int, offset: int, after: Position | None) -> list[Row]:
    """A page of ``few``."""
    if after is not None:
        place = (after.timestamp, after.dump_id)
        rows = [row for row in rows if (row[:2] > place if order == "asc" else row[:2] < place)]
    return (rows if order == "asc" else rows[::-1])[offset : offset + limit]


def walk(
    connection: sqlite3.Connection, filters: Filters, order: Order, limit: int, offset: int, after: Position | None
) -> list[Row]:
    """A page, found by walking through an index in its order."""
    if offset and not filters.q and filters.dom is None and filters.vmid is None and after is None:
        since, until, offset = skip(connection, filters.since, filters.until, newest_first=order == "desc", offset=offset)
        filters = Filters(since=since, until=until)
    where, values = _where(filters, order, after)
    question = (
        f"SELECT timestamp, dump_id, number FROM {_index_for(filters)}{where} "
        f"ORDER BY timestamp {order}, dump_id {order} LIMIT ? OFFSET ?"
    )
    return connection.execute(question, (*values, limit, offset)).fetchall()


def count(connection: sqlite3.Connection, filters: Filters) -> int:
    """How many records match, if they are not ``few``. With a piece, all that the other filters let through are looked at."""
    if not filters.q:
        return count_without_piece(connection, filters.since, filters.until, filters.dom, filters.vmid)
    needle = needle_of(filters.q)
    if len(needle) == TRIGRAM and _alone(filters):
        indexed = connection.execute(
            "SELECT count(*) FROM trigrams WHERE trigrams MATCH ?", (trigrams_match(needle, ()),)
        ).fetchone()[0]
        return int(indexed + connection.execute(f"SELECT count(*) {_BEHIND}", (needle,)).fetchone()[0])
    where, values = _where(filters)
    return int(connection.execute(f"SELECT count(*) FROM {_source(filters)}{where}", values).fetchone()[0])


def _alone(filters: Filters) -> bool:
    return filters == Filters(q=filters.q)


def _source(filters: Filters) -> str:
    """Where to look through all that the filters let through: without any, in the order in which the records lie."""
    return "records NOT INDEXED" if _alone(filters) else _index_for(filters)


def _index_for(filters: Filters) -> str:
    """SQLite would have to guess which index is best, and does not know that the one for ``dom`` knows the VM, too."""
    if filters.dom is not None:
        return "records INDEXED BY records_by_dom"
    return "records INDEXED BY " + ("records_by_time" if filters.vmid is None else "records_by_vmid")


def _where(filters: Filters, order: Order = "desc", after: Position | None = None) -> tuple[str, list[object]]:
    since, until = filters.since, filters.until
    if after is not None:  # of two bounds on the same side the nearer one, for an index is entered by one
        if order == "desc":
            until, after = (None, after) if until is None or until > after.timestamp else (until, None)
        else:
            since, after = (None, after) if since is None or since <= after.timestamp else (since, None)
    conditions: list[tuple[str, tuple[object, ...] | None]] = [
        ("dom = ?", None if filters.dom is None else (filters.dom,)),
        ("vmid = ?", None if filters.vmid is None else (filters.vmid,)),
        ("timestamp >= ?", None if since is None else (since,)),
        ("timestamp < ?", None if until is None else (until,)),
        (
            f"(timestamp, dump_id) {'<' if order == 'desc' else '>'} (?, ?)",
            None if after is None else (after.timestamp, after.dump_id),
        ),
        ("instr(haystack, ?)", (needle_of(filters.q),) if filters.q else None),
    ]
    used = [(text, values) for text, values in conditions if values is not None]
    where = " AND ".join(text for text, _ in used)
    return (f" WHERE {where}" if used else ""), [value for _, values in used for value in values]
