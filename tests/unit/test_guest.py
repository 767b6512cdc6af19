"""Calls to a libvirt that does not answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import cast

import libvirt
import pytest

from app.capture.guest import Connection
from app.capture.patience import Call, Patience
from app.errors import HypervisorNotResponding


class Broken:
    """A connection that keepalive has given up."""

    def setKeepAlive(self, interval: int, count: int) -> None:  # noqa: N802 - libvirt's name
        pass

    def getType(self) -> str:  # noqa: N802
        return "Test"

    def getHostname(self) -> str:  # noqa: N802
        return "kvm-07"

    def getLibVersion(self) -> int:  # noqa: N802
        return 9_000_000

    def isAlive(self) -> bool:  # noqa: N802
        return False


@pytest.fixture
def forgotten() -> Iterator[Call[bool]]:
    """A call that never ends by itself."""
    over = threading.Event()
    yield Call(over.wait)
    over.set()


@pytest.fixture
def connection() -> Connection:
    return Connection("qemu:///system", cast("libvirt.virConnect", Broken()), Patience())


def test_call_that_a_broken_connection_has_forgotten_is_not_waited_for(connection: Connection, forgotten: Call[bool]) -> None:
    """However patient the capture is."""
    with pytest.raises(HypervisorNotResponding):
        connection.result(forgotten)
    assert not connection.ended_within(forgotten, 3600)


def test_what_a_call_returned_before_the_connection_broke_counts(connection: Connection) -> None:
    assert connection.call(lambda: 7) == 7
