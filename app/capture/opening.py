"""Where one dump comes out: a path that libvirt opens for writing, and a descriptor to read it from.

The way in is the same for a libvirtd on this host and for one behind SSH (``remote.py``); ``source.py`` cannot tell them
apart.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import Protocol

from app.capture.guest import Guest
from app.capture.remote import RemoteFifo
from app.capture.sshhost import elsewhere, ssh_host
from app.errors import CaptureFailed, DumpDirUnusable
from app.fifo import Fifo, Rendezvous, make_fifo

_PIPE_BYTES = 1 << 20
_F_SETPIPE_SZ = 1031


class Opening(Protocol):
    """A FIFO that has a reader, so that libvirtd never waits for one."""

    @property
    def path(self) -> str:
        """What libvirt is to open."""

    @property
    def reader(self) -> int:
        """What it writes, and then the end of file; never blocks."""

    def hang_up(self) -> None:
        """Nobody will write any more: the end of file may come."""

    def trouble(self) -> str | None:
        """What broke on the way from there to here, in words; None if nothing did."""

    def drop(self, *, settled: bool) -> None:
        """Take it away so that nobody blocks on it. ``settled``: libvirt's call has ended, so nobody will open it any more."""


def make_opening(guest: Guest, where: Rendezvous, capture_id: str) -> Opening:
    """An opening on the host on which the guest's libvirtd runs. Raises ``CaptureError`` or ``HypervisorError``."""
    uri = str(guest.connection.call(lambda: guest.raw.connect().getURI()))  # what an alias in libvirt.conf stands for
    if (host := ssh_host(uri)) is not None:
        opening: Opening = RemoteFifo.make(uri, host, capture_id, guest.connection.patience)
    elif (host_name := elsewhere(uri)) is not None:
        raise CaptureFailed(
            f"libvirt at {uri} writes a dump on {host_name}, and only over SSH can it be fetched from there. "
            "Use a qemu+ssh:// URI. The guest was not touched."
        )
    else:
        opening = _LocalFifo(where, capture_id)
    with contextlib.suppress(OSError):  # beyond fs.pipe-user-pages-soft the pipe stays small: slower, not wrong
        fcntl.fcntl(opening.reader, _F_SETPIPE_SZ, _PIPE_BYTES)
    return opening


class _LocalFifo:
    """A FIFO on this host."""

    def __init__(self, where: Rendezvous, capture_id: str) -> None:
        """Make it, and open its reading end. Raises ``DumpDirUnusable``."""
        try:
            self._fifo: Fifo = make_fifo(where, capture_id)
        except OSError as error:
            text = f"No FIFO can be made in {where.directory}: {error.strerror}. The guest was not touched."
            raise DumpDirUnusable(text) from error
        try:
            self._reader = os.open(self._fifo.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            self._fifo.drop(settled=True)
            raise DumpDirUnusable(f"The FIFO in {where.directory} cannot be opened: {error.strerror}.") from error

    @property
    def path(self) -> str:
        return str(self._fifo.path)

    @property
    def reader(self) -> int:
        return self._reader

    def hang_up(self) -> None:
        """The kernel says so by itself: without a writer there is nothing but the end of file."""

    def trouble(self) -> str | None:
        """There is nothing in between."""
        return None

    def drop(self, *, settled: bool) -> None:
        os.close(self._reader)
        self._fifo.drop(settled=settled)
