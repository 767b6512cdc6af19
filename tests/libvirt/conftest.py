"""libvirt's test driver inside a libvirtd of the test's own: domains that every connection to that daemon shares.

So a test changes them by one connection while a service, a process of its own, sees them by another; and the daemon can
be stopped, killed and started again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import libvirt
import pytest

from demo import PrivateLibvirt


class Daemon:
    """A libvirtd with the test driver's default domain, ``test``, in it."""

    def __init__(self, lab: PrivateLibvirt) -> None:
        self.lab = lab
        self.uri = f"test+unix:///default?socket={lab.folder}/run/libvirt/libvirt-sock"

    @contextlib.contextmanager
    def connection(self) -> Iterator[libvirt.virConnect]:
        """A connection of one's own."""
        connection = libvirt.open(self.uri)
        try:
            yield connection
        finally:
            connection.close()


@pytest.fixture
def daemon(own_lab: PrivateLibvirt) -> Daemon:
    return Daemon(own_lab)
