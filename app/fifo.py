"""The FIFO through which libvirt hands over guest memory: where it stands, and how it is dropped without harm.

libvirtd opens the FIFO for writing, and blocks in ``open()`` until a reader has it open. Were the reader gone by then,
the guest would stand still and every libvirt client of the host would hang. So whoever drops a FIFO (the capture
process, the service after its child died, reconcile after a crash) opens it for reading first, unlinks it, removes its
folder, and waits a little before it closes: an ``open()`` still to come fails with ENOENT, one that waits gets through
and then SIGPIPE. Unlinking alone would be worse: libvirtd then makes a *regular file* of that name and fills it; with
the folder gone it cannot. (Seen with libvirt 9.0.0.)
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

FOLDER_PREFIX = ".memdump-"
PIPE_NAME = "pipe"
_GRACE_SEC = 0.2


@dataclass(frozen=True, slots=True)
class Rendezvous:
    """A folder that this process and libvirtd both reach. ``owner`` is the uid that must own the FIFO, or None."""

    directory: Path
    owner: int | None


def rendezvous(uri: str, dump_dir: Path) -> Rendezvous:
    """Where the FIFO of a capture over ``uri`` has to stand.

    ``DUMP_DIR``, unless libvirtd runs as another user (``qemu:///session?socket=…`` whose socket belongs to somebody
    else): that user may not reach ``DUMP_DIR`` and refuses a FIFO which is not its own, but reaches the folder of its
    own socket. (libvirtd as root takes everything. The socket of another host is not ours to look at.)
    """
    split = urlsplit(uri)
    socket = parse_qs(split.query).get("socket")
    if socket and not split.netloc:
        with contextlib.suppress(OSError):
            owner = Path(socket[0]).stat().st_uid
            if owner not in (0, os.geteuid()):
                return Rendezvous(Path(socket[0]).parent, owner)
    return Rendezvous(dump_dir, None)


@dataclass(frozen=True, slots=True)
class Fifo:
    """A capture's FIFO. ``folder`` is its own; ``lock`` is a locked descriptor of it that says "my capture lives"."""

    folder: Path
    lock: int

    @property
    def path(self) -> Path:
        return self.folder / PIPE_NAME

    def drop(self, *, settled: bool = False) -> None:
        """``drop_fifo``, and let the lock go. ``settled``: libvirt's call returned, so nobody will open it any more."""
        drop_fifo(self.folder, settled=settled)
        os.close(self.lock)


def make_fifo(where: Rendezvous, capture_id: str) -> Fifo:
    """A FIFO, mode 0600, in a folder of its own, mode 0700, locked while this process lives. Raises ``OSError``."""
    folder = where.directory / f"{FOLDER_PREFIX}{capture_id}"
    lock: int | None = None
    while lock is None:
        folder.mkdir(mode=0o700)
        lock = _lock(folder, fcntl.LOCK_EX)  # whoever looks for abandoned ones was quicker: again
    fifo = Fifo(folder, lock)
    try:
        os.mkfifo(PIPE_NAME, mode=0o600, dir_fd=lock)
        if where.owner is not None:  # in a folder of theirs, who could put another one in the place of ours
            os.chown(PIPE_NAME, where.owner, -1, dir_fd=lock, follow_symlinks=False)
            os.fchown(lock, where.owner, -1)
    except OSError:
        fifo.drop(settled=True)
        raise
    return fifo


def drop_fifo(folder: Path, *, settled: bool = False) -> None:
    """Take the FIFO away so that nobody blocks on it. Blocks for 200 ms unless ``settled``; harmless if it is gone.

    A regular file in the FIFO's place, made by a libvirtd that came too late, goes too: it is never evidence. So does a
    link, but not what it points at.
    """
    pipe = folder / PIPE_NAME
    reader: int | None = None
    try:
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
    try:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            pipe.unlink()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            folder.rmdir()
        if reader is not None and not settled:
            time.sleep(_GRACE_SEC)
    finally:
        if reader is not None:
            os.close(reader)


def drop_abandoned_fifos(where: Rendezvous) -> list[Path]:
    """Drop those at the rendezvous whose capture is dead for certain, because nobody holds their lock; their folders."""
    dropped = []
    try:
        folders = sorted(where.directory.glob(f"{FOLDER_PREFIX}*"))
    except OSError:
        return []
    for folder in folders:
        lock = _lock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if lock is not None:
            try:
                drop_fifo(folder)
            finally:
                os.close(lock)
            dropped.append(folder)
    return dropped


def _lock(folder: Path, how: int) -> int | None:
    """A locked descriptor of ``folder``; None if it is gone, is no folder, or (``LOCK_NB``) somebody holds its lock."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    with contextlib.suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(descriptor, how)
        if os.path.samestat(os.fstat(descriptor), folder.lstat()):
            return descriptor
    os.close(descriptor)
    return None
