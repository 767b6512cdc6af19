"""Who may come in: by API token, or by a session that began with a password or a login code."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping, Set
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import structlog

from app.access import accounts, sessions, tokens
from app.access.attempts import Attempts
from app.access.audit import about, append, note, nothing_done, service_note
from app.access.identity import Identity
from app.access.passwords import Passwords
from app.access.presence import Key, Presence
from app.access.secrets import TOKEN_PREFIX, hash_of, make_secret
from app.config import AuthMode
from app.errors import PasswordWrong, StateError, TooManyLogins
from app.model import from_rfc3339, rfc3339
from app.rights import Role
from app.scope import Scope
from app.state import State

log = structlog.get_logger()

SESSION_SEC = 7 * 24 * 3600
"""How long a session lasts at most, on the server as in the browser's cookie."""

IDLE_SEC = 8 * 3600
"""How long one lasts in which nobody asks for anything. A page that only listens does not ask."""

CODE_SEC = 600
CACHE_SEC = 1.0
"""A withdrawn token or an ended session counts after this time at the latest, whichever process ended it."""

CACHE_ENTRIES = 1024
USED_SEC = 60.0
"""So often at most it is written down that a token or session is used."""

ANONYMOUS = "anonymous"
_OPEN = Identity(ANONYMOUS, "open")


def key_of(bearer: str | None, session: str | None) -> Key | None:
    """By what is known who shows these; a token that is given decides."""
    if bearer is not None:
        return ("token", hash_of(bearer))
    return None if session is None else ("session", hash_of(session))


