"""The audit trail as the service uses it: entries written and read beside the event loop, its head told in the program's log."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass

import structlog

from app.access.audit import AS_BYTES, Note, append, entry_of, head_of
from app.access.chain import EMPTY, Entry, Head
from app.access.refusals import Refusals
from app.errors import StateError
from app.log import HEAD_EVENT
from app.state import State

log = structlog.get_logger()

_LOOK_EVERY_SEC = 1.0
_CHUNK = 500
_COUNTED = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which entries: of this one, of this deed, from ``since`` on and before ``until`` (RFC 3339)."""

    who: str | None = None
    deed: str | None = None
    since: str | None = None
    until: str | None = None

    def condition(self) -> tuple[str, list[str]]:
        """As SQL, and its values."""
        each = (("who = ?", self.who), ("deed = ?", self.deed), ("at >= ?", self.since), ("at < ?", self.until))
        given = [(text, value) for text, value in each if value is not None]
        return " AND ".join(["number > ? AND number < ?", *(text for text, _ in given)]), [value for _, value in given]


_ALL = Wanted()
_MOST = 2**62


class AuditTrail:
    """The trail in ``state``. What it cannot write is logged whole; reading raises ``StateError``."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._refusals = Refusals()
        self._told = EMPTY

    async def write(self, noted: Note) -> Entry:
        """Write an entry that no other transaction carries. Raises ``StateError``."""
        return await self._state.run(lambda connection: append(connection, noted))

    async def write_or_log(self, noted: Note) -> None:
        """The same for what has happened already, whatever becomes of its entry."""
        try:
            await self.write(noted)
        except StateError as error:
            said = {"deed": noted.deed, "by": noted.who, "on": noted.subject, "result": noted.result}
            log.error("audit_entry_not_kept", code=error.code, message=str(error), **said)

    async def refused(self, noted: Note, key: tuple[str, ...], *, known: bool) -> None:
        """Write what somebody tried in vain; the same thing (``key``) again is counted, and written when a while has passed."""
        for each in self._refusals.hear(noted, key, known=known):
            await self.write_or_log(each)

    async def head(self) -> Head:
        """The head of the chain."""
        return await self._state.read(head_of)

    async def newest(self, wanted: Wanted, *, limit: int, before: int | None = None) -> tuple[Entry, ...]:
        """Entries, newest first; ``before`` that number."""
        return await self._state.read(
            lambda connection: _select(connection, wanted, limit, above=-1, below=before or _MOST, order="DESC"), slow=True
        )

    async def chunks(self, wanted: Wanted = _ALL) -> AsyncIterator[tuple[Entry, ...]]:
        """All of them, oldest first, some at a time."""
        last = -_MOST
        while entries := await self._state.read(
            lambda connection, above=last: _select(connection, wanted, _CHUNK, above=above, below=_MOST, order="ASC"),  # type: ignore[misc]
            slow=True,
        ):
            yield entries
            last = entries[-1].number

    # --- what is told elsewhere

    async def open(self) -> None:
        """Tell the head that is found. What comes after it is told entry by entry."""
        self._told = await self.head()
        log.info(HEAD_EVENT, head=str(self._told), deed="found")

    async def watch(self) -> None:
        """Tell of each new entry, by whichever process, and write what was counted: until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_SEC)
            try:
                await self._write_counted(self._refusals.due())
                await self._tell()
            except Exception:  # of a trail that is told nowhere else nobody would see that its tail was cut off
                log.exception("audit_watch_broke")  # the next look tries again

    async def close(self) -> None:
        """Write and tell what is left."""
        await self._write_counted(self._refusals.rest())
        await self._tell()

    async def _write_counted(self, counted: list[Note]) -> None:
        for each in counted:
            await self.write_or_log(each)

    async def _tell(self) -> None:
        """Only what is committed: a head that was rolled back would accuse the trail for ever. Where the entry that was told last
        is there no more, or is another one, somebody cut the tail off: that is said, and told from what is there."""
        try:
            there, new = await self._state.read(self._since_told)
        except StateError as error:
            log.error("audit_not_told", code=error.code, message=str(error))
            return
        if not there:
            self._told, told = await self.head(), self._told
            log.error("audit_trail_cut", told=str(told), head=str(self._told))
            return
        for entry in new:
            log.info(
                HEAD_EVENT,
                head=str(entry.head),
                deed=entry.deed,
                by=entry.who,
                origin=entry.origin,
                on=entry.subject,
                result=entry.result,
            )
            self._told = entry.head

    def _since_told(self, connection: sqlite3.Connection) -> tuple[bool, tuple[Entry, ...]]:
        """Whether the entry that was told last still is what it was, and what came after it."""
        last = _select(connection, _ALL, 1, above=self._told.number - 1, below=self._told.number + 1, order="ASC")
        new = _select(connection, _ALL, _COUNTED, above=self._told.number, below=_MOST, order="ASC")
        return self._told == EMPTY or [one.head for one in last] == [self._told], new


def _select(connection: sqlite3.Connection, wanted: Wanted, limit: int, *, above: int, below: int, order: str) -> tuple[Entry, ...]:
    condition, values = wanted.condition()
    question = f"SELECT {AS_BYTES} FROM audit WHERE {condition} ORDER BY number {order} LIMIT ?"  # noqa: S608 - our words
    return tuple(entry_of(row) for row in connection.execute(question, (above, below, *values, limit)))
