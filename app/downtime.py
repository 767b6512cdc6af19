"""The downtime that a live capture sets for a domain, and the promise to put back what was there before.

libvirt keeps a domain's maximum downtime for as long as the domain runs, and a later migration would use ours. So before
it is changed, the old value is written into a file at the rendezvous, locked while its capture lives. A note that nobody
locks belongs to a capture that died: the service puts the value back and removes the note.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from app.fifo import FOLDER_PREFIX, Rendezvous

SUFFIX = ".downtime"


@dataclass(frozen=True, slots=True)
class Downtime:
    """The longest stop that a migration of the domain may cause, in milliseconds."""

    uuid: str
    downtime_ms: int


class Promise:
    """A note on disk, locked by this process."""

    def __init__(self, where: Rendezvous, capture_id: str, before: Downtime) -> None:
        """Write it, durably. Raises ``OSError``."""
        self._path = where.directory / f"{FOLDER_PREFIX}{capture_id}{SUFFIX}"
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.open(self._path, flags, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(self._file, msgspec.json.encode(before))
            os.fsync(self._file)
        except BaseException:
            os.close(self._file)
            raise

    def kept(self) -> None:
        """The old value is back: the note goes."""
        self._path.unlink(missing_ok=True)
        self.broken()

    def broken(self) -> None:
        """The old value could not be put back: the note stays for whoever can."""
        os.close(self._file)


def broken_promises(where: Rendezvous) -> list[tuple[Path, Downtime]]:
    """The notes of dead captures. One that cannot be read was not whole, so nothing had been changed yet: it is removed."""
    found = []
    for path in sorted(where.directory.glob(f"{FOLDER_PREFIX}*{SUFFIX}")):
        with contextlib.suppress(OSError):
            note = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(note, fcntl.LOCK_EX | fcntl.LOCK_NB)
                found.append((path, msgspec.json.decode(os.read(note, 4096), type=Downtime)))
            except msgspec.MsgspecError:
                path.unlink(missing_ok=True)
            finally:
                os.close(note)
    return found
