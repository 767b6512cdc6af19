"""Accounts: a name, a role, a scope and, for who logs in by it, a password. Functions over the transaction that is open."""

from __future__ import annotations

import re
import sqlite3
from dataclasses import dataclass

from app.access.schema import scope_as_text, scope_from_text
from app.errors import AccountExists, AccountUnknown, LastAdministrator, RequestError
from app.rights import ROLES, Role
from app.scope import WHOLE, Scope

FIRST_NAME = "admin"
NAME_RULE = "a name is 1 to 64 of a-z, 0-9 and . _ @ -, and begins with a letter or digit"
_NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")
_LONGEST_ENTRY = 255
_MOST_ENTRIES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """As people see it: whether it has a password, never which."""

    name: str
    role: Role
    scope: Scope
    has_password: bool
    created_at: str


_EVERY = "SELECT name, role, scope, password IS NOT NULL, created_at FROM accounts"


def every(connection: sqlite3.Connection) -> tuple[Account, ...]:
    """By name."""
    return tuple(_account(row) for row in connection.execute(f"{_EVERY} ORDER BY name"))


def named(connection: sqlite3.Connection, name: str) -> Account:
    """Raises ``AccountUnknown``."""
    found = connection.execute(f"{_EVERY} WHERE name = ?", (name,)).fetchone()
    if found is None:
        raise AccountUnknown(name)
    return _account(found)


def password_of(connection: sqlite3.Connection, name: str) -> str | None:
    """The hash; None if there is no such account, or no password."""
    found = connection.execute("SELECT password FROM accounts WHERE name = ?", (name,)).fetchone()
    return found[0] if found else None


def add(connection: sqlite3.Connection, name: str, role: Role, scope: Scope, password: str | None, now: str) -> Account:
    """``password`` is a hash. Raises ``RequestError``, ``AccountExists``."""
    if not _NAME.fullmatch(name):
        raise RequestError(f"{name!r} cannot be an account's name: {NAME_RULE}.", place="$.name")
    check(role, scope)
    if connection.execute("SELECT 1 FROM accounts WHERE name = ?", (name,)).fetchone():
        raise AccountExists(name)
    connection.execute("INSERT INTO accounts VALUES (?, ?, ?, ?, ?)", (name, role, scope_as_text(scope), password, now))
    return named(connection, name)


def add_first(connection: sqlite3.Connection, now: str) -> None:
    """The administrator whom a first start makes; nothing if there is any account."""
    if connection.execute("SELECT 1 FROM accounts").fetchone() is None:
        add(connection, FIRST_NAME, "administrator", WHOLE, None, now)


def an_administrator(connection: sqlite3.Connection) -> str:
    """The first one while it still is one, else another."""
    of_them = "SELECT name FROM accounts WHERE role = 'administrator' ORDER BY name <> ?, created_at, name"
    return str(connection.execute(of_them, (FIRST_NAME,)).fetchone()[0])


def change(connection: sqlite3.Connection, name: str, role: Role, scope: Scope, now: str) -> Account:
    """Another role and scope. Tokens that reach further from then on are withdrawn. Raises ``AccountUnknown``,
    ``RequestError``, ``LastAdministrator``."""
    named(connection, name)
    check(role, scope)
    connection.execute("UPDATE accounts SET role = ?, scope = ? WHERE name = ?", (role, scope_as_text(scope), name))
    _keep_one_administrator(connection)
    held = "SELECT number, role, scope FROM tokens WHERE account = ? AND withdrawn_at IS NULL"
    for number, token_role, token_scope in connection.execute(held, (name,)).fetchall():
        if not (ROLES[token_role] <= ROLES[role] and scope_from_text(token_scope).within(scope)):
            connection.execute("UPDATE tokens SET withdrawn_at = ? WHERE number = ?", (now, number))
    return named(connection, name)


def set_password(connection: sqlite3.Connection, name: str, password: str) -> None:
    """``password`` is a hash. Ends every session of the account, and its login codes; tokens stay. Raises ``AccountUnknown``."""
    named(connection, name)
    connection.execute("UPDATE accounts SET password = ? WHERE name = ?", (password, name))
    _end_logins(connection, name)


def remove(connection: sqlite3.Connection, name: str, now: str) -> None:
    """And end its sessions, and withdraw its tokens. Raises ``AccountUnknown``, ``LastAdministrator``."""
    named(connection, name)
    connection.execute("DELETE FROM accounts WHERE name = ?", (name,))
    _keep_one_administrator(connection)
    connection.execute("UPDATE tokens SET withdrawn_at = ? WHERE account = ? AND withdrawn_at IS NULL", (now, name))
    _end_logins(connection, name)


def check(role: Role, scope: Scope) -> None:
    """Raises ``RequestError``. An administrator has no limits: whoever gives rights could lift their own."""
    if role not in ROLES:
        raise RequestError(f"There is no role {role!r}; there are {', '.join(ROLES)}.", place="$.role")
    if role == "administrator" and not scope.whole:
        raise RequestError("An administrator has no scope: who gives rights could lift their own limits.", place="$.scope")
    for entries in (scope.hypervisors, scope.vms, scope.groups):
        if len(entries) > _MOST_ENTRIES or any(
            not 0 < len(entry) <= _LONGEST_ENTRY or not entry.isprintable() for entry in entries
        ):
            raise RequestError(
                f"A scope names at most {_MOST_ENTRIES} of each kind, each in 1 to {_LONGEST_ENTRY} printable characters.",
                place="$.scope",
            )


def _end_logins(connection: sqlite3.Connection, name: str) -> None:
    connection.execute("DELETE FROM sessions WHERE account = ?", (name,))
    connection.execute("DELETE FROM login_codes WHERE name = ?", (name,))


def _keep_one_administrator(connection: sqlite3.Connection) -> None:
    """The transaction that is open comes to nothing if there is none left."""
    if connection.execute("SELECT 1 FROM accounts WHERE role = 'administrator'").fetchone() is None:
        raise LastAdministrator


def _account(row: tuple[str, Role, str, int, str]) -> Account:
    name, role, scope, has_password, created_at = row
    return Account(name=name, role=role, scope=scope_from_text(scope), has_password=bool(has_password), created_at=created_at)
