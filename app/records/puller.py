"""Pulling: what ``pull`` plans, asked of the shared history, and handed on to whoever keeps and tells it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence

import structlog

from app.errors import HistoryError, HistoryTooWide
from app.model import Manifest
from app.records.passed_over import PassedOver
from app.records.pull import (
    AHEAD_NS,
    AT_ONCE,
    ILL_NS,
    RECENT_NS,
    FirstPull,
    Progress,
    Reader,
    Row,
    Sweep,
    records_of,
    rows_between,
    unknown_to,
)
from app.state import State

log = structlog.get_logger()

TakeIn = Callable[[Sequence[Manifest], bool], Awaitable[int]]
"""Keep these records; the second argument says that they are of the past, which nobody needs to be told one by one."""

_SWEEP_SHARE = 100
_SOONEST_SEC = 10.0
_LATEST_SEC = 86_400.0
_FEW, _MANY = 100, 300
"""Rows of the recent window below which it is widened, and above which it is narrowed: each brings its domain's XML along."""
_MOST_RECENT_NS = 48 * RECENT_NS


class Puller:
    """One history's records on their way into the index. Raises ``HistoryError`` and ``StateError`` from its steps."""

    def __init__(self, history: Reader, state: State, progress: Progress, take_in: TakeIn) -> None:
        self._history = history
        self._state = state
        self._progress = progress
        self._take_in = take_in
        self._recent_ns = RECENT_NS
        self._seen: frozenset[tuple[object, ...]] = frozenset()
        self._passed_over = PassedOver()
        self._sweep: Sweep | None = None
        self._top_ns = 0
        self._took_sec = 0.0
        self._due_at = 0.0
        self.first: FirstPull | None = None

    async def open(self) -> None:
        """Take up the first pull where an earlier process left it."""
        self.first = await self._progress.load()

    def begin_again(self) -> None:
        """Go through the past from now on once more: while the history could not be read, anything may have come."""
        self._sweep, self._due_at = None, 0.0

    async def recent(self) -> None:
        """What was sealed within the last hour and, where that is little, within up to two days: so what comes late comes soon."""
        now_ns = time.time_ns()
        seen: set[tuple[object, ...]] = set()
        async for rows in rows_between(self._history, now_ns - self._recent_ns, now_ns + AHEAD_NS):
            keys = [(row["time"], row.get("dom"), row.get("vmid")) for row in rows]
            seen.update(keys)
            await self._keep([row for row, key in zip(rows, keys, strict=True) if key not in self._seen], quiet=False)
        self._seen = frozenset(seen)
        if len(seen) < _FEW:
            self._recent_ns = min(self._recent_ns * 2, _MOST_RECENT_NS)
        elif len(seen) > _MANY:
            self._recent_ns = max(self._recent_ns // 2, RECENT_NS)

    async def step(self) -> bool:
        """One window of the past. False if nothing is due."""
        if self._sweep is None:
            if time.monotonic() < self._due_at:
                return False
            self._begin()
        began = time.monotonic()
        await self._go_on()
        self._took_sec += time.monotonic() - began
        if self._sweep is not None and self._sweep.done:
            self._sweep = None
            self._due_at = time.monotonic() + min(max(self._took_sec * _SWEEP_SHARE, _SOONEST_SEC), _LATEST_SEC)
        return True

    def _begin(self) -> None:
        now_ns, read = time.time_ns(), None
        if self.first is not None and not self.first.finished:
            read = (self.first.upper_ns, min(self.first.top_ns, now_ns))
        self._sweep = Sweep(now_ns + AHEAD_NS, AHEAD_NS + RECENT_NS, read_ns=read if read and read[0] < read[1] else None)
        self._top_ns = now_ns - RECENT_NS
        self._took_sec = 0.0

    async def _go_on(self) -> None:
        sweep = self._sweep
        if sweep is None:
            return
        since_ns, until_ns = sweep.window()
        try:
            rows = await self._history.window(since_ns, until_ns, limit=sweep.limit)
        except HistoryTooWide:
            self._sweep = sweep.narrower()
            return
        except HistoryError as error:
            await self.recent()  # raises, if it is not that window's fault
            log.warning("history_window_failed", code=error.code, message=str(error))
            self._sweep = sweep.narrower(ILL_NS)
            return
        first = self.first is None or not self.first.finished
        found = await self._keep(list(reversed(rows)), quiet=first)  # newest first: what is on the page comes at once
        self._sweep = sweep.after(len(rows))
        await self._save(self._sweep, found)

    async def _save(self, sweep: Sweep, found: int) -> None:
        """Keep how far the first pull is; while the time since an earlier start is read again, nothing new can be said."""
        if self.first is not None and self.first.finished:
            return
        found += self.first.found if self.first is not None else 0
        if sweep.new_ground:
            self.first = FirstPull(max(0, sweep.upper_ns), self._top_ns, found, sweep.done)
            await self._progress.save(self.first)

    async def _keep(self, rows: Sequence[Row], *, quiet: bool) -> int:
        """Take in what the index does not know; how many that were."""
        kept = 0
        try:
            for place in range(0, len(rows), AT_ONCE):
                some = records_of(rows[place : place + AT_ONCE], self._passed_over.note)
                new = await self._state.read(lambda connection, some=some: unknown_to(connection, some))  # type: ignore[misc]
                if new:
                    kept += await self._take_in(new, quiet)
        finally:
            self._passed_over.tell()
        return kept
