"""How much memory the spools of all running captures may take together, and who has taken how much of it.

The ledger is an empty file on which each capture holds record locks: a lock on the bytes *a* to *b* is *b* − *a* bytes of
the allowance taken. Two captures cannot lock the same byte, so no sum can be exceeded; the kernel lets a dead capture's
locks go, so nothing is stale. The file means nothing without its locks and may be deleted at any time, which at worst
lets captures that run already go uncounted; whoever takes the last lock away removes it.

The locks are of open file descriptions (``F_OFD_SETLK``, ``fcntl(2)``): those of processes would go when *any* descriptor
of the file is closed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LEDGER = ".spool-memory"

_QUARTER = 4
_GATE = 1 << 62  # a byte that nobody can take: whoever counts holds it
_GATE_TRIES, _GATE_SEC = 200, 0.005
_FLOCK = struct.Struct("@hhqqi4x")  # struct flock: type, whence, start, length, pid
_NO_LIMIT = 1 << 60


def available_bytes(root: Path = Path("/")) -> int:
    """Memory that this process can take before the machine or one of its cgroups (v1 and v2) runs out; 0 if unknown.

    A cgroup's page cache does not count as used where the kernel can drop it (``inactive_file``).
    """
    meminfo = _numbers(root / "proc/meminfo")
    free = [meminfo.get("MemAvailable:", 0) * 1024]
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            free += _in_cgroups(root / "sys/fs/cgroup", path, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            free += _in_cgroups(root / "sys/fs/cgroup/memory", path, *files)
    return max(0, min(free))


def _in_cgroups(mount: Path, path: str, limit_file: str, usage_file: str, cache_name: str) -> Iterator[int]:
    """What the cgroup at ``path`` and each one above leaves. In a container ``path`` may be of the host and not be there."""
    group = mount / path.strip("/")
    for folder in (group, *group.parents):
        if folder == mount.parent:
            break
        limit, usage = _text(folder / limit_file).strip(), _text(folder / usage_file).strip()
        if limit.isdigit() and usage.isdigit() and int(limit) < _NO_LIMIT:
            yield int(limit) - int(usage) + _numbers(folder / "memory.stat").get(cache_name, 0)


class Allowance:
    """What one capture has taken of the memory that all share."""

    def __init__(self, folder: Path, total_bytes: int | None = None) -> None:
        """``folder`` holds the ledger and is the same for all. ``total_bytes`` None: a quarter of what is available."""
        self._path = folder / LEDGER
        self._total_bytes = total_bytes
        self._file: int | None = None
        self._taken: list[tuple[int, int]] = []

    @property
    def taken_bytes(self) -> int:
        """What this capture holds."""
        return sum(end - start for start, end in self._taken)

    def take(self, size_bytes: int, *, beside_bytes: int = 0) -> bool:
        """Take so much more, or nothing. False if others have taken it, or the machine has not got it, and ``beside_bytes`` that
        will be needed besides, or nobody can count."""
        available = available_bytes()
        try:
            with self._counting() as file:
                free = list(_gaps(file, self._taken))
                others = _GATE - sum(end - start for start, end in free) - self.taken_bytes
                total = (available + others) // _QUARTER if self._total_bytes is None else self._total_bytes
                ranges = list(_lowest(free, size_bytes, total))
                # What others have taken they may not have touched yet, so it may still be counted as available.
                if sum(end - start for start, end in ranges) < size_bytes or size_bytes + beside_bytes + others > available:
                    return False
                for start, end in ranges:
                    _lock(file, fcntl.F_WRLCK, start, end)
                self._taken += ranges
                return True
        except OSError:  # no such folder, a full disk, a file system without locks
            return False

    def give_back(self) -> None:
        """Give all of it back, and remove the ledger if nobody else has anything. May be called twice."""
        if self._file is None:
            return
        with contextlib.suppress(OSError), self._counting() as file:
            for start, end in self._taken:
                _lock(file, fcntl.F_UNLCK, start, end)
            if _other(file, 0, _GATE) is None and self._is_current(file):
                self._path.unlink()
        self._taken = []
        if self._file is not None:
            os.close(self._file)
            self._file = None

    @contextmanager
    def _counting(self) -> Iterator[int]:
        """The ledger, open, with nobody else counting in it. Raises ``OSError``."""
        while True:
            if self._file is None:
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            _wait_for_gate(self._file)
            if self._taken or self._is_current(self._file):
                break
            os.close(self._file)  # removed by whoever was the last, between our open and our lock
            self._file = None
        file = self._file
        try:
            yield file
        finally:
            _lock(file, fcntl.F_UNLCK, _GATE, _GATE + 1)

    def _is_current(self, file: int) -> bool:
        try:
            return os.path.samestat(os.fstat(file), self._path.lstat())
        except FileNotFoundError:
            return False


def _wait_for_gate(file: int) -> None:
    """Counting takes microseconds. Raises ``BlockingIOError`` if somebody stopped while counting."""
    for _ in range(_GATE_TRIES):
        with contextlib.suppress(BlockingIOError):
            return _lock(file, fcntl.F_WRLCK, _GATE, _GATE + 1)
        time.sleep(_GATE_SEC)
    return _lock(file, fcntl.F_WRLCK, _GATE, _GATE + 1)


def _gaps(file: int, own: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The ranges that nobody has taken, this capture neither, ascending: start and end."""
    pending = [(0, _GATE)]
    while pending:
        start, end = pending.pop()
        if start == end:
            continue
        taken = next((each for each in own if each[0] < end and start < each[1]), None) or _other(file, start, end)
        if taken is None:
            yield start, end
        else:
            pending += [(max(start, min(end, taken[1])), end), (start, max(start, taken[0]))]


def _lowest(free: list[tuple[int, int]], size: int, limit: int) -> Iterator[tuple[int, int]]:
    """Ranges from the lowest on, ``size`` in all, none beyond ``limit``; less if there is no more."""
    for start, free_end in free:
        end = min(free_end, limit, start + size)
        if start < end:
            yield start, end
            size -= end - start


def _other(file: int, start: int, end: int) -> tuple[int, int] | None:
    """Some range there that somebody else has locked, not always the first."""
    answer = fcntl.fcntl(file, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, end - start, 0))
    kind, _, found, length, _ = _FLOCK.unpack(answer)
    return None if kind == fcntl.F_UNLCK else (found, found + (length or _GATE))


def _lock(file: int, kind: int, start: int, end: int) -> None:
    fcntl.fcntl(file, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, start, end - start, 0))


def first_to_be_killed() -> None:
    """Tell the kernel that, should memory run out, this process goes before any guest and any service.

    Raising one's own needs no privilege (``proc_pid_oom_score_adj(5)``). Does nothing where there is no ``/proc``.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _numbers(path: Path) -> dict[str, int]:
    """``name number …`` lines."""
    words = (line.split() for line in _text(path).splitlines())
    return {found[0]: int(found[1]) for found in words if len(found) > 1 and found[1].isdigit()}


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""
