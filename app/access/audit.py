"""The audit trail: who did what, from where, when, and how it ended, in a table that only grows.

An entry is written in the transaction of what it tells of, where there is one: ``note(…)`` where it is known who asks (a coroutine
of the request), then ``append(connection, noted)`` within the transaction. A row is never changed nor removed: triggers refuse it,
and the chain (``app.access.chain``) shows it where somebody got around them.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal, get_args

from app.access.chain import EMPTY, Detail, Entry, Head, canonical
from app.model import Manifest, rfc3339

SCHEMA = """
CREATE TABLE IF NOT EXISTS audit (
    number INTEGER PRIMARY KEY,
    at TEXT NOT NULL,
    who TEXT NOT NULL,
    via TEXT NOT NULL,
    origin TEXT NOT NULL,
    deed TEXT NOT NULL,
    subject TEXT NOT NULL,
    result TEXT NOT NULL,
    details TEXT NOT NULL,
    previous TEXT NOT NULL,
    hash TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS audit_by_who ON audit (who, number);
CREATE INDEX IF NOT EXISTS audit_by_deed ON audit (deed, number);
CREATE TRIGGER IF NOT EXISTS audit_is_not_changed BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit trail is not changed'); END;
CREATE TRIGGER IF NOT EXISTS audit_is_not_shortened BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit trail is not shortened'); END;
CREATE TRIGGER IF NOT EXISTS audit_goes_on BEFORE INSERT ON audit
WHEN NEW.number <> (SELECT coalesce(max(number), 0) + 1 FROM audit)
BEGIN SELECT RAISE(ABORT, 'the audit trail goes on at its end'); END;
"""

Deed = Literal[
    "login",
    "login-refused",
    "logout",
    "refusal",
    "dump",
    "cancel",
    "download",
    "delete",
    "token-made",
    "token-revoked",
    "account-made",
    "account-changed",
    "account-removed",
    "password-changed",
    "sessions-ended",
    "settings",
]
DEEDS: tuple[Deed, ...] = get_args(Deed)

DONE = "done"

_TEXTS = ("at", "who", "via", "origin", "deed", "subject", "result", "details", "previous", "hash")
_INSERT = f"INSERT INTO audit (number, {', '.join(_TEXTS)}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - our names
AS_BYTES = ", ".join(["number", *(f"CAST({name} AS BLOB)" for name in _TEXTS)])
"""The columns of an entry. Texts come as bytes: somebody may have written some there that are no UTF-8."""

_LONGEST = 1000
"""Characters that are kept of a text that somebody sent."""


@dataclass(slots=True)
class Occasion:
    """On what occasion something is done: who asks, what showed it, and from where. ``written``: an entry tells of it already.

    ``subject`` and ``details`` are for the entry that is written where no transaction carries one; ``kind`` tells what is
    refused from other refusals, and is not written.
    """

    who: str
    via: str
    origin: str = ""
    written: bool = False
    subject: str = ""
    details: dict[str, Detail] = field(default_factory=dict)
    kind: str = ""


_OCCASION: ContextVar[Occasion | None] = ContextVar("occasion", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """An entry before it has its place in the chain."""

    deed: Deed
    who: str
    subject: str
    result: str
    details: Mapping[str, Detail]
    occasion: Occasion
    at: datetime = field(default_factory=lambda: datetime.now(UTC))


def note(deed: Deed, subject: str = "", *, result: str = DONE, who: str | None = None, **details: Detail) -> Note:
    """What is to be written: by whoever asks here, or by ``who`` if that is known better (a login). Call it where the request is
    answered; what runs on the thread of the state file does not know who asks."""
    occasion = _OCCASION.get() or _by_hand()
    return Note(deed=deed, who=who or occasion.who, subject=subject, result=result, details=details, occasion=occasion)


def service_note(deed: Deed, subject: str = "", *, result: str = DONE, who: str = "", **details: Detail) -> Note:
    """What the service itself writes, for ``who`` where it does what that one asked for."""
    occasion = Occasion("service", "service")
    return Note(deed=deed, who=who or occasion.who, subject=subject, result=result, details=details, occasion=occasion)


def sealed_note(manifest: Manifest) -> Note:
    """That a dump was sealed which the service, or somebody by hand, made."""
    noted = service_note("dump", manifest.dom, result="sealed", who=manifest.operator)
    return replace(noted, details=of_dump(manifest))


def about(subject: str, *, kind: str = "", **details: Detail) -> None:
    """Say on what, and how, what is being asked for is done, where no transaction carries its entry."""
    if (occasion := _OCCASION.get()) is not None:
        occasion.subject, occasion.kind, occasion.details = subject, kind, details


def asked_by(who: str, via: str) -> None:
    """Say who is asking, where that is known of somebody who is not let in."""
    if (occasion := _OCCASION.get()) is not None:
        occasion.who, occasion.via = who, via


def nothing_done() -> None:
    """What is asked for has been done before, or is not there to be done: there is nothing to tell."""
    if (occasion := _OCCASION.get()) is not None:
        occasion.written = True


def of_dump(manifest: Manifest) -> dict[str, Detail]:
    """What is told of a dump that was sealed beside its VM's name. The hashes vouch for the manifest, and that for the dump."""
    names = ("dump_id", "uuid", "dump_path", "sha256", "stored_sha256", "reason", "case")
    return {name: getattr(manifest, name) for name in names}


@contextlib.contextmanager
def on_occasion(occasion: Occasion) -> Iterator[Occasion]:
    """Notes within the block are of this occasion. Without one they are of whoever runs the command line."""
    token = _OCCASION.set(occasion)
    try:
        yield occasion
    finally:
        _OCCASION.reset(token)


def append(connection: sqlite3.Connection, noted: Note) -> Entry:
    """Write the entry within the transaction that is open, which has to be one that writes."""
    last = head_of(connection)
    entry = Entry(
        number=last.number + 1,
        at=rfc3339(noted.at),
        who=_kept(noted.who),
        via=_kept(noted.occasion.via),
        origin=_kept(noted.occasion.origin),
        deed=noted.deed,
        subject=_kept(noted.subject),
        result=_kept(noted.result),
        details={name: _kept(value) if isinstance(value, str) else value for name, value in noted.details.items()},
        previous=last.hash,
    ).sealed()
    connection.execute(_INSERT, _row(entry))
    noted.occasion.written = True
    return entry


def head_of(connection: sqlite3.Connection) -> Head:
    """The head of the chain."""
    row = connection.execute("SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1").fetchone()
    return Head(*row) if row else EMPTY


Row = tuple[int, bytes, bytes, bytes, bytes, bytes, bytes, bytes, bytes, bytes, bytes]


def entries_in(connection: sqlite3.Connection) -> Iterator[Entry]:
    """All of them, oldest first."""
    for row in connection.execute(f"SELECT {AS_BYTES} FROM audit ORDER BY number"):  # noqa: S608 - our names
        yield entry_of(row)


def entry_of(row: Row) -> Entry:
    """A row of ``AS_BYTES`` as the entry that it is. What ``append`` never wrote so gives an entry that fits no hash."""
    number, *texts = row
    at, who, via, origin, deed, subject, result, details, previous, hashed = map(_text, texts)
    try:
        known = json.loads(details)
        known = known if isinstance(known, dict) and canonical(known) == details else {"damaged": details}
    except (ValueError, RecursionError):
        known = {"damaged": details}
    return Entry(
        number=number,
        at=at,
        who=who,
        via=via,
        origin=origin,
        deed=deed,
        subject=subject,
        result=result,
        details=known,
        previous=previous,
        hash=hashed,
    )


def _row(entry: Entry) -> tuple[str | int, ...]:
    return (
        entry.number,
        entry.at,
        entry.who,
        entry.via,
        entry.origin,
        entry.deed,
        entry.subject,
        entry.result,
        canonical(entry.details),
        entry.previous,
        entry.hash,
    )


def _text(written: bytes) -> str:
    try:
        return written.decode()
    except UnicodeDecodeError:
        return f"(not UTF-8: {written.hex()})"


def _kept(text: str) -> str:
    """What of a text can stand in the file: header bytes that are no UTF-8 come as lone surrogates, which it cannot hold."""
    whole = text.encode(errors="backslashreplace").decode()
    return whole if len(whole) <= _LONGEST else f"{whole[: _LONGEST - 1]}…"


def _by_hand() -> Occasion:
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        name = "unknown"
    return Occasion(name, "command-line")
