"""The outbox: which records the shared history has yet to get, in the state file beside the index.

A record is committed to the index and to the outbox in one transaction, so neither has what the other lacks; from here
it is delivered, and its row goes only when the history has confirmed it. Service and command line may deliver at the same
time: who takes rows has them alone until a lease runs out. A row that was taken once is ``unsure`` from then on: whether
its point arrived is not known (the process may have died after sending), and a point that is written twice may show twice.
So the history is asked for it before it is sent again.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from app.model import DumpRecord, Manifest
from app.records.index import add_to
from app.state import State

SCHEMA = """
-- A row says that the record of that number is to be delivered. ``refusal``: why it never will be (set aside); NULL: pending.
CREATE TABLE IF NOT EXISTS outbox (
    number INTEGER PRIMARY KEY REFERENCES records,
    unsure INTEGER NOT NULL,
    failures INTEGER NOT NULL DEFAULT 0,
    leased_by TEXT NOT NULL DEFAULT '',
    leased_until REAL NOT NULL DEFAULT 0,
    refusal TEXT
) STRICT;
CREATE INDEX IF NOT EXISTS outbox_turn ON outbox (failures, number) WHERE refusal IS NULL;
CREATE INDEX IF NOT EXISTS outbox_set_aside ON outbox (number) WHERE refusal IS NOT NULL;
"""

BATCH = 500
"""Records that are sent at once, unless one of them failed before: then each goes alone, so that it holds up no other."""

LEASE_SEC = 60.0
"""How long rows that somebody took are theirs: longer than any attempt to deliver a batch."""

_TAKE = """
SELECT number, unsure, failures, manifest FROM outbox JOIN manifests USING (number)
WHERE refusal IS NULL AND leased_until < :now AND (:all OR number IN (
    SELECT number FROM records JOIN json_each(:only) ON dump_id = value
)) ORDER BY failures, number LIMIT :limit
"""

_decoder = msgspec.json.Decoder(Manifest)


@dataclass(frozen=True, slots=True)
class Entry:
    """A record on its way. ``unsure``: the history may have it already."""

    number: int
    unsure: bool
    record: DumpRecord


@dataclass(frozen=True, slots=True)
class Counts:
    """How many records wait, and how many the history refused for good."""

    pending: int
    set_aside: int


def commit(connection: sqlite3.Connection, manifest: Manifest, *, queue: bool, unsure: bool = False) -> bool:
    """Keep the record in the index and, with ``queue``, in the outbox: one transaction. False if it is known already."""
    if not add_to(connection, manifest):
        return False
    if queue:
        connection.execute(
            "INSERT OR IGNORE INTO outbox (number, unsure) SELECT number, ? FROM records WHERE dump_id = ?",
            (unsure, manifest.dump_id),
        )
    return True


class Outbox:
    """The outbox, for one who delivers under the name ``holder``. Everything raises ``StateError``."""

    def __init__(self, state: State, holder: str) -> None:
        self._state = state
        self._holder = holder

    async def give_back(self) -> None:
        """Let others take what this name has taken: for a process that ends, or that follows one which is dead for certain."""
        await self._state.run(
            lambda connection: connection.execute("UPDATE outbox SET leased_until = 0 WHERE leased_by = ?", (self._holder,))
        )

    async def queue_again(self, dump_ids: Sequence[str]) -> int:
        """Have these records delivered (also such as were set aside): how many were not pending already."""

        def work(connection: sqlite3.Connection) -> int:
            before = connection.total_changes
            connection.execute(
                "INSERT INTO outbox (number, unsure) SELECT number, 1 FROM records JOIN json_each(?) ON dump_id = value WHERE true "
                "ON CONFLICT DO UPDATE SET refusal = NULL, failures = 0, unsure = 1 WHERE refusal IS NOT NULL",
                (_json(dump_ids),),
            )
            return connection.total_changes - before

        return await self._state.run(work)

    async def take(self, only: Sequence[str] | None = None, *, limit: int = BATCH) -> tuple[Entry, ...]:
        """The next records to deliver, leased; of ``only`` these dumps if given. What became of each is said by the next three."""

        def work(connection: sqlite3.Connection) -> tuple[Entry, ...]:
            now = time.time()
            wanted = {"now": now, "all": only is None, "only": _json(only or ()), "limit": limit}
            rows = connection.execute(_TAKE, wanted).fetchall()
            rows = rows[:1] if rows and rows[0][2] else [row for row in rows if not row[2]]
            connection.executemany(
                "UPDATE outbox SET unsure = 1, leased_by = ?, leased_until = ? WHERE number = ?",
                [(self._holder, now + LEASE_SEC, row[0]) for row in rows],
            )
            return tuple(Entry(number, bool(unsure), _decoder.decode(text)) for number, unsure, _, text in rows)

        if not await self._state.read(_anything):  # an empty outbox is looked at often, and looking writes nothing
            return ()
        return await self._state.run(work)

    async def delivered(self, entries: Iterable[Entry]) -> None:
        """The history has them."""
        await self._each("DELETE FROM outbox WHERE number = ?", [(entry.number,) for entry in entries])

    async def release(self, entries: Iterable[Entry], *, failed: bool = False, unsent: bool = False) -> None:
        """Not delivered; somebody else may try. ``failed``: it may be their own fault, so each goes alone, after the others.
        ``unsent``: they were not sent, so those that were sure before are so again."""
        await self._each(
            "UPDATE outbox SET leased_until = 0, failures = failures + ?, unsure = CASE WHEN ? THEN ? ELSE 1 END WHERE number = ?",
            [(failed, unsent, entry.unsure, entry.number) for entry in entries],
        )

    async def set_aside(self, entries: Iterable[Entry], why: str) -> None:
        """The history will never take them."""
        await self._each(
            "UPDATE outbox SET leased_until = 0, refusal = ? WHERE number = ?", [(why, entry.number) for entry in entries]
        )

    async def counts(self) -> Counts:
        """How many are in it."""
        return await self._state.read(_counts)

    async def pending(self, only: Sequence[str] | None = None) -> int:
        """How many records wait for their delivery, of ``only`` these dumps if given."""
        meant, values = _meant(only)
        sql = f"SELECT count(*) FROM outbox WHERE refusal IS NULL AND {meant}"
        return await self._state.read(lambda connection: int(connection.execute(sql, values).fetchone()[0]))

    async def refusals(self, only: Sequence[str] | None = None) -> list[str]:
        """Why those are set aside that are, of ``only`` these dumps if given."""
        meant, values = _meant(only)
        sql = f"SELECT refusal FROM outbox WHERE refusal IS NOT NULL AND {meant} ORDER BY number"
        return await self._state.read(lambda connection: [why for (why,) in connection.execute(sql, values)])

    async def has_arrived(self, dump_ids: Sequence[str]) -> None:
        """The history has these dumps' records, whoever delivered them: none of them is set aside any more."""
        if await self.refusals(dump_ids):
            meant, values = _meant(dump_ids)
            sql = f"DELETE FROM outbox WHERE refusal IS NOT NULL AND {meant}"
            await self._state.run(lambda connection: connection.execute(sql, values))

    async def _each(self, sql: str, rows: Sequence[tuple[object, ...]]) -> None:
        if rows:
            await self._state.run(lambda connection: connection.executemany(sql, rows))


def _anything(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM outbox WHERE refusal IS NULL LIMIT 1").fetchone() is not None


def _meant(only: Sequence[str] | None) -> tuple[str, tuple[str, ...]]:
    """The condition that a row is of ``only`` these dumps, if given, and what is bound to it."""
    if only is None:
        return "true", ()
    return "number IN (SELECT number FROM records JOIN json_each(?) ON dump_id = value)", (_json(only),)


def _json(words: Sequence[str]) -> str:
    return msgspec.json.encode(list(words)).decode()


def _counts(connection: sqlite3.Connection) -> Counts:
    pending = connection.execute("SELECT count(*) FROM outbox WHERE refusal IS NULL").fetchone()[0]
    set_aside = connection.execute("SELECT count(*) FROM outbox WHERE refusal IS NOT NULL").fetchone()[0]
    return Counts(pending, set_aside)
