"""One capture of a guest at a time, whoever makes it: two would take each other's downtime, stops and disk locks for theirs."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from app.errors import DomainBusy, DumpDirUnusable
from app.fifo import FOLDER_PREFIX, Rendezvous
from app.model import Domain


@contextmanager
def alone(where: Rendezvous, domain: Domain) -> Iterator[None]:
    """Hold the guest's lock at the rendezvous. Raises ``DomainBusy`` if another capture has it, ``DumpDirUnusable``."""
    path = where.directory / f"{FOLDER_PREFIX}{domain.uuid}.lock"
    while True:
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            text = f"Nothing can be written to {where.directory}: {error.strerror}. The guest was not touched."
            raise DumpDirUnusable(text) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock), path.stat()):
                break
        except BlockingIOError:
            os.close(lock)
            raise DomainBusy(domain.name, "a dump by another capture process") from None
        except FileNotFoundError:  # whoever had it has just removed it
            pass
        os.close(lock)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(lock)
