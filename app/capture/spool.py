"""Pages that come in any order → an image: in memory while all running captures fit, else in a file without a name.

Room for the whole of it is reserved before the guest is touched, held over all tries, and given back when the spool is
closed. A file is reserved with ``fallocate``, so it takes its room on the disk while the capture runs, written or not, and
cannot run out of it in the middle. In memory, room that is reserved costs nothing until it is written. Pages that the
guest never wrote are never written here: they are zero as they are, and ``blank`` tells where they are.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import secrets
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from app.capture.allowance import Allowance
from app.capture.migration import PAGE_BYTES, Block
from app.capture.room import FULL, free_bytes, reserve
from app.errors import RUNS_ON, CaptureError, DumpDirUnusable, NoSpace
from app.fifo import Rendezvous

SLACK_BYTES = 64 << 20
"""What a guest has beside its memory: firmware, video memory. What it has more is reserved when the stream tells it."""

HUGE_BYTES = 2 << 20
"""A huge page of x86-64."""

MUCH_PAGES = 128
"""So many pages of a huge one at once, a quarter, and it is taken: the rest mostly follows."""

_HUGE_PAGES = HUGE_BYTES // PAGE_BYTES
_IOV_MOST = 512
_NOTE_NAME = b"VMCOREINFO\0"
MOST_NOTES = 1024
"""So many pages that begin like a VMCOREINFO note are remembered. Linux makes one; a guest that makes thousands hides its own from
the dump, and cannot make a capture take memory without end."""

_NOTE_NAME_AT = 12
_NOTE_START = int.from_bytes(_NOTE_NAME[:8], "little")
_NO_TMPFILE = {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT}


def open_spool(
    size_bytes: int, dump_dir: Path, where: Rendezvous, spool_memory_bytes: int | None = None, *, beside_bytes: int = 0
) -> Spool:
    """A spool for a guest with ``size_bytes`` of memory; all captures of one rendezvous share ``spool_memory_bytes``.

    ``spool_memory_bytes`` None: a quarter of what is available. ``beside_bytes``: what reading the guest will allocate as well.

    Raises ``NoSpace`` if neither memory nor disk has room, ``DumpDirUnusable`` if the disk cannot be used.
    """
    return Spool(size_bytes + SLACK_BYTES, dump_dir, Allowance(where.directory, spool_memory_bytes), beside_bytes=beside_bytes)


class Spool:
    """The image of one guest's RAM blocks while it is made, and until it is sealed. Is a ``migration.Sink``.

    Blocks are named by their place in the stream's list. Not for several threads at once.
    """

    def __init__(self, reserve_bytes: int, dump_dir: Path, allowance: Allowance, *, beside_bytes: int = 0) -> None:
        """Use ``open_spool``."""
        self._dump_dir = dump_dir
        self._allowance = allowance
        self._store: _Store | None = None
        self._file: _File | None = None
        self._starts: list[int] = []
        self._written: list[NDArray[np.bool_]] = []
        self._notes: set[tuple[int, int]] = set()
        self._used_before = False
        self.block_list: tuple[Block, ...] = ()
        """The blocks, once the stream has listed them."""
        if not allowance.take(reserve_bytes, beside_bytes=beside_bytes):
            self._file = _File(dump_dir, reserve_bytes)

    @property
    def in_memory(self) -> bool:
        """Whether it is in memory, not on disk."""
        return self._file is None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def clear(self) -> None:
        """Throw the image away and keep its room, for another try at the same guest."""
        self._starts, self._written, self.block_list = [], [], ()
        self._notes.clear()
        self._used_before = True
        if isinstance(self._store, _Memory):  # what is taken of the allowance stays taken
            self._store.close()
        self._store = None

    def close(self) -> None:
        """Throw the image away and give its room back. May be called twice."""
        if self._store is not None:
            self._store.close()
            self._store = None
        if self._file is not None:
            self._file.close()
        self._allowance.give_back()

    # -- migration.Sink

    def blocks(self, blocks: tuple[Block, ...]) -> None:
        """Make room for exactly these. Raises ``NoSpace`` if that is more than was reserved and is not there."""
        self.block_list = blocks
        size = 0
        for block in blocks:
            self._starts.append(size)
            size += block.size_bytes
            self._written.append(np.zeros(block.size_bytes // PAGE_BYTES, np.bool_))
        if self._file is None:
            missing = size - self._allowance.taken_bytes
            if missing <= 0 or self._allowance.take(missing):
                with contextlib.suppress(OSError, MemoryError, ValueError):  # where the kernel does not overcommit
                    self._store = _Memory(size)
                    return
            self._allowance.give_back()
            self._file = _File(self._dump_dir, size)
        self._file.reserve(size)
        self._store = self._file

    def pages(self, block: int, numbers: NDArray[np.int64], content: NDArray[np.uint8]) -> None:
        """Take copies of these pages."""
        self._room.put(self._starts[block] // PAGE_BYTES + numbers, content)
        self._written[block][numbers] = True
        names = np.ascontiguousarray(content[:, _NOTE_NAME_AT : _NOTE_NAME_AT + 8]).view("<u8")
        for at in np.flatnonzero(names == _NOTE_START):
            if len(self._notes) < MOST_NOTES:
                self._notes.add((block, int(numbers[at])))

    def filled(self, block: int, numbers: NDArray[np.int64], fill: NDArray[np.uint8]) -> None:
        """Take pages of one repeated byte. A zero page that was never written stays untouched."""
        written = self._written[block]
        touched = written[numbers] | (fill != 0)
        if not touched.any():
            return
        numbers, fill = numbers[touched], fill[touched]
        self._room.put(self._starts[block] // PAGE_BYTES + numbers, np.broadcast_to(fill[:, None], (len(fill), PAGE_BYTES)))
        written[numbers] = fill != 0

    # -- the image

    def read(self, block: int, offset: int, into: memoryview) -> None:
        """Copy the block's bytes from ``offset`` on, as many as ``into`` takes. Raises ``ValueError`` beyond its end."""
        if offset < 0 or offset + len(into) > self.block_list[block].size_bytes:
            raise ValueError(f"{len(into)} bytes at {offset} are not all in the block {self.block_list[block].name}")
        self._room.read(self._starts[block] + offset, into)
        if self._used_before and not self.in_memory:
            self._blank_out(block, offset, into)

    def _blank_out(self, block: int, offset: int, into: memoryview) -> None:
        """A file still holds what an earlier try wrote: pages that this one has not written are zero all the same."""
        first, last = offset // PAGE_BYTES, -(-(offset + len(into)) // PAGE_BYTES)
        for number in (first + np.flatnonzero(~self._written[block][first:last])).tolist():
            start, end = max(0, number * PAGE_BYTES - offset), min(len(into), (number + 1) * PAGE_BYTES - offset)
            into[start:end] = bytes(end - start)

    def blank(self, block: int, offset: int, size_bytes: int) -> bool:
        """Whether all of this is zero because nothing else was ever written there, or zeros were written last."""
        first, last = offset // PAGE_BYTES, -(-(offset + size_bytes) // PAGE_BYTES)
        return not self._written[block][first:last].any()

    def vmcoreinfo(self) -> tuple[tuple[int, int], ...]:
        """Pages that begin with an ELF note called VMCOREINFO, as they are now: block and page number, ascending."""
        start = bytearray(_NOTE_NAME_AT + len(_NOTE_NAME))
        found = []
        for block, number in sorted(self._notes):
            self.read(block, number * PAGE_BYTES, memoryview(start))
            if int.from_bytes(start[:4], "little") == len(_NOTE_NAME) and start.endswith(_NOTE_NAME):
                found.append((block, number))
        return tuple(found)

    @property
    def _room(self) -> _Store:
        if self._store is None:
            raise ValueError("the spool has no blocks yet, or was closed")
        return self._store


