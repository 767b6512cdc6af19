"""DUMP_DIR is missing, no folder, read-only or too small: each dump says so before its guest is touched."""

from __future__ import annotations

import contextlib
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo import PrivateLibvirt
from tests.contract.speech import Message
from tests.faults.scene import Scene, Visit, staged
from tests.lab import COLD, DB, WEB
from tests.qemu.listener import hearing
from tests.root import needs_root
from tests.thorough import thorough

SLACK_BYTES = 64 << 20
"""What a dump reserves beyond the guest's memory, and a 256th of it."""


@contextlib.contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """Something mounted on ``folder``; needs root."""
    subprocess.run(["mount", *options, str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def scene(tmp_path: Path, lab: PrivateLibvirt) -> Iterator[Scene]:
    """A service for one test alone."""
    with staged(tmp_path, lab, WEB) as made:
        yield made


async def test_missing_folder(scene: Scene) -> None:
    away = scene.service.dump_dir.rename(scene.service.dump_dir.with_name("away"))
    async with scene.visit() as visit:
        await _assert_fails_untouched(visit, "dump-dir-unusable")
        away.rename(scene.service.dump_dir)
        await visit.assert_all_is_well()
        await visit.assert_dump_succeeds()


@thorough
async def test_file_in_the_folders_place(scene: Scene) -> None:
    away = scene.service.dump_dir.rename(scene.service.dump_dir.with_name("away"))
    scene.service.dump_dir.write_text("not a folder")
    async with scene.visit() as visit:
        await _assert_fails_untouched(visit, "dump-dir-unusable")
        scene.service.dump_dir.unlink()
        away.rename(scene.service.dump_dir)
        await visit.assert_all_is_well()


@needs_root
async def test_read_only_file_system(scene: Scene) -> None:
    async with scene.visit() as visit:
        with mounted(scene.service.dump_dir, "--bind", "-o", "ro", str(scene.service.dump_dir)):
            await _assert_fails_untouched(visit, "dump-dir-unusable")
            await visit.assert_all_is_well()
        await visit.assert_dump_succeeds()


@needs_root
async def test_file_system_that_is_too_small(scene: Scene) -> None:
    async with scene.visit() as visit:
        with mounted(scene.service.dump_dir, "-t", "tmpfs", "-o", f"size={WEB.memory_mib}m", "none"):
            job = await _assert_fails_untouched(visit, "no-space")
            assert str(scene.service.dump_dir) in job["error"]["message"]
            assert list(scene.service.dump_dir.iterdir()) == []
        await visit.assert_all_is_well()


@thorough
async def test_files_that_may_not_become_so_large(scene: Scene) -> None:
    limit = WEB.memory_mib << 20
    resource.prlimit(scene.service.process.pid, resource.RLIMIT_FSIZE, (limit, limit))
    async with scene.visit() as visit:
        await _assert_fails_untouched(visit, "no-space")
        await visit.assert_all_is_well()


@needs_root
async def test_room_is_promised_only_once(scene: Scene) -> None:
    """Each of two dumps would fit, both do not."""
    room = (WEB.memory_mib << 20) + (DB.memory_mib << 20) + SLACK_BYTES
    async with scene.visit() as visit:
        with mounted(scene.service.dump_dir, "-t", "tmpfs", "-o", f"size={room}", "none"):
            async with visit.held("capturing", WEB) as (first, _process):
                second = await visit.end_of(await visit.start(DB))
            assert (second["phase"], second["error"]["code"]) == ("failed", "no-space")
            await visit.assert_told(second, "no-space")
            assert (await visit.end_of(first))["phase"] == "completed"
            assert (await visit.end_of(await visit.start(DB)))["phase"] == "completed"
            scene.assert_nothing_is_left()


@thorough
@needs_root
async def test_disk_that_fills_up_by_others_costs_no_dump_that_was_promised_its_room(scene: Scene) -> None:
    async with scene.visit() as visit:
        room_mib = COLD.memory_mib * 8  # for a dump of each try that could not be held, as well
        with mounted(scene.service.dump_dir, "-t", "tmpfs", "-o", f"size={room_mib}m", "none"):
            async with visit.held("capturing", COLD, compression="none") as (job_id, _process):
                fill(scene.service.dump_dir / "of somebody else")
            assert (await visit.end_of(job_id))["phase"] == "completed"
            (scene.service.dump_dir / "of somebody else").unlink()
            scene.assert_nothing_is_left()


async def _assert_fails_untouched(visit: Visit, code: str) -> Message:
    """A dump fails with that code, in words, and QEMU never stopped its guest."""
    with hearing(visit.scene.lab.uri, visit.scene.guest.name) as listener:
        job = await visit.end_of(await visit.start())
        assert (job["phase"], job["error"]["code"]) == ("failed", code)
        await visit.assert_told(job, code)
        assert listener.heard() == []
    return job


def fill(path: Path) -> None:
    """Write until nothing more fits."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(bytes(1 << 20)):
            pass
