"""Scenes for faults: one whose libvirt nobody harms, shared by a module, and one where everything may be harmed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from demo import Guest, PrivateLibvirt
from tests.conftest import shared
from tests.faults.scene import Scene, Visit, staged
from tests.lab import WEB

IDLE = Guest(name="vm-idle-01", memory_mib=512, boots=False)
"""Its firmware finds nothing to boot and waits for ever: a guest that runs within half a second."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, lab: PrivateLibvirt) -> Iterator[Scene]:
    """A service over the guests that everybody shares; one dump at a time."""
    with staged(tmp_path_factory.mktemp("scene"), lab, WEB, MEMDUMP_MAX_CONCURRENT_DUMPS="1") as made:
        yield made


@pytest.fixture
async def visit(scene: Scene) -> AsyncIterator[Visit]:
    """Somebody who speaks to ``scene``'s service."""
    async with scene.visit() as visitor:
        yield visitor


@pytest.fixture(scope="module")
def own_scene(tmp_path_factory: pytest.TempPathFactory, module_lab: PrivateLibvirt) -> Iterator[Scene]:
    """A libvirt, a running guest and a service for this module alone: its tests harm any of them, and leave them well."""
    add_running(module_lab, IDLE)
    with staged(tmp_path_factory.mktemp("own_scene"), module_lab, IDLE) as made, shared(made.service):
        yield made


def add_running(lab: PrivateLibvirt, guest: Guest) -> None:
    """Add a guest that does not boot, and let it run."""
    lab.add(guest)
    with lab.connection() as connection:
        connection.lookupByName(guest.name).resume()
