"""Which records are meant, in which order: filters, and the ways to find what they let through.

Without a piece to look for, a page is a stretch of one index, and the count comes from totals that are kept. With one, VMs
whose names hold it are found first: all their records match. Of the others there are two ways to find those whose hashes or
path hold it. If the matches are few, it is by trigrams (or, where the piece is too short for those, by looking through
everything once), and count and page are a matter of sorting them. If they are many, an index is walked in the order that is
asked for until the page is full, and the count is another look through everything. Nothing is ever found that does not really
hold the piece.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Literal

from app.records.pieces import TRIGRAM, needle_of, trigrams_match
from app.records.totals import count_without_piece, index_for, skip
from app.scope import WHOLE, Scope

Order = Literal["desc", "asc"]

FEW = 10_000
"""As many matches are sorted; more are walked through."""
_CANDIDATES_FOR_ONE = 3
"""So many times as many that may match are looked at one by one: rows here and there, which is dearer than all in a row."""
_SAMPLE = 64
_BEHIND = "FROM records WHERE number > (SELECT indexed_to FROM trigrams_reach) AND instr(haystack, ?)"
"""Those that hold a piece and are not in the trigram index yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """What a record has to be. ``q`` is a part of its name, vmid, uuid, hashes or path, ASCII in any case, otherwise literal;
    ``since`` and ``until`` (exclusive) are texts as in manifests. With a ``scope`` that is not the whole, see ``scoped``."""

    q: str | None = None
    since: str | None = None
    until: str | None = None
    dom: str | None = None
    vmid: str | None = None
    scope: Scope = WHOLE


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the order of records: just behind this one."""

    timestamp: str
    dump_id: str


Row = tuple[str, str, int]
"""A record that was found: timestamp, ``dump_id``, number."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """What is looked for, and the VMs that the other filters let through: those whose names hold it, and how many there are."""

    needle: bytes
    named: list[int]
    dumps: int
    vms: int


def _piece(connection: sqlite3.Connection, filters: Filters) -> _Piece | None:
    if not filters.q:
        return None
    needle = needle_of(filters.q)
    question = "SELECT vm, dumps, instr(haystack, ?) FROM vms WHERE (? IS NULL OR dom = ?) AND (? IS NULL OR vmid = ?)"
    values = (needle, filters.dom, filters.dom, filters.vmid, filters.vmid)
    vms = connection.execute(question, values).fetchall()
    named = [(vm, dumps) for vm, dumps, holds in vms if holds]
    return _Piece(needle, [vm for vm, _ in named], sum(dumps for _, dumps in named), len(vms))


def few(connection: sqlite3.Connection, filters: Filters) -> list[Row] | None:
    """All records that match, oldest first, if ``filters`` ask for a piece and they are few."""
    piece = _piece(connection, filters)
    if piece is None or piece.dumps > FEW:
        return None
    rows = _found(connection, filters, piece)
    return sorted(rows) if rows is not None and len(rows) <= FEW else None


def _found(connection: sqlite3.Connection, filters: Filters, piece: _Piece) -> set[Row] | None:
    """By name and by trigrams. None if too many would have to be looked at."""
    match = trigrams_match(piece.needle, _sample(connection))
    numbers = _with_trigrams(connection, piece.needle, match) if match else None
    if numbers is None and len(piece.needle) == TRIGRAM:
        return None
    if numbers is None:
        source, first = _source(filters), []
    else:
        source, first = "json_each(?) AS found CROSS JOIN records ON number = found.value", [json.dumps(numbers)]
    where, values = _where(filters, _Piece(piece.needle, [], 0, 0))
    question = f"SELECT timestamp, dump_id, number FROM {source}{where} LIMIT ?"
    rows = set(connection.execute(question, (*first, *values, FEW + 1)))
    where, values = _where(Filters(since=filters.since, until=filters.until), None)
    source = "json_each(?) AS named CROSS JOIN records INDEXED BY records_by_vm ON vm = named.value"
    return rows.union(
        connection.execute(f"SELECT timestamp, dump_id, number FROM {source}{where}", (json.dumps(piece.named), *values))
    )


def _sample(connection: sqlite3.Connection) -> list[bytes]:
    """Some from everywhere: the newest may lie in another folder than nearly all others."""
    newest = _one(connection, "SELECT coalesce(max(number), 0) FROM records")
    numbers = json.dumps([newest - newest * step // _SAMPLE for step in range(_SAMPLE)])
    question = "SELECT haystack FROM json_each(?) AS wanted CROSS JOIN records ON number = wanted.value"
    return [haystack for (haystack,) in connection.execute(question, (numbers,))]


def _with_trigrams(connection: sqlite3.Connection, needle: bytes, match: str) -> list[int] | None:
    """The numbers of all records that may hold ``needle``; None if that would be too many."""
    most = _CANDIDATES_FOR_ONE * FEW
    found = connection.execute("SELECT rowid FROM trigrams WHERE trigrams MATCH ? LIMIT ?", (match, most + 1)).fetchall()
    if len(found) > most:
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
    return connection.execute(*_walk(connection, filters, order, limit, offset, after)).fetchall()


def stretch(
    connection: sqlite3.Connection, filters: Filters, order: Order, limit: int, after: Position | None
) -> tuple[list[int], Position | None]:
    """The numbers of a page that is found by walking, and where it ends: in two steps of the database, however long it is."""
    question, values = _walk(connection, filters, order, limit, 0, after)
    (array,) = connection.execute(f"SELECT json_group_array(number) FROM ({question})", values).fetchone()
    numbers = json.loads(array)
    if not numbers:
        return [], after
    last = connection.execute("SELECT timestamp, dump_id FROM records WHERE number = ?", numbers[-1:]).fetchone()
    return numbers, Position(*last)


def _walk(
    connection: sqlite3.Connection, filters: Filters, order: Order, limit: int, offset: int, after: Position | None
) -> tuple[str, list[object]]:
    where, values = _where(filters, _piece(connection, filters), order, after)
    question = (
        f"SELECT timestamp, dump_id, number FROM {_index_for(filters)}{where} "
        f"ORDER BY timestamp {order}, dump_id {order} LIMIT ? OFFSET ?"
    )
    return question, [*values, limit, offset]


def count(connection: sqlite3.Connection, filters: Filters) -> int:
    """How many records match, if they are not ``few``. With a piece, all that the other filters let through are looked at."""
    piece = _piece(connection, filters)
    if piece is None or len(piece.named) == piece.vms:
        return count_without_piece(connection, filters.since, filters.until, filters.dom, filters.vmid)
    if len(piece.needle) == TRIGRAM and _alone(filters) and piece.dumps <= _CANDIDATES_FOR_ONE * FEW:
        return _count_of_trigram(connection, piece)
    where, values = _where(filters, piece)
    return _one(connection, f"SELECT count(*) FROM {_source(filters)}{where}", *values)


def _count_of_trigram(connection: sqlite3.Connection, piece: _Piece) -> int:
    """The trigram index knows without looking who holds a piece of three bytes; who only has it in the name comes on top."""
    named = "json_each(?) AS named CROSS JOIN records INDEXED BY records_by_vm ON vm = named.value"
    return (
        _one(connection, "SELECT count(*) FROM trigrams WHERE trigrams MATCH ?", trigrams_match(piece.needle, ()))
        + _one(connection, f"SELECT count(*) {_BEHIND}", piece.needle)
        + _one(connection, f"SELECT count(*) FROM {named} WHERE NOT instr(haystack, ?)", json.dumps(piece.named), piece.needle)
    )


def _one(connection: sqlite3.Connection, question: str, *values: object) -> int:
    return int(connection.execute(question, values).fetchone()[0])


def _alone(filters: Filters) -> bool:
    return filters == Filters(q=filters.q)


def _source(filters: Filters) -> str:
    """Where to look through all that the filters let through: without any, in the order in which the records lie."""
    return "records NOT INDEXED" if _alone(filters) else _index_for(filters)


def _index_for(filters: Filters) -> str:
    """SQLite would have to guess which index is best, and a wrong guess walks through all records."""
    return f"records INDEXED BY {index_for(filters.dom, filters.vmid)}"


def _where(
    filters: Filters, piece: _Piece | None, order: Order = "desc", after: Position | None = None
) -> tuple[str, list[object]]:
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
        ("instr(haystack, ?)", (piece.needle,) if piece and not piece.named else None),
        (
            "(vm IN (SELECT value FROM json_each(?)) OR instr(haystack, ?))",
            (json.dumps(piece.named), piece.needle) if piece and piece.named else None,
        ),
    ]
    used = [(text, values) for text, values in conditions if values is not None]
    where = " AND ".join(text for text, _ in used)
    return (f" WHERE {where}" if used else ""), [value for _, values in used for value in values]
