"""Who is being answered at this moment, so that an answer ends with the login that it was begun on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Set
from contextlib import contextmanager

import structlog

from app.access.identity import Identity
from app.access.sessions import Kind
from app.errors import StateError

log = structlog.get_logger()

Key = tuple[Kind, bytes]

LOOK_EVERY_SEC = 0.4
"""An answer ends within a second of its login, whichever process ended that; what is left is for the look itself."""


class Stay:
    """One request that is being answered. ``over``: whoever asked may no longer hear the rest."""

    def __init__(self, identity: Identity | None, leave: Callable[[], object]) -> None:
        self.over = False
        self.identity = identity
        self._leave = leave

    def on_end(self, leave: Callable[[], object]) -> None:
        """What to do then, instead of breaking the connection off."""
        self._leave = leave
        if self.over:
            leave()

    def end(self) -> None:
        """It is over."""
        self.over = True
        self._leave()


class Presence:
    """Everybody who came by a token or a session. ``look`` says who they are by now, past every cache."""

    def __init__(self, look: Callable[[Set[Key]], Awaitable[Mapping[Key, Identity | None]]]) -> None:
        self._look = look
        self._stays: dict[Key, set[Stay]] = {}

    @contextmanager
    def of(self, key: Key, stay: Stay) -> Iterator[None]:
        """``stay`` lasts as long as the block, or as the login."""
        self._stays.setdefault(key, set()).add(stay)
        try:
            yield
        finally:
            self._stays[key].discard(stay)
            if not self._stays[key]:
                del self._stays[key]

    async def watch(self) -> None:
        """Look again and again: until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_SEC)
            try:
                await self.look()
            except StateError as error:
                log.error("logins_not_seen", code=error.code, message=str(error))
            except Exception:  # if nobody looked any more, what is open would outlast its login
                log.exception("presence_broke")  # the next look tries again

    async def look(self) -> None:
        """End every stay whose login has ended, or has another role or scope than it began with."""
        if not self._stays:
            return
        found = await self._look(self._stays.keys())
        for key, identity in found.items():
            for stay in tuple(self._stays.get(key, ())):
                if stay.identity != identity and not stay.over:
                    stay.end()
