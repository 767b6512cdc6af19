"""Who may come in: API tokens, and sessions that begin with a login code."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal

from app.access.audit import append, note
from app.access.secrets import TOKEN_PREFIX, hash_of, make_secret
from app.config import AuthMode
from app.model import rfc3339
from app.rights import ROLES, Right, Role
from app.scope import WHOLE, Scope
from app.state import State

SESSION_SEC = 7 * 24 * 3600
"""How long a session lasts, on the server as in the browser's cookie."""

CODE_SEC = 600
CACHE_SEC = 1.0
"""A withdrawn token or an ended session counts after this time at the latest, whichever process ended it."""

CACHE_ENTRIES = 1024
FIRST_NAME = "admin"
ANONYMOUS = "anonymous"

# Hashes of secrets, never secrets. Times are RFC 3339 text, which sorts by time.
SCHEMA = """
CREATE TABLE IF NOT EXISTS tokens (
    hash BLOB PRIMARY KEY,
    name TEXT NOT NULL,
    created_at TEXT NOT NULL,
    withdrawn_at TEXT
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sessions (
    hash BLOB PRIMARY KEY,
    name TEXT NOT NULL,
    expires_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS login_codes (
    hash BLOB PRIMARY KEY,
    name TEXT NOT NULL,
    expires_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;
"""

Via = Literal["token", "session", "open", "proxy"]

_NAME_BY_TOKEN = "SELECT name FROM tokens WHERE hash = ? AND withdrawn_at IS NULL"  # noqa: S105 - SQL
_NAME_BY_SESSION = "SELECT name FROM sessions WHERE hash = ? AND expires_at > ?"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks, and what showed it: an API token, a session's cookie, a proxy's word, or nothing because the service is open."""

    name: str
    via: Via
    role: Role = "administrator"
    scope: Scope = WHOLE

    def may(self, right: Right) -> bool:
        """Whether that is among the rights of the role. On what, the scope says."""
        return right in ROLES[self.role]


_OPEN = Identity(ANONYMOUS, "open")


class Access:
    """Answers who somebody is, and gives out what they show. All of it raises ``StateError``."""

    def __init__(
        self,
        state: State,
        mode: AuthMode,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._state = state
        self._mode = mode
        self._now = now
        self._monotonic = monotonic
        self._cache: dict[tuple[Via, bytes], tuple[Identity, float]] = {}

    async def who(self, bearer: str | None, session: str | None) -> Identity | None:
        """Whose token (``bearer``) or whose ``session`` that is; None for nobody's. A token that is given decides."""
        if self._mode == "none":
            return _OPEN
        if bearer is not None:
            return await self._look_up("token", bearer)
        return await self._look_up("session", session) if session is not None else None

    async def redeem(self, code: str) -> str | None:
        """A session's secret for a login code, once; None if the code is unknown, used up or too old."""
        session = make_secret()
        noted = note("login", "login URL")

        def work(connection: sqlite3.Connection) -> bool:
            self._sweep(connection)
            found = connection.execute("DELETE FROM login_codes WHERE hash = ? RETURNING name", (hash_of(code),)).fetchall()
            for (name,) in found:
                connection.execute("INSERT INTO sessions VALUES (?, ?, ?)", (hash_of(session), name, self._in(SESSION_SEC)))
                append(connection, replace(noted, who=name))
            return bool(found)

        return session if await self._state.run(work) else None

    async def logout(self, session: str) -> None:
        """End the session at once. One that is unknown or has ended already is no error."""
        ended, noted = hash_of(session), note("logout")

        def work(connection: sqlite3.Connection) -> None:
            for (name,) in connection.execute("DELETE FROM sessions WHERE hash = ? RETURNING name", (ended,)).fetchall():
                append(connection, replace(noted, who=name))

        try:
            await self._state.run(work)
        finally:
            # After the deletion: a look-up that read the session before it has answered by now, and cached it again.
            self._cache.pop(("session", ended), None)

    def make_login_code(self) -> str:
        """A new login code: it works once, for ten minutes. Blocks: for the start and the command line."""
        code = make_secret()

        def work(connection: sqlite3.Connection) -> None:
            self._sweep(connection)
            connection.execute("INSERT INTO login_codes VALUES (?, ?, ?)", (hash_of(code), FIRST_NAME, self._in(CODE_SEC)))

        self._state.run_now(work)
        return code

    def first_token(self) -> str | None:
        """The API token of this state directory, made now if it never had one; else None, for nobody knows it any more.

        An open service needs none, and makes it when it is started closed. Blocks.
        """
        if self._mode == "none":
            return None
        token = make_secret(TOKEN_PREFIX)

        def work(connection: sqlite3.Connection) -> bool:
            if connection.execute("SELECT EXISTS (SELECT 1 FROM tokens)").fetchone()[0]:
                return False
            connection.execute("INSERT INTO tokens VALUES (?, ?, ?, NULL)", (hash_of(token), FIRST_NAME, self._in(0)))
            return True

        return token if self._state.run_now(work) else None

    async def _look_up(self, via: Literal["token", "session"], secret: str) -> Identity | None:
        """Only what is found is cached: so guesses push nobody out of the cache, and what is new works at once."""
        key = (via, hash_of(secret))
        cached = self._cache.get(key)
        asked_at = self._monotonic()
        if cached is not None and asked_at < cached[1]:
            return cached[0]
        name = await self._state.read(lambda connection: self._name_of(connection, *key))
        self._cache.pop(key, None)
        if name is None:
            return None
        if len(self._cache) >= CACHE_ENTRIES:
            del self._cache[next(iter(self._cache))]  # the one that was looked up longest ago
        identity = Identity(name, via)
        self._cache[key] = (identity, asked_at + CACHE_SEC)
        return identity

    def _name_of(self, connection: sqlite3.Connection, via: Via, hashed: bytes) -> str | None:
        if via == "token":
            found = connection.execute(_NAME_BY_TOKEN, (hashed,)).fetchone()
        else:
            found = connection.execute(_NAME_BY_SESSION, (hashed, self._in(0))).fetchone()
        return found[0] if found else None

    def _sweep(self, connection: sqlite3.Connection) -> None:
        """Remove the codes and sessions whose time is over."""
        for table in ("login_codes", "sessions"):
            connection.execute(f"DELETE FROM {table} WHERE expires_at <= ?", (self._in(0),))  # noqa: S608 - our two names

    def _in(self, seconds: float) -> str:
        """The moment ``seconds`` from now, as it stands in the file."""
        return rfc3339(self._now() + timedelta(seconds=seconds))
