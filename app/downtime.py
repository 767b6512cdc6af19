"""The downtime that a live capture sets for a domain, and the promise to put back what was there before.

libvirt keeps a domain's maximum downtime for as long as the domain runs, and a later migration would use ours. So before it
is changed, the old value is written into a note at the rendezvous, locked while its capture lives. The note goes when the
value is back and the guest was seen to run on; one that nobody locks belongs to a capture that died, or could not see to
that. Whoever puts its value back (the service, or the next live capture of the guest, which takes the note over) holds its
lock until the note is gone: so the value never comes back in the middle of another capture. Of several notes for one run of
a domain the oldest has what its owner had set, so it is the last to go.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from app.evidence import sync_folder
from app.fifo import FOLDER_PREFIX, Rendezvous

SUFFIX = ".downtime"

_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC
_LONGEST_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Downtime:
    """The longest stop that a migration of the domain may cause, in milliseconds. It goes with the run of the domain, which
    ``libvirt_id`` names: one that was started anew has libvirt's default again, and nothing is owed to it."""

    uuid: str
    libvirt_id: int | None
    downtime_ms: int


@dataclass(frozen=True, slots=True)
class _Note:
    """A note on disk, and its descriptor, which is locked."""

    path: Path
    lock: int
    content: Downtime


class Promise:
    """Every note of one run of a domain, oldest first, locked by this process. End it with ``kept`` or ``broken``."""

    def __init__(self, notes: Iterable[_Note]) -> None:
        """Use ``promise``, ``take_over`` or ``broken_promises``."""
        self._notes = tuple(notes)
        self.before = self._notes[0].content

    def kept(self) -> None:
        """The old value is back: the notes go. One that cannot be removed is kept once more by whoever finds it."""
        with contextlib.suppress(OSError):
            for note in reversed(self._notes):
                note.path.unlink(missing_ok=True)
        self.broken()

    def broken(self) -> None:
        """The old value could not be put back: the notes stay for whoever can."""
        for note in self._notes:
            os.close(note.lock)


def promise(where: Rendezvous, capture_id: str, before: Downtime) -> Promise:
    """Write ``before`` down, durably. Raises ``OSError``; then no note is left."""
    path = where.directory / f"{FOLDER_PREFIX}{capture_id}{SUFFIX}"
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | _FLAGS, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _stands(path, lock):  # else whoever looks for broken promises was quicker, and removed it: again
                os.write(lock, msgspec.json.encode(before))
                os.fsync(lock)
                sync_folder(where.directory)
                return Promise([_Note(path, lock, before)])
        except BaseException:
            path.unlink(missing_ok=True)
            os.close(lock)
            raise
        os.close(lock)


def take_over(where: Rendezvous, uuid: str, libvirt_id: int | None) -> Promise | None:
    """What dead captures still owe this run of the domain; None if nothing. What they owed to another run is dropped.

    Blocks while somebody else puts a value back. For a capture that is alone with its guest.
    """
    notes = []
    for path in _paths(where):
        content = _peek(path)  # never waits for a note of another guest, whose capture may take long
        if content is not None and content.uuid == uuid and (note := _take(path, fcntl.LOCK_EX)) is not None:
            notes.append(note)
    _drop(note for note in notes if note.content.libvirt_id != libvirt_id)
    owed = [note for note in notes if note.content.libvirt_id == libvirt_id]
    return Promise(owed) if owed else None


def broken_promises(where: Rendezvous) -> list[Promise]:
    """The promises of dead captures, one for each run of a domain. Each has to be ended. Never blocks.

    A note that cannot be read was not whole, so nothing had been changed yet: it is removed. While somebody else holds a
    note, the later ones of its domain are left alone: a later one may have noted a value of ours.
    """
    owed: dict[tuple[str, int | None], list[_Note]] = {}
    held: set[str] = set()
    for path in _paths(where):
        content = _peek(path)
        if content is not None and content.uuid in held:
            continue
        note = _take(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if note is not None:
            owed.setdefault((note.content.uuid, note.content.libvirt_id), []).append(note)
        elif content is not None:
            held.add(content.uuid)
    return [Promise(notes) for notes in owed.values()]


def _paths(where: Rendezvous) -> list[Path]:
    """Of every note, oldest first: a capture's id begins with its time."""
    return sorted(where.directory.glob(f"{FOLDER_PREFIX}*{SUFFIX}"))


def _peek(path: Path) -> Downtime | None:
    """What a note says, whoever holds it; None if it is gone or not whole (yet)."""
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        lock = os.open(path, os.O_RDONLY | _FLAGS)
        try:
            return _content(lock)
        finally:
            os.close(lock)
    return None


def _take(path: Path, how: int) -> _Note | None:
    """A note, locked; None if it is gone, or (``LOCK_NB``) somebody holds it. One that is not whole is removed."""
    try:
        lock = os.open(path, os.O_RDONLY | _FLAGS)
    except OSError:
        return None
    with contextlib.suppress(OSError):
        fcntl.flock(lock, how)
        if _stands(path, lock):
            try:
                return _Note(path, lock, _content(lock))
            except msgspec.MsgspecError:
                path.unlink(missing_ok=True)
    os.close(lock)
    return None


def _content(lock: int) -> Downtime:
    return msgspec.json.decode(os.pread(lock, _LONGEST_BYTES, 0), type=Downtime)


def _stands(path: Path, lock: int) -> bool:
    """Whether ``path`` still names the file that was locked: its holder may have removed it while the lock was waited for."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(lock), path.lstat())
    return False


def _drop(notes: Iterable[_Note]) -> None:
    for note in notes:
        with contextlib.suppress(OSError):
            note.path.unlink(missing_ok=True)
        os.close(note.lock)
