"""Room on a disk: taken before it is needed, so that running captures cannot promise themselves the same room."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from app.errors import DumpDirUnusable, NoSpace
from app.evidence import PARTIAL

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def free_bytes(folder: Path) -> int:
    """What this user may still write in ``folder``'s file system."""
    stat = os.statvfs(folder)
    return stat.f_bavail * stat.f_frsize


def taken_bytes(folder: Path, but: int) -> int:
    """What dumps that are under way have reserved in ``folder``, but the one that ``but`` is the descriptor of."""
    own, taken = os.fstat(but), 0
    for partial in folder.glob(f"*{PARTIAL}"):
        with contextlib.suppress(OSError):  # it ended meanwhile, or is somebody else's
            found = partial.stat()
            if not os.path.samestat(own, found) and _is_locked(partial):
                taken += found.st_blocks * 512
    return taken


def _is_locked(partial: Path) -> bool:
    """Whether a capture that lives is writing there."""
    descriptor = os.open(partial, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def reserve(descriptor: int, folder: Path, size_bytes: int, *, already_bytes: int = 0) -> None:
    """Take room for ``size_bytes`` of an open file in ``folder``, of which ``already_bytes`` are taken.

    What does not fit is not even tried: the kernel would take all that is left before it gives up, and whoever writes to the
    disk in that moment would fail. One capture after the other: of two that look at once, each would take a part of what only one
    can have. Raises ``NoSpace`` or ``DumpDirUnusable``.
    """
    try:
        with _alone_in(folder):
            if size_bytes - already_bytes > free_bytes(folder):
                raise NoSpace(str(folder), size_bytes, free_bytes(folder), taken_bytes(folder, descriptor))
            os.posix_fallocate(descriptor, 0, size_bytes)
    except OSError as error:
        os.ftruncate(descriptor, already_bytes)
        if error.errno in FULL | {errno.EFBIG}:
            raise NoSpace(str(folder), size_bytes, free_bytes(folder), taken_bytes(folder, descriptor)) from error
        raise DumpDirUnusable(f"Room in {folder} cannot be reserved: {error.strerror}. The guest was not touched.") from error


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """No other capture takes room in ``folder`` meanwhile, where its file system can lock a folder (NFS cannot)."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
