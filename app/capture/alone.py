"""One capture of a guest at a time, whoever makes it: two would take each other's downtime, stops and disk locks for theirs."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from app.errors import DomainBusy
from app.fifo import Rendezvous
from app.model import Domain


@contextmanager
def alone(where: Rendezvous, domain: Domain) -> Iterator[None]:
    """Hold the guest's name at its rendezvous. Raises ``DomainBusy`` if another capture has it.

    The name is that of an abstract socket (``unix(7)``): the kernel gives it to one process at a time and takes it back
    however that ends, and nothing of it is in any folder. Such names are those of one network namespace: captures in another
    one (the service in a container, the command line outside of it) are not seen, nor are those with another rendezvous.
    That is bearable: libvirt's own lock lets no two dumps of a guest run at once, and each capture looks for a foreign job
    before it begins. Should two begin in the same moment all the same, no image is harmed, but the later one may take the
    other's downtime for the owner's and put that back, and count the other's stop as its own.
    """
    place = hashlib.sha256(os.fsencode(where.directory)).hexdigest()[:32]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as name:
        try:
            name.bind(f"\0memory-dumps/{place}/{domain.uuid}")
        except OSError:
            raise DomainBusy(domain.name, "a dump by another capture process") from None
        yield
