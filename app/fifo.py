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
    own socket.
    """
    socket = parse_qs(urlsplit(uri).query).get("socket")
    if socket:
        with contextlib.suppress(OSError):
            owner = Path(socket[0]).stat().st_uid
            if owner != os.geteuid():
                return Rendezvous(Path(socket[0]).parent, owner)
    return Rendezvous(dump_dir, None)


def make_fifo(where: Rendezvous, capture_id: str) -> Path:
    """A FIFO, mode 0600, in a folder of its own, mode 0700. Returns the folder; the FIFO is ``PIPE_NAME`` in it.

    Raises ``OSError``.
    """
    folder = where.directory / f"{FOLDER_PREFIX}{capture_id}"
    folder.mkdir(mode=0o700)
    try:
        os.mkfifo(folder / PIPE_NAME, mode=0o600)
        if where.owner is not None:
            os.chown(folder / PIPE_NAME, where.owner, -1)
            os.chown(folder, where.owner, -1)
    except OSError:
        drop_fifo(folder)
        raise
    return folder


def drop_fifo(folder: Path) -> None:
    """Take the FIFO away so that nobody blocks on it. Blocks for 200 ms; harmless if it is gone already.

    A regular file in the FIFO's place, made by a libvirtd that came too late, goes too: it is never evidence.
    """
    pipe = folder / PIPE_NAME
    reader: int | None = None
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            pipe.unlink()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            folder.rmdir()
        if reader is not None:
            time.sleep(_GRACE_SEC)
    finally:
        if reader is not None:
            os.close(reader)


def fifo_folders(where: Rendezvous) -> list[Path]:
    """Every capture's folder that stands at the rendezvous, oldest name first."""
    try:
        return sorted(path for path in where.directory.glob(f"{FOLDER_PREFIX}*") if path.is_dir() and not path.is_symlink())
    except OSError:
        return []
