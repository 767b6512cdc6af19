"""Records, told to everybody: one way for those that we make and for those that somebody else wrote.

A few new records are told one by one. Many at once (the past of a shared history, a rebuilt index) would drive out
everything else that the feed holds: of those only the ones are told that belong among the newest, which is what a page
shows, and the totals at most once a second.
"""

from __future__ import annotations

import asyncio
import bisect
import sqlite3
import time
from collections.abc import Callable, Sequence

import structlog

from app.access.audit import append, sealed_note
from app.changes import Changes
from app.errors import StateError
from app.jobs.inventory import Inventory
from app.jobs.journal import Journal, activity_now
from app.model import DumpRecord, Manifest
from app.records.index import RecordIndex
from app.records.outbox import commit
from app.records.pull import newest_of
from app.state import State

log = structlog.get_logger()

NEWEST = 50
"""Records that a page shows, and how many new ones are told one by one."""

_LOOK_EVERY_SEC = 0.5
_TOTALS_EVERY_SEC = 1.0
_BY_HAND_SEC = 60.0
"""A record from elsewhere of a dump that was sealed so recently is the command line's; an older one was only found again."""


class Recorder:
    """Adds records to the index and publishes ``record``, ``stats`` and ``vms``. With ``queue`` our own go to the outbox, too.

    ``queued`` is called when something may have come into the outbox.
    """

    def __init__(
        self, state: State, index: RecordIndex, inventory: Inventory, journal: Journal, changes: Changes, *, queue: bool = False
    ) -> None:
        self._state = state
        self._index = index
        self._inventory = inventory
        self._journal = journal
        self._changes = changes
        self._queue = queue
        self._told = 0
        self._not_by_hand: set[str] = set()
        self._behind = False
        self._telling = asyncio.Lock()
        self._newest: list[tuple[str, str]] = []  # oldest first
        self._totals_at = 0.0
        self._totals_due = False
        self.queued: Callable[[], None] = lambda: None

    async def open(self) -> None:
        """Take in what is there already; nobody is told of it."""
        self._told = await self._index.newest()
        self._newest = sorted(await self._state.read(lambda connection: newest_of(connection, NEWEST)))

    async def record(self, manifest: Manifest, *, unsure: bool = False) -> None:
        """Commit the record, then tell. Raises ``StateError`` if it cannot be committed; the dump exists all the same.

        ``unsure``: the shared history may have it already, so it is asked first. What is committed and cannot be told now is
        told by ``watch``.
        """
        self._not_by_hand.add(manifest.dump_id)
        try:
            new = await self._state.run(lambda connection: self._commit(connection, manifest, unsure=unsure))
        except StateError:
            self._not_by_hand.discard(manifest.dump_id)
            raise
        if not new:
            self._not_by_hand.discard(manifest.dump_id)
        self.queued()
        try:
            await self.tell_new()
        except StateError as error:
            log.error("record_not_told_yet", dump_id=manifest.dump_id, code=error.code, message=str(error))

    def _commit(self, connection: sqlite3.Connection, manifest: Manifest, *, unsure: bool) -> bool:
        """The record and, if it is new, its entry in the audit trail."""
        new = commit(connection, manifest, queue=self._queue, unsure=unsure)
        if new:
            append(connection, sealed_note(manifest))
        return new

    async def take_in(self, records: Sequence[Manifest], quiet: bool) -> int:
        """Keep records that the shared history brought; ``quiet`` ones are of the past. How many were new."""
        dump_ids = frozenset(record.dump_id for record in records)
        async with self._telling:
            await self._tell()
            self._not_by_hand |= dump_ids
            try:
                added = await self._index.add_many(records)
            except StateError:
                self._not_by_hand -= dump_ids
                raise
            if added:
                self._totals_due = True
                await self._tell(dump_ids if quiet else frozenset())
                await self._publish_totals_if_due()
            self._not_by_hand -= dump_ids
            return added

    async def tell_new(self) -> None:
        """Publish what is new in the index, whoever wrote it."""
        async with self._telling:
            if await self._tell():
                self._totals_due = True
                await self._publish_totals()

    async def watch(self) -> None:
        """Notice what other processes commit to the state file (the command line, by hand), and what could not be told when it
        was committed: until cancelled."""
        seen: int | None = None
        while True:
            await asyncio.sleep(_LOOK_EVERY_SEC)
            try:
                if (version := await self._state.data_version()) != seen or self._behind:
                    self.queued()
                    await self.tell_new()
                    seen = version
                await self._publish_totals_if_due()
            except StateError as error:
                log.error("state_unreadable", code=error.code, message=str(error))
            except Exception:  # a watcher that ended would miss every later record, without a word
                log.exception("recorder_broke")  # the next look tries again

    async def _tell(self, quiet: frozenset[str] = frozenset()) -> bool:
        """Publish the records that came since the last time; whether there were any."""
        any_new, self._behind = False, True
        while True:
            self._told, records = await self._index.since(self._told)
            if not records:
                self._behind = False
                return any_new
            any_new = self._totals_due = True
            shown = self._shown(records)
            for record in records:
                self._inventory.dumped(record)
                if record.dump_id in shown or (len(records) <= NEWEST and record.dump_id not in quiet):
                    self._changes.publish("record", record)
                if record.dump_id not in self._not_by_hand and time.time() - record.mtime < _BY_HAND_SEC:
                    await self._tell_by_hand(record)
                self._not_by_hand.discard(record.dump_id)

    async def _tell_by_hand(self, record: DumpRecord) -> None:
        """The record is told whether or not this line can be kept."""
        message = f"{record.dom} was dumped by hand by {record.operator}."
        try:
            await self._journal.tell(
                activity_now("success", "dumped-by-hand", message, dump_id=record.dump_id, about=[record.subject])
            )
        except StateError as error:
            log.error("activity_not_kept", code=error.code, message=str(error))

    def _shown(self, records: Sequence[DumpRecord]) -> frozenset[str]:
        """Those of ``records`` that are now among the newest."""
        for record in records:
            bisect.insort(self._newest, (record.timestamp, record.dump_id))
        del self._newest[:-NEWEST]
        return frozenset(dump_id for _, dump_id in self._newest)

    async def _publish_totals_if_due(self) -> None:
        if self._totals_due and time.monotonic() - self._totals_at >= _TOTALS_EVERY_SEC:
            await self._publish_totals()

    async def _publish_totals(self) -> None:
        totals = await self._index.stats()
        self._totals_due, self._totals_at = False, time.monotonic()
        self._changes.publish("stats", totals)
        self._inventory.publish()
