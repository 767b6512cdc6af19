"""The program headers that QEMU once wrote for a guest, kept while that guest runs, so that it is stopped for them once.

They stand beside the capture's FIFOs, in one small file a guest, and hold no guest memory. They are for one start of the
domain: one libvirt ID in one boot of this host. For a guest on another host nothing is kept, for its boots are not known here.
What is kept is only a hint: ``layout_from_header`` holds it against the stream, and refuses what does not fit.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from app.capture.elfcore import read_header
from app.capture.guest import Guest
from app.capture.sshhost import ssh_host
from app.errors import StreamMalformed
from app.fifo import FOLDER_PREFIX, Rendezvous

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class KnownHeader:
    """What is kept for one guest."""

    def __init__(self, where: Rendezvous, guest: Guest) -> None:
        self._path = where.directory / f"{FOLDER_PREFIX}{guest.domain.uuid}.header"
        self._start = b""
        if ssh_host(guest.connection.uri) is None:
            with contextlib.suppress(OSError):
                self._start = f"{_BOOT_ID.read_text().strip()} {guest.domain.id}\n".encode()

    def get(self) -> bytes | None:
        """The first bytes of a dump that QEMU wrote in this run of the guest, up to its notes; None if there are none."""
        with contextlib.suppress(OSError):
            content = self._path.read_bytes()
            if self._start and content.startswith(self._start):
                return content[len(self._start) :]
        return None

    def put(self, head: bytes) -> None:
        """Keep the headers that ``head`` begins with. What cannot be kept is asked for again. Raises ``StreamMalformed``."""
        header = read_header(head)
        if not self._start or not header.segments:
            return
        only_headers = head[: min(segment.offset for segment in header.segments)]
        with contextlib.suppress(OSError, StreamMalformed):
            read_header(only_headers)  # they are whole without what follows
            new = self._path.with_name(f"{self._path.name}.new")  # nobody else writes it: a capture is alone with its guest
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(self._start + only_headers)
            new.replace(self._path)
