"""Somebody else's work on a guest: a dump by virsh that takes as long as the test wants."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
from collections.abc import Iterator

from demo import Guest, PrivateLibvirt

_BEGINS_SEC = 30.0


@contextlib.contextmanager
def foreign_dump(lab: PrivateLibvirt, guest: Guest) -> Iterator[None]:
    """``virsh dump --memory-only`` into a FIFO that nobody empties, under way; it fails at the end of the block."""
    fifo, owner = lab.folder / "guests" / "foreign", lab.folder.stat()
    os.mkfifo(fifo, 0o600)
    os.chown(fifo, owner.st_uid, owner.st_gid)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    command = ["virsh", "--connect", lab.uri, "dump", "--memory-only", guest.name, str(fifo)]
    virsh = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert select.select([reader], [], [], _BEGINS_SEC)[0], "the foreign dump did not begin"
        yield
    finally:
        os.close(reader)
        fifo.unlink()
        virsh.wait(_BEGINS_SEC)
