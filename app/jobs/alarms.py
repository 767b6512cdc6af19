"""Guests that stand still after a dump and could not be resumed: an alarm that stays until it is over.

QEMU gives up its locks on disk images at the end of a live dump and takes them back when the guest goes on; while another
program holds an image, it cannot. Alarms are in the state file, for a restart must not silence them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable

from app.jobs.debts import SCHEMA as DEBTS_SCHEMA
from app.jobs.debts import Debts
from app.jobs.journal import Journal, activity_now
from app.model import Domain, DomainState
from app.state import State

SCHEMA = (
    """
CREATE TABLE IF NOT EXISTS alarms (
    uuid TEXT PRIMARY KEY, message TEXT NOT NULL
) STRICT, WITHOUT ROWID;
"""
    + DEBTS_SCHEMA
)


class Alarms:
    """Every alarm, by the VM's uuid, and the debts that may become one. ``changed`` is called after each change."""

    def __init__(self, state: State, journal: Journal, changed: Callable[[], None]) -> None:
        self._state = state
        self._journal = journal
        self._changed = changed
        self._messages: dict[str, str] = {}
        self.debts = Debts(state)

    async def open(self) -> None:
        """Take in what an earlier service raised."""
        self._messages = dict(await self._state.read(lambda db: db.execute("SELECT uuid, message FROM alarms").fetchall()))
        await self.debts.open()

    def of(self, uuid: str) -> str | None:
        """The VM's alarm."""
        return self._messages.get(uuid)

    async def raise_for(self, uuid: str, message: str) -> None:
        """The VM stands still, and nobody could help it."""
        self._messages[uuid] = message
        self._changed()
        await self._state.run(lambda db: db.execute("INSERT OR REPLACE INTO alarms VALUES (?, ?)", (uuid, message)))

    async def look(self, domains: Iterable[Domain]) -> None:
        """End the alarms of VMs that no longer stand still, or are gone."""
        standing = {domain.uuid for domain in domains if domain.state is DomainState.PAUSED}
        over = {uuid: "{} does not stand still." for uuid in self._messages if uuid not in standing}
        await self._end(over, domains)

    async def end(self, uuid: str, domains: Iterable[Domain]) -> None:
        """End a VM's alarm, if there is one: it was looked after, and may stand still by somebody's will."""
        over = {uuid: "{} was looked at again: no dump keeps it from running."} if uuid in self._messages else {}
        await self._end(over, domains)

    async def _end(self, over: dict[str, str], domains: Iterable[Domain]) -> None:
        """End alarms, each with a sentence about its VM."""
        if not over:
            return
        for uuid in over:
            del self._messages[uuid]
        self._changed()

        def work(db: sqlite3.Connection) -> None:
            db.executemany("DELETE FROM alarms WHERE uuid = ?", [(uuid,) for uuid in over])

        await self._state.run(work)
        for uuid, sentence in over.items():
            known = [domain for domain in domains if domain.uuid == uuid]
            message = sentence.format(known[0].name if known else uuid)
            line = activity_now("success", "guest-runs-again", message, about=[domain.subject for domain in known])
            await self._journal.tell(line)
