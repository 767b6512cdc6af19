"""What has to hold after a fault in a live capture, and how that is seen."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from app.downtime import SUFFIX
from demo import Guest
from tests.faults.by_hand import fifo_folders
from tests.faults.processes import below, eventually
from tests.faults.scene import Scene, Visit

WITH_DISK = Guest(name="vm-disk-01", memory_mib=512, boots=False, disk=True)

DOWNTIME_MS = 4321
"""What the guest's owner had set."""


async def assert_recovered(scene: Scene) -> None:
    """libvirtd answers again: the service does for the guest what its capture could not, and nothing is left."""
    async with scene.visit() as visit:
        eventually(lambda: not notes(scene), "the downtime is put back")
        await visit.assert_all_is_well()
        await visit.assert_dump_succeeds()


async def assert_all_is_well(visit: Visit) -> None:
    await visit.assert_all_is_well()
    assert downtime_ms(visit.scene) == DOWNTIME_MS
    await visit.assert_dump_succeeds()
    assert not [path for path in below(visit.scene.lab.folder) if path.name == ".spool-memory"]


async def beside(work: Callable[[], object]) -> None:
    """``work`` on a thread that ends with it."""
    with ThreadPoolExecutor(1) as thread:
        await asyncio.get_running_loop().run_in_executor(thread, work)


def assert_runs(qemu_pid: int, for_sec: float) -> None:
    """Its virtual CPUs have computed for so long, from now on."""
    until = _computed_sec(qemu_pid) + for_sec
    eventually(lambda: _computed_sec(qemu_pid) >= until, "the guest runs")


def _computed_sec(qemu_pid: int) -> float:
    """utime and stime of the threads of its virtual CPUs (proc(5))."""
    ticks = 0
    for task in Path(f"/proc/{qemu_pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # another thread, that ends at this moment
            if (task / "comm").read_text().startswith("CPU "):
                ticks += sum(map(int, (task / "stat").read_text().rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def fifos(scene: Scene) -> list[Path]:
    return [folder for folder in fifo_folders(scene) if folder.is_dir()]


def downtime_ms(scene: Scene) -> int:
    """Asked without the domain's job lock; 0 while libvirt cannot say."""
    command = ["virsh", "--quiet", "--connect", scene.lab.uri, "migrate-getmaxdowntime", scene.guest.name]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=40)
    return int(ran.stdout) if ran.returncode == 0 else 0


def promises_are_kept(scene: Scene) -> bool:
    """The service has done for its guest what a dead capture could not, and the note of it is gone."""
    return downtime_ms(scene) == DOWNTIME_MS and not notes(scene)


def notes(scene: Scene) -> list[Path]:
    return [path for path in below(scene.lab.folder / "run") if path.name.endswith(SUFFIX)]