class Access:
    """Answers who somebody is, and gives out what they show. All of it raises ``StateError``. ``close`` it."""

    def __init__(
        self,
        state: State,
        mode: AuthMode,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.passwords = Passwords()
        self._state = state
        self._mode = mode
        self._now = now
        self._monotonic = monotonic
        self.attempts = Attempts(monotonic)
        self._cache: dict[Key, tuple[Identity, float]] = {}
        self._forgotten = 0
        self.presence = Presence(self._look_again)

    def close(self) -> None:
        """Give the thread of the passwords back. Blocks."""
        self.passwords.close()

    async def who(self, bearer: str | None, session: str | None, *, quiet: bool = False) -> Identity | None:
        """Whose token (``bearer``) or whose ``session`` that is; None for nobody's. A token that is given decides. ``quiet``: this
        is no use that keeps a session from its idle end."""
        if self._mode == "none":
            return _OPEN
        key = key_of(bearer, session)
        return None if key is None else await self._look_up(key, quiet)

    async def log_in(self, name: str, password: str, address: str) -> str | None:
        """A session's secret for a name and its password; None if they do not fit, without a hint, not even by the time it takes,
        which of them. Raises ``TooManyLogins``."""
        kept, fits = await self._try(name, password, address)
        if not fits:
            # A name that is nobody's may be a password in the wrong field: it is told apart, so that its refusal takes
            # the same time as any other, but it does not get into the audit trail.
            about(name if kept is not None else "", kind=name)
            return None
        session = make_secret()
        noted = note("login", "password", who=name)

        def work(connection: sqlite3.Connection) -> bool:
            if accounts.password_of(connection, name) != kept:  # it was changed while we looked at it
                return False
            self._sweep(connection)
            sessions.begin(connection, hash_of(session), name, self._in(0), self._in(SESSION_SEC))
            append(connection, noted)
            return True

        if not await self._state.run(work):
            return None
        self.attempts.give_back(address, name)
        return session

    async def check_password(self, name: str, password: str, address: str) -> None:
        """Before somebody who is logged in changes it. Raises ``PasswordWrong``, ``TooManyLogins``."""
        _, fits = await self._try(name, password, address)
        if not fits:
            raise PasswordWrong
        self.attempts.give_back(address, name)

    async def _try(self, name: str, password: str, address: str) -> tuple[str | None, bool]:
        """One try: the hash that is kept, and whether the password fits it. One that was never looked at is none."""
        self.attempts.take(address, name)
        try:
            kept = await self._state.read(lambda connection: accounts.password_of(connection, name))
            return kept, await self.passwords.fits(password, kept)
        except (StateError, TooManyLogins):
            self.attempts.give_back(address, name)
            raise

    async def redeem(self, code: str, address: str) -> str | None:
        """A session's secret for a login code, once; None if the code is unknown, used up or too old. Raises ``TooManyLogins``."""
        self.attempts.take(address)
        session = make_secret()
        noted = note("login", "login URL")

        def work(connection: sqlite3.Connection) -> bool:
            self._sweep(connection)
            found = connection.execute("DELETE FROM login_codes WHERE hash = ? RETURNING name", (hash_of(code),)).fetchall()
            for (name,) in found:
                sessions.begin(connection, hash_of(session), name, self._in(0), self._in(SESSION_SEC))
                append(connection, replace(noted, who=name))
            return bool(found)

        try:
            known = await self._state.run(work)
        except StateError:
            self.attempts.give_back(address)
            raise
        if not known:
            return None
        self.attempts.give_back(address)
        return session

    async def begin_for(self, name: str, role: Role, scope: Scope, **vouched: str) -> str:
        """A session's secret for somebody who has no account here, but for whom another service vouches; ``vouched``: what tells
        them from others of that name."""
        session = make_secret()
        noted = note("login", "vouched for", who=name, role=role, scope=str(scope), **vouched)

        def work(connection: sqlite3.Connection) -> None:
            self._sweep(connection)
            sessions.begin_for(connection, hash_of(session), name, role, scope, self._in(0), self._in(SESSION_SEC))
            append(connection, noted)

        await self._state.run(work)
        return session

    async def logout(self, session: str) -> None:
        """End the session at once. One that is unknown or has ended already is no error."""
        ended, noted = hash_of(session), note("logout")

        def work(connection: sqlite3.Connection) -> bool:
            if (name := sessions.end(connection, ended)) is not None:
                append(connection, replace(noted, who=name))
            return name is not None

        try:
            if not await self._state.run(work):
                nothing_done()
        finally:
            self.forget()

    def forget(self) -> None:
        """What was changed here counts from now on, and not only within a second. Call it after the change: a look-up that read
        what was there before may have cached it by then, or still has to answer."""
        self._cache.clear()
        self._forgotten += 1

    def make_login_code(self) -> str:
        """A new login code for an administrator, the first one if it still is one: it works once, for ten minutes. Blocks: for the
        start and the command line."""
        code = make_secret()

        def work(connection: sqlite3.Connection) -> None:
            self._sweep(connection)
            accounts.add_first(connection, self._in(0))
            name = accounts.an_administrator(connection)
            connection.execute("INSERT INTO login_codes VALUES (?, ?, ?)", (hash_of(code), name, self._in(CODE_SEC)))
            append(connection, note("token-made", "login URL", account=name))

        self._state.run_now(work)
        return code

    def keep_sessions(self, vouching: str) -> None:
        """At a start: end the sessions of those whom another service vouched for under other settings than ``vouching``, and all of
        them if people logged in in another mode: a password would be a way around the provider. Blocks."""

        def work(connection: sqlite3.Connection) -> None:
            whose, ended = sessions.keep(connection, self._mode, vouching)
            if ended:
                append(connection, service_note("sessions-ended", whose, ended=ended))

        self._state.run_now(work)

    def first_token(self) -> str | None:
        """The API token of this state directory, made now if it never had one; else None, for nobody knows it any more.

        An open service needs none, and makes it when it is started closed. Blocks.
        """
        if self._mode == "none":
            return None
        token = make_secret(TOKEN_PREFIX)

        def work(connection: sqlite3.Connection) -> bool:
            accounts.add_first(connection, self._in(0))
            made = tokens.add_first(connection, hash_of(token), self._in(0))
            if made:
                append(connection, note("token-made", "first API token", account=accounts.FIRST_NAME))
            return made

        return token if self._state.run_now(work) else None

    async def _look_up(self, key: Key, quiet: bool) -> Identity | None:
        """Only what is found is cached: so guesses push nobody out of the cache, and what is new works at once."""
        cached = self._cache.get(key)
        asked_at = self._monotonic()
        if cached is not None and asked_at < cached[1]:
            return cached[0]
        now, idle_since, forgotten = self._in(0), self._in(-IDLE_SEC), self._forgotten
        found = await self._state.read(lambda connection: sessions.find(connection, *key, now, idle_since))
        self._cache.pop(key, None)
        if found is None:
            return None
        if len(self._cache) >= CACHE_ENTRIES:
            del self._cache[next(iter(self._cache))]  # the one that was looked up longest ago
        if forgotten == self._forgotten:  # else it may be what was read before it was ended
            self._cache[key] = (found.identity, asked_at + CACHE_SEC)
        if not quiet and (found.used_at is None or from_rfc3339(found.used_at) <= self._now() - timedelta(seconds=USED_SEC)):
            await self._write_down_use(key)
        return found.identity

    async def _write_down_use(self, key: Key) -> None:
        """Whoever is known comes in even while the disk is full."""
        now = self._in(0)
        try:
            await self._state.run(lambda connection: sessions.used(connection, *key, now))
        except StateError as error:
            log.warning("use_not_kept", code=error.code, message=str(error))

    async def _look_again(self, keys: Set[Key]) -> Mapping[Key, Identity | None]:
        """Who they are by now, from the file. Nobody who has gone stays in the cache."""
        asked, now, idle_since = tuple(keys), self._in(0), self._in(-IDLE_SEC)
        found = await self._state.read(lambda connection: {key: sessions.find(connection, *key, now, idle_since) for key in asked})
        for key in asked:
            if found[key] is None:
                self._cache.pop(key, None)
        return {key: one.identity if one else None for key, one in found.items()}

    def _sweep(self, connection: sqlite3.Connection) -> None:
        sessions.sweep(connection, self._in(0), self._in(-IDLE_SEC))

    def _in(self, seconds: float) -> str:
        """The moment ``seconds`` from now, as it stands in the file."""
        return rfc3339(self._now() + timedelta(seconds=seconds))
