"""The one SQLite file, on threads of its own: everything that must be transactional lives in it.

One thread writes, so that no two pieces of work of this process ever wait for each other's locks and the event loop never
waits for a disk. Others read, each over a connection of its own: in WAL nobody waits for them, nor they for anybody; what
may take long (a search) has threads apart, so that a quick question never stands behind it. Other processes (the command
line) write the same file; each transaction that writes takes the write lock at its beginning, so it never fails halfway
for lack of it. WAL and ``synchronous=FULL``: what was committed survives a SIGKILL and a power cut.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from app.errors import StateInUse
from app.statefile import ELSEWHERE, Migration, connect, make_folder, no_folder, pragma, transaction, translated

T = TypeVar("T")

READERS = 2
"""Threads for quick questions, and as many for slow ones."""

BUSY_SEC = 5.0
LOCK_NAME = "service.lock"


class State:
    """The state file, open. ``close`` it; everything else raises ``StateError`` when the file cannot serve."""

    def __init__(self, file: Path, thread: ThreadPoolExecutor, connection: sqlite3.Connection, busy_sec: float) -> None:
        self._file = file
        self._thread = thread
        self._connection = connection
        self._quick = _Readers(file, busy_sec, "state-read")
        self._slow = _Readers(file, busy_sec, "state-search")
        self._closed = False

    @classmethod
    def open(cls, file: Path, *schemas: str, migrate: Migration | None = None, busy_sec: float = BUSY_SEC) -> State:
        """Open ``file``, made if missing, and run ``schemas`` (``CREATE … IF NOT EXISTS``) in one transaction. Blocks.

        A file of the format before is copied, then migrated in that transaction. ``busy_sec`` is how long a lock of another
        process is waited for. Raises ``StateDamaged``, ``StateUnwritable``.
        """
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="state")
        try:
            connection = thread.submit(connect, file, schemas, migrate, busy_sec).result()
        except BaseException:
            thread.shutdown()
            raise
        return cls(file, thread, connection, busy_sec)

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do ``work`` as one transaction that may write: all of it is durable afterwards, or, if it raises, none.

        If the task that waits is cancelled, ``work`` is either not begun at all or done to its end.
        """
        return await asyncio.wrap_future(self._thread.submit(self._transaction, "BEGIN IMMEDIATE", work))

    async def read(self, work: Callable[[sqlite3.Connection], T], *, slow: bool = False) -> T:
        """Do ``work``, which only reads, on one consistent view that holds all that was committed before. Waits for no writer,
        and, unless it says that it may be ``slow``, for nothing slow."""
        readers = self._slow if slow else self._quick
        return await asyncio.wrap_future(readers.submit(work))

    def run_now(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """``run`` for where no event loop turns: blocks."""
        return self._thread.submit(self._transaction, "BEGIN IMMEDIATE", work).result()

    async def data_version(self) -> int:
        """A number that is another one whenever another process (or another ``State``) has committed since."""
        return await asyncio.wrap_future(self._thread.submit(self._data_version))

    def close(self) -> None:
        """Finish what was begun or waits, then close the file: the writer last, who empties the log. Blocks. A second call does
        nothing."""
        if self._closed:
            return
        self._closed = True
        self._slow.close()
        self._quick.close()
        closing = self._thread.submit(self._connection.close)
        self._thread.shutdown()
        with translated(self._file):
            closing.result()

    def _transaction(self, begin: str, work: Callable[[sqlite3.Connection], T]) -> T:
        with translated(self._file):
            return transaction(self._connection, begin, work)

    def _data_version(self) -> int:
        with translated(self._file):
            return pragma(self._connection, "data_version")


class _Readers:
    """Threads that only read, each over a connection that it opens when it is first asked."""

    def __init__(self, file: Path, busy_sec: float, name: str) -> None:
        self._file = file
        self._busy_sec = busy_sec
        self._threads = ThreadPoolExecutor(max_workers=READERS, thread_name_prefix=name)
        self._own = threading.local()
        self._open: list[sqlite3.Connection] = []

    def submit(self, work: Callable[[sqlite3.Connection], T]) -> Future[T]:
        return self._threads.submit(self._read, work)

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with translated(self._file):
            if not hasattr(self._own, "connection"):
                self._own.connection = self._connect()
            return transaction(self._own.connection, "BEGIN", work)

    def _connect(self) -> sqlite3.Connection:
        # Closed by another thread, when its own has ended.
        uri = f"{self._file.absolute().as_uri()}?mode=rw"  # a file that has gone is not made anew here
        connection = sqlite3.connect(uri, uri=True, timeout=self._busy_sec, isolation_level=None, check_same_thread=False)
        self._open.append(connection)
        connection.execute("PRAGMA query_only=ON")
        return connection

    def close(self) -> None:
        self._threads.shutdown()
        for connection in self._open:
            connection.close()


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
        raise no_folder(state_dir, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, b"%d\n" % os.getpid())  # for people; what counts is the lock
    except BlockingIOError:
        holder = os.read(descriptor, 20).decode(errors="replace").strip()
        os.close(descriptor)
        raise StateInUse(
            f"Another service{f' (process {holder})' if holder else ''} uses the state directory {state_dir}. Stop it, {ELSEWHERE}."
        ) from None
    except OSError as error:
        os.close(descriptor)
        raise no_folder(state_dir, error) from error
    return StateLock(descriptor)
