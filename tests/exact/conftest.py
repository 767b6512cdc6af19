"""Guests of many shapes, each for one test, in one private libvirt."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from app.capture.connection import connect
from app.capture.patience import Patience
from demo import Guest, PrivateLibvirt
from tests.lab import running_lab

Stand = Callable[[Guest], None]
"""Starts a guest and returns when it stands still."""


@pytest.fixture(scope="package")
def shapes() -> Iterator[PrivateLibvirt]:
    """A private libvirt for guests that are thrown away."""
    with running_lab() as lab:
        connect(lab.uri, Patience()).close()  # starts libvirt's event loop, whose thread stays as long as the process
        yield lab


@pytest.fixture
def stand(shapes: PrivateLibvirt) -> Iterator[Stand]:
    """Guests that stand still: suspended when Linux is up in them, or never started. They end with the test."""
    names = []

    def start(guest: Guest) -> None:
        names.append(guest.name)
        shapes.add(guest)
        if guest.boots:
            shapes.wait_ready(guest.name)
            with shapes.connection() as connection:
                connection.lookupByName(guest.name).suspend()

    yield start
    with shapes.connection() as connection:
        for name in names:
            connection.lookupByName(name).destroy()
