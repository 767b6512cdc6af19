"""API tokens: what programs show. Functions over the transaction that is open."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from app.access import accounts
from app.access.schema import scope_as_text, scope_from_text
from app.errors import BeyondOwnRights, OutlivesToken, RequestError, TokenUnknown, TooManyTokens
from app.rights import ROLES, Role
from app.scope import WHOLE, Scope

FIRST_LABEL = "first"
LONGEST_LABEL = 100
MOST_TOKENS = 100
"""Of one account, that are neither withdrawn nor expired. Those that have expired make room when there are so many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """As people see it. Never the secret, of which nobody knows more than its hash."""

    number: int
    account: str
    label: str
    role: Role
    scope: Scope
    created_at: str
    expires_at: str | None
    used_at: str | None
    withdrawn_at: str | None


_EVERY = "SELECT number, account, label, role, scope, created_at, expires_at, used_at, withdrawn_at FROM tokens"


def every(connection: sqlite3.Connection, account: str | None = None) -> tuple[Token, ...]:
    """Those that are not withdrawn, newest first; with ``account`` those of one."""
    rows = connection.execute(
        f"{_EVERY} WHERE withdrawn_at IS NULL AND account = ifnull(?, account) ORDER BY number DESC", (account,)
    )
    return tuple(_token(row) for row in rows)


def valid(connection: sqlite3.Connection, number: int) -> Token:
    """The one of this number, while it is not withdrawn. Raises ``TokenUnknown``."""
    row = connection.execute(f"{_EVERY} WHERE number = ? AND withdrawn_at IS NULL", (number,)).fetchone()
    if row is None:
        raise TokenUnknown(number)
    return _token(row)


def end_of_another(connection: sqlite3.Connection, asking: int | None, expires_at: str | None) -> str | None:
    """When a token ends that is asked for with the token ``asking`` (None: with none): by itself when that does, and never later,
    or one that got out for a day would be there for ever. Raises ``TokenUnknown``, ``RequestError``."""
    latest = _end_of(connection, asking)
    if latest is not None and expires_at is not None and expires_at > latest:
        raise RequestError(
            f"A token does not outlive the one that it is made with, and that expires at {latest}. Choose no later end, or none.",
            place="$.expires_at",
        )
    return expires_at or latest


def check_lasting(connection: sqlite3.Connection, asking: int | None) -> None:
    """Before the token ``asking`` (None: with none) gives somebody what has no end, a password by which they log in or more rights.
    Raises ``TokenUnknown``, ``OutlivesToken``."""
    if (latest := _end_of(connection, asking)) is not None:
        raise OutlivesToken(latest)


def add(
    connection: sqlite3.Connection,
    hashed: bytes,
    account: str,
    label: str,
    role: Role | None,
    scope: Scope,
    now: str,
    expires_at: str | None,
) -> Token:
    """Of ``account``, with no more than that may: without a role its own, without a scope its own.

    Raises ``AccountUnknown``, ``RequestError``, ``BeyondOwnRights``, ``TooManyTokens``.
    """
    owner = accounts.named(connection, account)
    role = role or owner.role
    scope = owner.scope if scope.whole else scope
    if not 0 < len(label) <= LONGEST_LABEL or not label.isprintable():
        raise RequestError(f"A token has a label of 1 to {LONGEST_LABEL} printable characters.", place="$.label")
    accounts.check(role, scope)
    if not (ROLES[role] <= ROLES[owner.role] and scope.within(owner.scope)):
        raise BeyondOwnRights(account)
    if expires_at is not None and expires_at <= now:
        raise RequestError("A token cannot have expired before it is made.", place="$.expires_at")
    _make_room(connection, account, now)
    return _insert(connection, hashed, account, label, role, scope, now, expires_at)


def add_first(connection: sqlite3.Connection, hashed: bytes, now: str) -> bool:
    """That of a first start; False, and nothing changes, if there ever was one."""
    if connection.execute("SELECT 1 FROM tokens").fetchone() is not None:
        return False
    _insert(connection, hashed, accounts.FIRST_NAME, FIRST_LABEL, "administrator", WHOLE, now, None)
    return True


def withdraw(connection: sqlite3.Connection, number: int, now: str, *, account: str | None = None) -> Token:
    """From now on nobody's. With ``account``, another's is as unknown as one that there is not. Raises ``TokenUnknown``."""
    changed = connection.execute(
        "UPDATE tokens SET withdrawn_at = ? WHERE number = ? AND withdrawn_at IS NULL AND account = ifnull(?, account)",
        (now, number, account),
    ).rowcount
    if not changed:
        raise TokenUnknown(number)
    return _token(connection.execute(f"{_EVERY} WHERE number = ?", (number,)).fetchone())


def _end_of(connection: sqlite3.Connection, number: int | None) -> str | None:
    """Raises ``TokenUnknown``."""
    return None if number is None else valid(connection, number).expires_at


def _make_room(connection: sqlite3.Connection, account: str, now: str) -> None:
    held = "SELECT count(*) FROM tokens WHERE account = ? AND withdrawn_at IS NULL"
    if connection.execute(held, (account,)).fetchone()[0] < MOST_TOKENS:
        return
    over = "UPDATE tokens SET withdrawn_at = ? WHERE account = ? AND withdrawn_at IS NULL AND expires_at <= ?"
    if not connection.execute(over, (now, account, now)).rowcount:
        raise TooManyTokens(account, MOST_TOKENS)


def _insert(
    connection: sqlite3.Connection,
    hashed: bytes,
    account: str,
    label: str,
    role: Role,
    scope: Scope,
    now: str,
    expires_at: str | None,
) -> Token:
    number = connection.execute(
        "INSERT INTO tokens (hash, account, label, role, scope, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (hashed, account, label, role, scope_as_text(scope), now, expires_at),
    ).lastrowid
    return _token(connection.execute(f"{_EVERY} WHERE number = ?", (number,)).fetchone())


def _token(row: tuple[int, str, str, Role, str, str, str | None, str | None, str | None]) -> Token:
    number, account, label, role, scope, created_at, expires_at, used_at, withdrawn_at = row
    return Token(
        number=number,
        account=account,
        label=label,
        role=role,
        scope=scope_from_text(scope),
        created_at=created_at,
        expires_at=expires_at,
        used_at=used_at,
        withdrawn_at=withdrawn_at,
    )
