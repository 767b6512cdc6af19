"""QEMU's locks on a disk image, taken by another program the moment that the guest's own QEMU gives them up.

QEMU locks single bytes of an image for an open file description (``block/file-posix.c``): byte 100 + n is held shared by
whoever uses permission n, byte 200 + n by whoever does not let others use it. A QEMU that writes wants byte 201 for itself:
nobody else may hold byte 101 (permission 1 is to write). It gives all that up when a live dump ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from pathlib import Path

from tests.faults.processes import eventually

_FLOCK = struct.Struct("@hhqqi4x")  # struct flock: type, whence, start, length, pid
_OTHERS_WRITE = 101
_NOBODY_ELSE_WRITES = 201


class ImageLock:
    """Another program's hold on an image."""

    def __init__(self, image: Path) -> None:
        self._file = os.open(image, os.O_RDWR | os.O_CLOEXEC)

    def queue(self, thread: Executor) -> Future[None]:
        """Wait in the kernel's own queue, on ``thread``: the lock is ours the instant that QEMU lets go, however busy the machine
        is. Returns when it stands there: whoever came later would find that QEMU has taken it back."""
        taken = thread.submit(self._take_when_it_is_free)
        eventually(lambda: self._waits() or taken.done(), "the lock is waited for")
        return taken

    def _waits(self) -> bool:
        """Whether the kernel has somebody who waits for that byte of the image (proc_locks(5))."""
        wanted = f":{os.fstat(self._file).st_ino} {_NOBODY_ELSE_WRITES} {_NOBODY_ELSE_WRITES}"
        return any("->" in line and line.endswith(wanted) for line in Path("/proc/locks").read_text().splitlines())

    def _take_when_it_is_free(self) -> None:
        fcntl.fcntl(self._file, fcntl.F_OFD_SETLKW, _lock(fcntl.F_WRLCK, _NOBODY_ELSE_WRITES))
        fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, _lock(fcntl.F_RDLCK, _OTHERS_WRITE))

    def let_go(self) -> None:
        """As if the program had ended."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _lock(kind: int, byte: int) -> bytes:
    return _FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0)


@contextlib.contextmanager
def image_lock(image: Path) -> Iterator[ImageLock]:
    """A program that may take the lock of ``image``; it has let go when the block ends."""
    lock = ImageLock(image)
    try:
        yield lock
    finally:
        lock.let_go()
