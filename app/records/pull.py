"""What to ask the shared history for next: planning, which knows no clock and no client, and how far the first pull came.

Two kinds of questions. The **recent window**, the last hour or, where that brings little, up to the last two days, is asked for
every ten seconds: what others sealed just now.
A **sweep** goes backwards from now to the beginning of time in windows that fit what is there: the first one is the first
pull of a long history and can be resumed after a restart; later ones find points that came late (a long capture, a writer
that was cut off), for a point's time is when its capture began, not when it arrived.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

import structlog

from app.errors import HistoryTooWide
from app.model import DumpRecord, Manifest, from_rfc3339, rfc3339
from app.records.columns import NoRecord
from app.records.point import record_of
from app.state import State

log = structlog.get_logger()

SCHEMA = """
-- How far the first pull of a history came: it has read all from ``upper_ns`` up to ``top_ns``.
CREATE TABLE IF NOT EXISTS first_pulls (
    history TEXT PRIMARY KEY,
    upper_ns INTEGER NOT NULL,
    top_ns INTEGER NOT NULL,
    found INTEGER NOT NULL,
    finished INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
"""

SEC_NS = 1_000_000_000
PAGE = 2000
"""Rows that one question may bring; as many more as this, where a single instant has them."""
MOST = 100 * PAGE

RECENT_NS = 3600 * SEC_NS
AHEAD_NS = 24 * 3600 * SEC_NS
"""How far ahead of ours another writer's clock may be."""

_FIRST_NS = 3600 * SEC_NS
_SHORTEST_NS = 1000
_WIDEST_NS = 1 << 62
ILL_NS = SEC_NS
"""So much is passed over at once where the history answers, but for what is asked of that stretch of time."""

AT_ONCE = 100
"""Records that are read or committed at once: a few milliseconds, so that neither event loop nor a dump's own commit waits long."""


Row = dict[str, object]
Rows = Sequence[Row]


class Reader(Protocol):
    """The part of the history that is read."""

    async def window(self, since_ns: int, until_ns: int, *, limit: int) -> list[Row]:
        """Rows from ``since_ns`` (inclusive) to ``until_ns`` (exclusive), ascending by time, at most ``limit``."""
        ...


@dataclass(frozen=True, slots=True)
class Sweep:
    """How far a sweep is: everything from ``upper_ns`` up has been asked for.

    ``read_ns`` is a stretch, from and to, that an earlier process has read already. ``ceiling_ns``: windows do not grow
    beyond it, since one of that size was too wide; where nothing is, it rises again. ``limit`` is how many rows to ask for.
    """

    upper_ns: int
    width_ns: int = _FIRST_NS
    ceiling_ns: int = _WIDEST_NS
    read_ns: tuple[int, int] | None = None
    limit: int = PAGE

    @property
    def done(self) -> bool:
        """Whether the beginning of time (1970) is reached."""
        return self.upper_ns <= 0

    @property
    def new_ground(self) -> bool:
        """Whether everything that was read before is behind it."""
        return self.read_ns is None

    def window(self) -> tuple[int, int]:
        """From and to (exclusive) of the next question."""
        lowest = self.read_ns[1] if self.read_ns is not None else 0
        return max(lowest, self.upper_ns - self.width_ns), self.upper_ns

    def after(self, rows: int) -> Sweep:
        """The next step, when the window gave so many rows. A full one may have had more: it is asked again by halves, and where it
        cannot be halved for more."""
        since, until = self.window()
        if rows >= self.limit and until - since > _SHORTEST_NS:
            return replace(self, width_ns=(until - since) // 2)
        if rows >= self.limit and self.limit < MOST:
            return replace(self, limit=self.limit * 10)
        growth = 8 if rows * 16 < self.limit else 2 if rows * 4 < self.limit else 1
        ceiling = min(_WIDEST_NS, self.ceiling_ns * 2) if rows == 0 else self.ceiling_ns
        return self._at(since, min(self.width_ns * growth, ceiling), ceiling)

    def narrower(self, shortest_ns: int = _SHORTEST_NS) -> Sweep:
        """The same, when the window was too much for one query. One that cannot be narrower is passed over."""
        since, until = self.window()
        half = (until - since) // 2
        if half < shortest_ns:
            log.warning("history_window_passed_over", since=_said(since), until=_said(until))
            return self._at(since, self.width_ns, self.ceiling_ns)
        return replace(self, width_ns=half, ceiling_ns=half)

    def _at(self, upper_ns: int, width_ns: int, ceiling_ns: int) -> Sweep:
        if self.read_ns is not None and upper_ns <= self.read_ns[1]:
            return Sweep(self.read_ns[0], width_ns, ceiling_ns)
        return Sweep(upper_ns, width_ns, ceiling_ns, self.read_ns)


def _said(at_ns: int) -> str:
    return rfc3339(datetime.fromtimestamp(at_ns // 1000 / 1e6, UTC))


async def rows_between(reader: Reader, since_ns: int, until_ns: int) -> AsyncIterator[Rows]:
    """Everything of a stretch of time, forward, in as many questions as it takes; rows at their borders may come twice.

    Raises ``HistoryError``.
    """
    width_ns, limit = until_ns - since_ns, PAGE
    while since_ns < until_ns:
        end_ns = min(until_ns, since_ns + width_ns)
        try:
            rows = await reader.window(since_ns, end_ns, limit=limit)
        except HistoryTooWide:
            width_ns = (end_ns - since_ns) // 2
            if width_ns < _SHORTEST_NS:
                raise
            continue
        yield rows
        last_ns = int(str(rows[-1]["time"])) if rows else since_ns
        full = len(rows) >= limit
        if full and last_ns - since_ns < _SHORTEST_NS and limit < MOST:
            limit *= 10
            continue
        limit = PAGE
        since_ns = end_ns if not full else max(last_ns, since_ns + _SHORTEST_NS)
        width_ns = width_ns if full else width_ns * 2


def records_of(rows: Iterable[Row], passed_over: Callable[[NoRecord], None] | None = None) -> list[Manifest]:
    """Their records, without those that are none: one bad point of another program must not keep the others away.
    ``passed_over`` hears of each."""
    records = []
    for row in rows:
        try:
            records.append(record_of(row))
        except NoRecord as none:
            if passed_over is not None:
                passed_over(none)
    return records


def time_ns_of(record: DumpRecord) -> int:
    """A record's time as the history has it."""
    moment = from_rfc3339(record.timestamp)
    return int(datetime.timestamp(moment.replace(microsecond=0))) * SEC_NS + moment.microsecond * 1000


def clusters(records: Iterable[DumpRecord], apart_ns: int = RECENT_NS) -> list[tuple[int, int]]:
    """Stretches of time that together have every one of ``records``, and no gap longer than ``apart_ns``."""
    found: list[tuple[int, int]] = []
    for at_ns in sorted(map(time_ns_of, records)):
        if found and at_ns - found[-1][1] <= apart_ns:
            found[-1] = (found[-1][0], at_ns + _SHORTEST_NS)
        else:
            found.append((at_ns, at_ns + _SHORTEST_NS))
    return found


@dataclass(frozen=True, slots=True)
class FirstPull:
    """How far the first pull of a history is. ``found``: records that it brought."""

    upper_ns: int
    top_ns: int
    found: int
    finished: bool


class Progress:
    """The first pull of one history, kept in the state file."""

    def __init__(self, state: State, history: str) -> None:
        self._state = state
        self._history = history

    async def load(self) -> FirstPull | None:
        """As far as it came; None if it was never begun."""
        sql = "SELECT upper_ns, top_ns, found, finished FROM first_pulls WHERE history = ?"
        row = await self._state.read(lambda connection: connection.execute(sql, (self._history,)).fetchone())
        return FirstPull(row[0], row[1], row[2], bool(row[3])) if row else None

    async def save(self, so_far: FirstPull) -> None:
        """Keep it."""
        row = (self._history, so_far.upper_ns, so_far.top_ns, so_far.found, so_far.finished)
        sql = "INSERT OR REPLACE INTO first_pulls VALUES (?, ?, ?, ?, ?)"
        await self._state.run(lambda connection: connection.execute(sql, row))


def unknown_to(connection: sqlite3.Connection, records: Iterable[Manifest]) -> tuple[Manifest, ...]:
    """Those that the index has not: neither the dump, nor one of the same VM that began in the same microsecond.

    A point that another producer wrote names no dump, and the history may hand out a point that was written twice as two.
    """
    new: dict[tuple[str, str, str], Manifest] = {}
    for record in records:
        moment = (record.timestamp, record.dom, record.vmid)
        if moment not in new and connection.execute(_KNOWN, (record.dump_id, *moment)).fetchone() is None:
            new[moment] = record
    return tuple(new.values())


_KNOWN = """
SELECT 1 FROM records WHERE dump_id = ?
UNION ALL SELECT 1 FROM records WHERE timestamp = ? AND dom = ? AND vmid = ? LIMIT 1
"""


def newest_of(connection: sqlite3.Connection, count: int) -> list[tuple[str, str]]:
    """Timestamp and ``dump_id`` of the newest records in the index."""
    rows = connection.execute("SELECT timestamp, dump_id FROM records ORDER BY timestamp DESC, dump_id DESC LIMIT ?", (count,))
    return [(timestamp, dump_id) for timestamp, dump_id in rows]
