"""Guests that stand still after a dump and could not be resumed: an alarm that stays until it is over.

QEMU gives up its locks on disk images at the end of a live dump and takes them back when the guest goes on; while another
program holds an image, it cannot. Alarms are in the state file, for a restart must not silence them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable

from app.jobs.journal import Journal, activity_now
from app.model import Domain, DomainState
from app.state import State

SCHEMA = """
CREATE TABLE IF NOT EXISTS alarms (
    uuid TEXT PRIMARY KEY, message TEXT NOT NULL
) STRICT, WITHOUT ROWID;
"""


class Alarms:
    """Every alarm, by the VM's uuid. ``changed`` is called after each change."""

    def __init__(self, state: State, journal: Journal, changed: Callable[[], None]) -> None:
        self._state = state
        self._journal = journal
        self._changed = changed
        self._messages: dict[str, str] = {}

    async def open(self) -> None:
        """Take in what an earlier service raised."""
        self._messages = dict(await self._state.read(lambda db: db.execute("SELECT uuid, message FROM alarms").fetchall()))

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
        names = {domain.uuid: domain.name for domain in domains}
        over = [uuid for uuid in self._messages if uuid not in standing]
        if not over:
            return
        for uuid in over:
            del self._messages[uuid]
        self._changed()

        def work(db: sqlite3.Connection) -> None:
            db.executemany("DELETE FROM alarms WHERE uuid = ?", [(uuid,) for uuid in over])

        await self._state.run(work)
        for uuid in over:
            message = f"{names.get(uuid, uuid)} no longer stands still."
            await self._journal.tell(activity_now("success", "guest-runs-again", message))
