"""The tables of accounts, tokens and sessions, and how those of the first versions become them."""

from __future__ import annotations

import sqlite3
from functools import lru_cache

import msgspec

from app.scope import Scope
from app.statefile import run_script

# Hashes of secrets, never secrets. Times are RFC 3339 text, which sorts by time. A scope is JSON.
SCHEMA = """
CREATE TABLE IF NOT EXISTS accounts (
    name TEXT PRIMARY KEY,
    role TEXT NOT NULL,
    scope TEXT NOT NULL,
    password TEXT,
    created_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- One that was withdrawn stays, and with AUTOINCREMENT no number is given twice: what the trail says of token 7 is of this one.
CREATE TABLE IF NOT EXISTS tokens (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    hash BLOB NOT NULL UNIQUE,
    account TEXT NOT NULL,
    label TEXT NOT NULL,
    role TEXT NOT NULL,
    scope TEXT NOT NULL,
    created_at TEXT NOT NULL,
    expires_at TEXT,
    used_at TEXT,
    withdrawn_at TEXT
) STRICT;

-- With an account its role and scope count, as they are now; without one (another service vouched) those that stand here.
CREATE TABLE IF NOT EXISTS sessions (
    hash BLOB PRIMARY KEY,
    name TEXT NOT NULL,
    account TEXT,
    role TEXT,
    scope TEXT,
    expires_at TEXT NOT NULL,
    used_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;
-- The mode in which people logged in when the service started last, and the settings by which those without an account were vouched
-- for.
CREATE TABLE IF NOT EXISTS vouching (settings TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS login_codes (
    hash BLOB PRIMARY KEY,
    name TEXT NOT NULL,
    expires_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;
"""

_MOVE_ASIDE = """
ALTER TABLE tokens RENAME TO tokens_1;
DROP TABLE sessions;
"""
_BRING_OVER = """
INSERT INTO tokens (hash, account, label, role, scope, created_at, withdrawn_at)
SELECT hash, name, 'first', 'administrator', '{}', created_at, withdrawn_at FROM tokens_1;
DROP TABLE tokens_1;
"""


def upgrade(connection: sqlite3.Connection) -> None:
    """Give tokens of the first versions, which knew no accounts, to the administrator whose they were; browsers log in again.

    Looks at the table itself, not at the file's format: other programs (a dump by hand) may have raised that before.
    """
    columns = {row[1] for row in connection.execute("PRAGMA table_info(tokens)")}
    if columns and "number" not in columns:
        run_script(connection, _MOVE_ASIDE)
        run_script(connection, SCHEMA)
        run_script(connection, _BRING_OVER)


def scope_as_text(scope: Scope) -> str:
    """As it stands in a table; ``{}`` is the whole."""
    members = {"hypervisors": scope.hypervisors, "vms": scope.vms, "groups": scope.groups}
    return msgspec.json.encode({name: entries for name, entries in members.items() if entries}).decode()


@lru_cache(maxsize=1024)
def scope_from_text(text: str) -> Scope:
    """The same text is the same scope, so that what is kept of it is found at once."""
    return _scopes.decode(text)


_scopes = msgspec.json.Decoder(Scope)
