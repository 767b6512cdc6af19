"""How the state file is made, laid out, migrated and copied, and how what SQLite says about it is put."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from app.errors import StateDamaged, StateError, StateUnwritable

T = TypeVar("T")

FORMAT = 3
"""``PRAGMA user_version`` of the file. Raise it when an older version must not write the file any more, and bring a
``Migration`` from the one before."""

Migration = Callable[[sqlite3.Connection], None]
"""Turns what a file of the format before holds into what the schemas ask for, within the transaction that it is called in."""

ELSEWHERE = "or set MEMDUMP_STATE_DIR to another folder"
_ADVICE = {
    sqlite3.SQLITE_FULL: "Free some room on its disk.",
    sqlite3.SQLITE_BUSY: "Another process keeps it locked: let that one end, then try again.",
    sqlite3.SQLITE_LOCKED: "Another process keeps it locked: let that one end, then try again.",
    sqlite3.SQLITE_IOERR: "Check its disk, and whether that is full.",
    sqlite3.SQLITE_READONLY: f"Let this user write the file and its folder, {ELSEWHERE}.",
    sqlite3.SQLITE_PERM: f"Let this user write the file and its folder, {ELSEWHERE}.",
    sqlite3.SQLITE_CANTOPEN: f"Let this user write the file and its folder, {ELSEWHERE}.",
}
"""What to do when the file cannot be written, by SQLite's primary error code."""


def transaction(connection: sqlite3.Connection, begin: str, work: Callable[[sqlite3.Connection], T]) -> T:
    connection.execute(begin)
    try:
        result = work(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # after a full disk or an I/O error SQLite may have rolled back by itself
            connection.execute("ROLLBACK")
        raise
    return result


def pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def connect(file: Path, schemas: tuple[str, ...], migrate: Migration | None, busy_sec: float) -> sqlite3.Connection:
    _make_file(file)
    with translated(file):
        connection = sqlite3.connect(file, timeout=busy_sec, isolation_level=None)
        try:
            _use_wal(connection, busy_sec)
            connection.execute("PRAGMA synchronous=FULL")
            _lay_out(connection, file, schemas, migrate)
            connection.execute("PRAGMA foreign_keys=ON")  # from now on: a table that others refer to can only be replaced without
        except BaseException:
            connection.close()
            raise
        return connection


def _make_file(file: Path) -> None:
    """An empty file that only its owner may read; SQLite gives its other files the same mode. Raises ``StateUnwritable``.

    A file that exists is not even opened here: closing it would drop the locks that another connection of this process
    holds on it, which is how POSIX locks work.
    """
    make_folder(file.parent)
    try:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise no_folder(file.parent, error) from error


def make_folder(state_dir: Path) -> None:
    """The state directory, 0700 if it has to be made. Raises ``StateUnwritable``."""
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise no_folder(state_dir, error) from error


def no_folder(state_dir: Path, error: OSError) -> StateUnwritable:
    reason = error.strerror or str(error)
    return StateUnwritable(f"The state directory {state_dir} cannot be written: {reason}. Mend that, {ELSEWHERE}.")


def _use_wal(connection: sqlite3.Connection, busy_sec: float) -> None:
    """Switch to WAL. Two processes that open a new file at once get an error here at once, however long they would wait:
    for the lock of this switch SQLite does not wait, lest two that hold a read lock wait for each other. So we do."""
    deadline = time.monotonic() + busy_sec
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if _primary(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _lay_out(connection: sqlite3.Connection, file: Path, schemas: tuple[str, ...], migrate: Migration | None) -> None:
    """Make the tables that are missing, and new ones of old ones. Raises ``StateDamaged`` for a file of a newer version, which
    stays untouched."""
    _format_of(connection, file)

    def work(connection: sqlite3.Connection) -> None:
        found = _format_of(connection, file)  # again: now nobody else can change it
        if 0 < found < FORMAT:
            if migrate is None:
                raise StateDamaged(f"The state file {file} is one of an older version of Memory Dumps. Start the service once.")
            keep_copy(file, file.with_name(f"{file.name}.format-{found}.bak"))
            migrate(connection)
        for schema in schemas:
            run_script(connection, schema)
        if found < FORMAT:  # writing it again would look like news to others
            connection.execute(f"PRAGMA user_version={FORMAT}")

    transaction(connection, "BEGIN IMMEDIATE", work)


def _format_of(connection: sqlite3.Connection, file: Path) -> int:
    found = pragma(connection, "user_version")
    if found > FORMAT:
        raise StateDamaged(
            f"The state file {file} was written by a newer version of Memory Dumps (its format is {found}, this version knows "
            f"{FORMAT}). Use that version, {ELSEWHERE}."
        )
    return found


def run_script(connection: sqlite3.Connection, script: str) -> None:
    """Run the statements of ``script`` within the transaction that is open; ``executescript`` would commit that first."""
    statement = ""
    for piece in script.split(";"):
        statement += f"{piece};"
        if sqlite3.complete_statement(statement):
            connection.execute(statement)
            statement = ""


def keep_copy(file: Path, copy: Path) -> None:
    """What is committed in ``file``, as a file of its own that only its owner may read. It takes its name when it is whole, and
    the place of a copy that was made before a migration that did not come to its end."""
    making = copy.with_name(f"{copy.name}.partial")
    making.unlink(missing_ok=True)
    try:
        _make_file(making)
        with contextlib.closing(sqlite3.connect(file)) as source, contextlib.closing(sqlite3.connect(making)) as target:
            source.backup(target)
            target.execute("PRAGMA journal_mode=DELETE")
        descriptor = os.open(making, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        making.replace(copy)
    finally:
        making.unlink(missing_ok=True)


@contextlib.contextmanager
def translated(file: Path) -> Iterator[None]:
    """What SQLite says about ``file``, as ``StateError``. What it says about the SQL (a constraint, an error of ours) passes
    as it is."""
    try:
        yield
    except sqlite3.Error as error:
        translated = _state_error(file, error)
        if translated is None:
            raise
        raise translated from error


def _state_error(file: Path, error: sqlite3.Error) -> StateError | None:
    code = _primary(error)
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StateDamaged(
            f"The state file {file} is damaged ({error}). Stop the service and move the file away together with {file.name}-wal "
            f"and {file.name}-shm: the next start makes a new one and reads the records again from the manifests."
        )
    if code in _ADVICE:
        return StateUnwritable(f"The state file {file} cannot be written: {error}. {_ADVICE[code]}")
    return None


def _primary(error: sqlite3.Error) -> int | None:
    """SQLite's primary result code: the low byte of the extended one. None for errors of Python's own layer."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else int(code) & 0xFF
