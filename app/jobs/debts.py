"""Guests that ran when a capture of them began, and of which nobody has seen since that they go on.

A debt is written down before the capture process starts and struck out when the guest was looked after. One whose service
died, or whose libvirt did not answer, stays: it is paid as soon as that can be done (``standing.Watch``).
"""

from __future__ import annotations

from app.state import State

SCHEMA = """
CREATE TABLE IF NOT EXISTS debts (
    uuid TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;
"""


class Debts:
    """The VMs' uuids. Those that are ``due`` have no capture any more that would look after its guest itself."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._due: set[str] = set()

    async def open(self) -> None:
        """Those of an earlier service are due."""
        self._due = {uuid for (uuid,) in await self._state.read(lambda db: db.execute("SELECT uuid FROM debts").fetchall())}

    def due(self) -> tuple[str, ...]:
        """What has to be looked after now."""
        return tuple(sorted(self._due))

    def take_up(self, uuid: str) -> bool:
        """Whether it is still due; then it is the caller's, who settles it or lets it fall due again."""
        due = uuid in self._due
        self._due.discard(uuid)
        return due

    async def owe(self, uuid: str) -> None:
        """A capture of this guest, which runs, is about to begin. Raises ``StateError``."""
        await self._state.run(lambda db: db.execute("INSERT OR IGNORE INTO debts VALUES (?)", (uuid,)))

    def fall_due(self, uuid: str) -> None:
        """The capture is over, and it is not known that the guest goes on."""
        self._due.add(uuid)

    async def settle(self, uuid: str) -> None:
        """The guest was looked after. Raises ``StateError``."""
        self._due.discard(uuid)
        await self._state.run(lambda db: db.execute("DELETE FROM debts WHERE uuid = ?", (uuid,)))
