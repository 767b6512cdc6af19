"""Scenes for faults in a live capture: the service captures live, and no other way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from demo import PrivateLibvirt
from tests.conftest import shared
from tests.faults.conftest import IDLE, add_running
from tests.faults.live.support import DOWNTIME_MS, WITH_DISK
from tests.faults.scene import Scene, staged
from tests.lab import COUNTING, WEB, add_ready


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, module_lab: PrivateLibvirt) -> Iterator[Scene]:
    """A libvirt, a guest and a service for this module alone: its tests harm any of them, and leave them well."""
    add_running(module_lab, IDLE)
    with staged(tmp_path_factory.mktemp("scene"), module_lab, IDLE, MEMDUMP_MODE="live") as made, shared(made.service):
        made.virsh("migrate-setmaxdowntime", IDLE.name, str(DOWNTIME_MS))
        yield made


@pytest.fixture
def booted(tmp_path: Path, own_lab: PrivateLibvirt) -> Iterator[Scene]:
    """For one test alone, with a guest whose memory does not fit into the pipe: QEMU cannot have ended with it while nobody
    reads."""
    add_ready(own_lab, WEB)
    with staged(tmp_path, own_lab, WEB, MEMDUMP_MODE="live") as made:
        yield made


@pytest.fixture
def counting(tmp_path: Path, own_lab: PrivateLibvirt) -> Iterator[Scene]:
    """For one test alone, with a guest of which can be seen whether it runs, without libvirt."""
    add_ready(own_lab, COUNTING)
    with staged(tmp_path, own_lab, COUNTING, MEMDUMP_MODE="live") as made:
        yield made


@pytest.fixture
def with_disk(tmp_path: Path, own_lab: PrivateLibvirt) -> Iterator[Scene]:
    add_running(own_lab, WITH_DISK)
    with staged(tmp_path, own_lab, WITH_DISK, MEMDUMP_MODE="live") as made:
        yield made
