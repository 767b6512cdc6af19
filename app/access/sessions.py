"""Who a secret shows to be asking: look-ups of tokens and sessions, and how sessions begin and end. Functions over the
transaction that is open."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Literal

from app.access.identity import Identity
from app.access.schema import scope_as_text, scope_from_text
from app.config import AuthMode
from app.rights import Role
from app.scope import Scope

Kind = Literal["token", "session"]

_OF_BEARER = """
SELECT tokens.account, tokens.account, tokens.role, tokens.scope, number, used_at FROM tokens
JOIN accounts ON accounts.name = tokens.account
WHERE hash = :hash AND withdrawn_at IS NULL AND ifnull(expires_at > :now, true)
"""
_OF_SESSION = """
SELECT sessions.name, account, ifnull(accounts.role, sessions.role), ifnull(accounts.scope, sessions.scope), NULL, used_at
FROM sessions LEFT JOIN accounts ON accounts.name = sessions.account
WHERE hash = :hash AND expires_at > :now AND used_at > :idle_since
"""
_USED = {
    "token": "UPDATE tokens SET used_at = ? WHERE hash = ?",
    "session": "UPDATE sessions SET used_at = ? WHERE hash = ?",
}


@dataclass(frozen=True, slots=True)
class Found:
    """Whose it is, and when it was last written down that it was used."""

    identity: Identity
    used_at: str | None


def find(connection: sqlite3.Connection, kind: Kind, hashed: bytes, now: str, idle_since: str) -> Found | None:
    """None for nobody's: unknown, withdrawn, over."""
    question = _OF_BEARER if kind == "token" else _OF_SESSION
    row = connection.execute(question, {"hash": hashed, "now": now, "idle_since": idle_since}).fetchone()
    if row is None or row[2] is None:
        return None
    name, account, role, scope, number, used_at = row
    return Found(Identity(name, kind, role, scope_from_text(scope), account=account, token=number), used_at)


def used(connection: sqlite3.Connection, kind: Kind, hashed: bytes, now: str) -> None:
    connection.execute(_USED[kind], (now, hashed))


def begin(connection: sqlite3.Connection, hashed: bytes, account: str, now: str, expires_at: str) -> None:
    """Of an account."""
    connection.execute("INSERT INTO sessions VALUES (?, ?, ?, NULL, NULL, ?, ?)", (hashed, account, account, expires_at, now))


def begin_for(
    connection: sqlite3.Connection, hashed: bytes, name: str, role: Role, scope: Scope, now: str, expires_at: str
) -> None:
    """Of somebody who has no account here, but for whom another service vouches."""
    row = (hashed, name, role, scope_as_text(scope), expires_at, now)
    connection.execute("INSERT INTO sessions VALUES (?, ?, NULL, ?, ?, ?, ?)", row)


def end(connection: sqlite3.Connection, hashed: bytes) -> str | None:
    """Whose it was; None if there was none."""
    found = connection.execute("DELETE FROM sessions WHERE hash = ? RETURNING name", (hashed,)).fetchall()
    return found[0][0] if found else None


def end_all(connection: sqlite3.Connection, name: str) -> int:
    """Every session of this name, of its account or of somebody whom another service vouched for, and its login codes; how many
    sessions it had."""
    connection.execute("DELETE FROM login_codes WHERE name = ?", (name,))
    return connection.execute("DELETE FROM sessions WHERE name = ?", (name,)).rowcount


def keep(connection: sqlite3.Connection, mode: AuthMode, settings: str) -> tuple[str, int]:
    """Sessions go on only in the ``mode`` of the start before, and those without an account only if the same ``settings`` vouch for
    them; else whose were ended, and how many."""
    before = [text for (text,) in connection.execute("SELECT settings FROM vouching")]
    now = f"{mode} {settings}"
    if before == [now]:
        return "", 0
    connection.execute("DELETE FROM vouching")
    connection.execute("INSERT INTO vouching VALUES (?)", (now,))
    if before and before[0].partition(" ")[0] != mode:
        return "all who were logged in", connection.execute("DELETE FROM sessions").rowcount
    return "all who were vouched for", connection.execute("DELETE FROM sessions WHERE account IS NULL").rowcount


def sweep(connection: sqlite3.Connection, now: str, idle_since: str) -> None:
    """Remove the codes and sessions whose time is over."""
    connection.execute("DELETE FROM login_codes WHERE expires_at <= ?", (now,))
    connection.execute("DELETE FROM sessions WHERE expires_at <= ? OR used_at <= ?", (now, idle_since))