class _Store(Protocol):
    """All blocks one behind the other, zero at first."""

    def put(self, numbers: NDArray[np.int64], content: NDArray[np.uint8]) -> None:
        """Write pages; ``numbers`` ascend."""

    def read(self, offset: int, into: memoryview) -> None:
        """Fill ``into`` from ``offset`` on."""

    def close(self) -> None:
        """Give the room back."""


class _Memory:
    """Anonymous memory. Not in any core dump.

    In huge pages where much of one comes at once: half of the time of a pass would else go into page faults. Not everywhere: of
    a guest that wrote here and there they would keep far more than it wrote.
    """

    def __init__(self, size_bytes: int) -> None:
        self._map = mmap.mmap(-1, size_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with contextlib.suppress(OSError):  # a kernel without huge pages
            self._map.madvise(mmap.MADV_NOHUGEPAGE)
        self._map.madvise(mmap.MADV_DONTDUMP)
        self._pages = np.frombuffer(self._map, np.uint8).reshape(-1, PAGE_BYTES)
        self._first = self._pages.ctypes.data % HUGE_BYTES // PAGE_BYTES  # where in a huge page the memory begins
        self._touched = np.zeros((self._first + len(self._pages)) // _HUGE_PAGES + 1, np.bool_)

    def _choose_pages(self, numbers: NDArray[np.int64]) -> None:
        """What is touched for the first time becomes huge pages where enough of one is."""
        places = numbers + self._first
        huge, counts = np.unique(places // _HUGE_PAGES, return_counts=True)
        much = counts >= MUCH_PAGES
        much[-1] |= counts[-1] == places[-1] % _HUGE_PAGES + 1  # all of it so far: it goes on with what comes next
        chosen = huge[much & ~self._touched[huge]]
        self._touched[huge] = True
        for number in chosen.tolist():
            start = (number * _HUGE_PAGES - self._first) * PAGE_BYTES
            if start >= 0:
                with contextlib.suppress(OSError):  # the same
                    self._map.madvise(mmap.MADV_HUGEPAGE, start, min(HUGE_BYTES, len(self._map) - start))

    def put(self, numbers: NDArray[np.int64], content: NDArray[np.uint8]) -> None:
        self._choose_pages(numbers)
        first, last = int(numbers[0]), int(numbers[-1])
        if last - first == len(numbers) - 1:
            self._pages[first : last + 1] = content
        else:
            self._pages[numbers] = content

    def read(self, offset: int, into: memoryview) -> None:
        into[:] = memoryview(self._map)[offset : offset + len(into)]

    def close(self) -> None:
        del self._pages  # which holds on to the map
        self._map.close()


class _File:
    """A file without a name: whatever ends this process, the file is gone with it."""

    def __init__(self, folder: Path, size_bytes: int) -> None:
        self._folder = folder
        self._size_bytes = 0
        self._descriptor = _unnamed_file(folder)
        try:
            self.reserve(size_bytes)
        except BaseException:
            self.close()
            raise

    def reserve(self, size_bytes: int) -> None:
        """Have room for so many bytes in all. Raises ``NoSpace`` or ``DumpDirUnusable``."""
        if size_bytes > self._size_bytes:
            reserve(self._descriptor, self._folder, size_bytes, already_bytes=self._size_bytes)
            self._size_bytes = size_bytes

    def put(self, numbers: NDArray[np.int64], content: NDArray[np.uint8]) -> None:
        """Raises ``NoSpace`` or ``DumpDirUnusable``."""
        ends = np.flatnonzero(np.diff(numbers) != 1) + 1
        began = 0
        try:
            for end in (*ends.tolist(), len(numbers)):
                for at in range(began, end, _IOV_MOST):
                    rows = content[at : min(at + _IOV_MOST, end)]
                    self._write([np.ascontiguousarray(row).data for row in rows], int(numbers[at]) * PAGE_BYTES)
                began = end
        except OSError as error:
            raise self._as_ours(error, self._size_bytes) from error

    def _write(self, pages: list[memoryview], offset: int) -> None:
        written = os.pwritev(self._descriptor, pages, offset)
        if written < len(pages) * PAGE_BYTES:  # a signal, or the last of the room: the next call tells which
            rest = memoryview(b"".join(pages))[written:]
            while rest:
                done = os.pwrite(self._descriptor, rest, offset + len(pages) * PAGE_BYTES - len(rest))
                rest = rest[done:]

    def read(self, offset: int, into: memoryview) -> None:
        """Raises ``DumpDirUnusable`` if the disk cannot be read."""
        while into:
            try:
                count = os.preadv(self._descriptor, [into], offset)
            except OSError as error:
                raise self._as_ours(error, self._size_bytes) from error
            if not count:
                raise ValueError(f"the spool has nothing at {offset}")
            into, offset = into[count:], offset + count

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _as_ours(self, error: OSError, size_bytes: int) -> CaptureError:
        if error.errno in FULL | {errno.EFBIG}:
            return NoSpace(str(self._folder), size_bytes, free_bytes(self._folder))
        return _unusable(self._folder, error)


def _unnamed_file(folder: Path) -> int:
    """Open for reading and writing, mode 0600. Raises ``DumpDirUnusable``."""
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        try:
            return os.open(folder, flags | os.O_TMPFILE | os.O_EXCL, 0o600)
        except OSError as error:
            if error.errno not in _NO_TMPFILE:
                raise
        path = folder / f".spool-{secrets.token_hex(8)}"
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        path.unlink()
        return descriptor
    except OSError as error:
        raise _unusable(folder, error) from error


def _unusable(folder: Path, error: OSError) -> DumpDirUnusable:
    return DumpDirUnusable(f"Memory cannot be spooled to {folder}: {error.strerror}.", guest=RUNS_ON)
