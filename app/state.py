"""The one SQLite file, on a thread of its own: everything that must be transactional lives in it.

SQLite is called from one thread only, so that no two pieces of work of this process ever wait for each other's locks and
the event loop never waits for a disk. Other processes (the command line) write the same file; each transaction that
writes takes the write lock at its beginning, so it never fails halfway for lack of it. WAL and ``synchronous=FULL``: what
was committed survives a SIGKILL and a power cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from app.errors import StateDamaged, StateError, StateInUse, StateUnwritable

T = TypeVar("T")

FORMAT = 1
"""``PRAGMA user_version`` of the file. Raise it when an older version must not write the file any more."""

BUSY_SEC = 5.0
LOCK_NAME = "service.lock"

_ELSEWHERE = "or set MEMDUMP_STATE_DIR to another folder"
_ADVICE = {
    sqlite3.SQLITE_FULL: "Free some room on its disk.",
    sqlite3.SQLITE_BUSY: "Another process keeps it locked: let that one end, then try again.",
    sqlite3.SQLITE_LOCKED: "Another process keeps it locked: let that one end, then try again.",
    sqlite3.SQLITE_IOERR: "Check its disk, and whether that is full.",
    sqlite3.SQLITE_READONLY: f"Let this user write the file and its folder, {_ELSEWHERE}.",
    sqlite3.SQLITE_PERM: f"Let this user write the file and its folder, {_ELSEWHERE}.",
    sqlite3.SQLITE_CANTOPEN: f"Let this user write the file and its folder, {_ELSEWHERE}.",
}
"""What to do when the file cannot be written, by SQLite's primary error code."""


class State:
    """The state file, open. ``close`` it; everything else raises ``StateError`` when the file cannot serve."""

    def __init__(self, file: Path, thread: ThreadPoolExecutor, connection: sqlite3.Connection) -> None:
        self._file = file
        self._thread = thread
        self._connection = connection
        self._closed = False

    @classmethod
    def open(cls, file: Path, *schemas: str, busy_sec: float = BUSY_SEC) -> State:
        """Open ``file``, made if missing, and run ``schemas`` (``CREATE … IF NOT EXISTS``) in one transaction. Blocks.

        ``busy_sec`` is how long a lock of another process is waited for. Raises ``StateDamaged``, ``StateUnwritable``.
        """
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="state")
        try:
            connection = thread.submit(_connect, file, schemas, busy_sec).result()
        except BaseException:
            thread.shutdown()
            raise
        return cls(file, thread, connection)

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do ``work`` as one transaction that may write: all of it is durable afterwards, or, if it raises, none.

        If the task that waits is cancelled, ``work`` is either not begun at all or done to its end.
        """
        return await asyncio.wrap_future(self._thread.submit(self._transaction, "BEGIN IMMEDIATE", work))

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do ``work``, which only reads, on one consistent view. Waits for no other process."""
        return await asyncio.wrap_future(self._thread.submit(self._transaction, "BEGIN", work))

    def run_now(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """``run`` for where no event loop turns: blocks."""
        return self._thread.submit(self._transaction, "BEGIN IMMEDIATE", work).result()

    async def data_version(self) -> int:
        """A number that is another one whenever another process (or another ``State``) has committed since."""
        return await asyncio.wrap_future(self._thread.submit(self._data_version))

    def close(self) -> None:
        """Finish what was begun or waits, then close the file. Blocks. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        closing = self._thread.submit(self._connection.close)
        self._thread.shutdown()
        with _translated(self._file):
            closing.result()

    def _transaction(self, begin: str, work: Callable[[sqlite3.Connection], T]) -> T:
        with _translated(self._file):
            return _transaction(self._connection, begin, work)

    def _data_version(self) -> int:
        with _translated(self._file):
            return _pragma(self._connection, "data_version")


def _transaction(connection: sqlite3.Connection, begin: str, work: Callable[[sqlite3.Connection], T]) -> T:
    connection.execute(begin)
    try:
        result = work(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # after a full disk or an I/O error SQLite may have rolled back by itself
            connection.execute("ROLLBACK")
        raise
    return result


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _connect(file: Path, schemas: tuple[str, ...], busy_sec: float) -> sqlite3.Connection:
    _make_file(file)
    with _translated(file):
        connection = sqlite3.connect(file, timeout=busy_sec, isolation_level=None)
        try:
            _use_wal(connection, busy_sec)
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA foreign_keys=ON")
            _lay_out(connection, file, schemas)
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
        raise _no_folder(file.parent, error) from error


def make_folder(state_dir: Path) -> None:
    """The state directory, 0700 if it has to be made. Raises ``StateUnwritable``."""
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _no_folder(state_dir, error) from error


def _no_folder(state_dir: Path, error: OSError) -> StateUnwritable:
    reason = error.strerror or str(error)
    return StateUnwritable(f"The state directory {state_dir} cannot be written: {reason}. Mend that, {_ELSEWHERE}.")


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


def _lay_out(connection: sqlite3.Connection, file: Path, schemas: tuple[str, ...]) -> None:
    """Make the tables that are missing. Raises ``StateDamaged`` for a file of a newer version, which stays untouched."""
    found = _pragma(connection, "user_version")
    if found > FORMAT:
        raise StateDamaged(
            f"The state file {file} was written by a newer version of Memory Dumps (its format is {found}, this version knows "
            f"{FORMAT}). Use that version, {_ELSEWHERE}."
        )
    mark = f"PRAGMA user_version={FORMAT};" if found < FORMAT else ""  # writing it again would look like news to others
    try:
        connection.executescript("\n".join(("BEGIN IMMEDIATE;", *schemas, mark, "COMMIT;")))
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def _translated(file: Path) -> Iterator[None]:
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


class StateLock:
    """Says "a service runs on this state directory", until it is closed or the process ends in whatever way."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def close(self) -> None:
        """Let the next service in. A second call does nothing. The file stays: removing it would let two in."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def lock_state(state_dir: Path) -> StateLock:
    """Take the state directory, made if missing, for this service. Raises ``StateInUse``, ``StateUnwritable``.

    The command line does not ask for it: it may write beside a service.
    """
    make_folder(state_dir)
    try:
        descriptor = os.open(state_dir / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _no_folder(state_dir, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, b"%d\n" % os.getpid())  # for people; what counts is the lock
    except BlockingIOError:
        holder = os.read(descriptor, 20).decode(errors="replace").strip()
        os.close(descriptor)
        raise StateInUse(
            f"Another service{f' (process {holder})' if holder else ''} uses the state directory {state_dir}. "
            f"Stop it, {_ELSEWHERE}."
        ) from None
    except OSError as error:
        os.close(descriptor)
        raise _no_folder(state_dir, error) from error
    return StateLock(descriptor)
