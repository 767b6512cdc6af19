"""A guest whose memory is shared, on a host that has not enough for what reading it would take."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo import Guest, PrivateLibvirt, Shape
from tests.faults.conftest import IDLE, add_running
from tests.faults.scene import Scene, staged
from tests.qemu.listener import hearing
from tests.root import needs_root
from tests.service import PROGRAM
from tests.thorough import thorough

SHARED = Guest(name="vm-memfd-01", memory_mib=256, boots=False, shape=Shape(backing="memfd"))
"""Of its memory next to nothing is there until it is read."""

MEMINFO = Path("/proc/meminfo")


class HostMemory:
    """What the kernel says to one service, and to its captures, of the memory that is available."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "meminfo"
        self.says(SHARED.memory_mib // 2)
        self.program = ("unshare", "--mount", "sh", "-c", f'mount --bind "$0" {MEMINFO} && exec "$@"', str(self._file), *PROGRAM)
        """Starts such a service; needs root."""

    def says(self, available_mib: int) -> None:
        """From now on."""
        self._file.write_text(re.sub(r"(?m)^MemAvailable:.*", f"MemAvailable: {available_mib << 10} kB", MEMINFO.read_text()))


@pytest.fixture
def host_memory(tmp_path: Path) -> HostMemory:
    return HostMemory(tmp_path)


@pytest.fixture
def scene(tmp_path: Path, own_lab: PrivateLibvirt, host_memory: HostMemory) -> Iterator[Scene]:
    for guest in (IDLE, SHARED):
        add_running(own_lab, guest)
    with staged(tmp_path, own_lab, IDLE, program=host_memory.program) as made:
        yield made


@thorough
@needs_root
async def test_guest_is_not_read_whose_memory_would_not_fit_beside_what_there_is(scene: Scene, host_memory: HostMemory) -> None:
    async with scene.visit() as visit:
        with hearing(scene.lab.uri, SHARED.name) as listener:
            for mode in ("auto", "live", "paused"):
                job = await visit.end_of(await visit.start(SHARED, mode=mode))
                assert (mode, job["phase"], (job["error"] or {}).get("code")) == (mode, "failed", "host-memory-short")
                await visit.assert_told(job, "host-memory-short")
            assert listener.heard() == []
        await visit.assert_all_is_well()
        await visit.assert_dump_succeeds()  # the memory of this one is its own
        host_memory.says(SHARED.memory_mib * 2)
        assert (await visit.end_of(await visit.start(SHARED)))["phase"] == "completed"
