"""Faults in a live capture: its own processes are killed or cancelled, or find no room."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from demo import Guest, PrivateLibvirt, Shape
from tests.contract.speech import JOBS
from tests.faults.by_hand import by_hand
from tests.faults.conftest import IDLE, add_running
from tests.faults.live.support import DOWNTIME_MS, assert_all_is_well, downtime_ms, promises_are_kept
from tests.faults.processes import PATIENCE_SEC, Process, eventually
from tests.faults.scene import PHASES, Scene, Visit, capture_process, staged
from tests.faults.test_dump_dir import SLACK_BYTES, fill, mounted
from tests.qemu.listener import hearing
from tests.root import needs_root
from tests.thorough import once, thorough

MUCH_VIDEO = Guest(name="vm-video-01", memory_mib=128, boots=False, shape=Shape(video="qxl"))
"""It has as much memory for its screen as for the rest."""


@pytest.mark.parametrize("phase", once(PHASES, "capturing"))
async def test_killed_capture_process_leaves_nothing(scene: Scene, phase: str) -> None:
    async with scene.visit() as visit:
        async with visit.held(phase) as (job_id, process):
            process.kill()
            job = await visit.end_of(job_id)
        assert (job["phase"], job["error"]["code"]) == ("failed", "capture-died")
        await visit.assert_told(job, "capture-died")
        await assert_all_is_well(visit)


@pytest.mark.parametrize("phase", once(PHASES, "capturing"))
async def test_cancelled_capture_leaves_nothing(scene: Scene, phase: str) -> None:
    async with scene.visit() as visit:
        async with visit.held(phase) as (job_id, process):
            await visit.api.post(f"{JOBS}/{job_id}/cancel")
            process.go_on()
            job = await visit.end_of(job_id)
        assert (job["phase"], job["error"]["code"]) == ("cancelled", "cancelled")
        await assert_all_is_well(visit)


@thorough
@pytest.mark.parametrize("both", [False, True], ids=["service", "service and capture process"])
async def test_killed_service_leaves_nothing_once_it_runs_again(scene: Scene, both: bool) -> None:
    async with scene.visit() as visit, visit.held("capturing") as (job_id, process):
        eventually(lambda: downtime_ms(scene) != DOWNTIME_MS, "the capture has set a downtime")
        scene.service.kill()
        if both:
            process.kill()
        process.go_on()
        assert process.ended(10)
    scene.service.restart()
    async with scene.visit() as visit:
        job = await visit.api.get(f"{JOBS}/{job_id}")
        assert job["phase"] == "interrupted"
        eventually(lambda: promises_are_kept(scene), "the downtime is put back")
        await assert_all_is_well(visit)


@thorough
async def test_second_capture_by_hand_of_a_guest_that_is_being_captured_is_refused(booted: Scene) -> None:
    with by_hand(booted, "--mode=live") as first:
        first.until("phase", "capturing")
        with contextlib.closing(Process(first.process.pid)) as process:
            process.stop()
            with by_hand(booted, "--mode=live") as second:
                assert second.until("failed")["code"] == "domain-busy"
                assert second.process.wait(PATIENCE_SEC) == 4
        first.until("sealed")
        assert first.process.wait(PATIENCE_SEC) == 0
    booted.assert_nothing_is_left()


@thorough
@needs_root
async def test_no_room_for_the_spool_is_told_before_the_guest_is_touched(tmp_path: Path, own_lab: PrivateLibvirt) -> None:
    add_running(own_lab, IDLE)
    room_for_the_dump = (IDLE.memory_mib << 20) + (IDLE.memory_mib << 12) + 2 * SLACK_BYTES
    with staged(tmp_path, own_lab, IDLE, MEMDUMP_MODE="live", MEMDUMP_SPOOL_MEMORY="1M") as scene:
        async with scene.visit() as visit:
            with (
                mounted(scene.service.dump_dir, "-t", "tmpfs", "-o", f"size={room_for_the_dump}", "none"),
                hearing(own_lab.uri, IDLE.name) as listener,
            ):
                job = await visit.end_of(await visit.start())
                assert (job["phase"], job["error"]["code"]) == ("failed", "no-space")
                assert listener.heard() == []
                assert list(scene.service.dump_dir.iterdir()) == []
            await visit.assert_all_is_well()
            await visit.assert_dump_succeeds()


@thorough
@needs_root
async def test_disk_that_fills_up_by_others_costs_no_live_dump_whose_spool_was_promised_its_room(
    tmp_path: Path, own_lab: PrivateLibvirt
) -> None:
    async with _spool_on_small_disk(tmp_path, own_lab, IDLE) as visit:
        async with visit.held("capturing") as (job_id, process):
            eventually(lambda: _has_file_without_name(process.pid), "the spool is on disk")
            fill(visit.scene.service.dump_dir / "of somebody else")
        job = await visit.end_of(job_id)
        assert (job["phase"], job["error"], job["warnings"]) == ("completed", None, [])
        visit.scene.assert_nothing_is_left()


@needs_root
async def test_disk_that_is_full_in_mid_capture_ends_it_and_leaves_nothing(tmp_path: Path, own_lab: PrivateLibvirt) -> None:
    """What the guest has beside its memory comes to light when QEMU lists it, and is more than was foreseen."""
    async with _spool_on_small_disk(tmp_path, own_lab, MUCH_VIDEO) as visit:
        job_id = await visit.start()
        assert await visit.reaches(job_id, "capturing") == "capturing"
        job = await visit.end_of(job_id)
        assert (job["phase"], job["error"]["code"]) == ("failed", "no-space")
        await visit.assert_told(job, "no-space")
        assert list(visit.scene.service.dump_dir.iterdir()) == []
        visit.scene.assert_nothing_is_left()
        eventually(lambda: promises_are_kept(visit.scene), "the downtime is put back")


@contextlib.asynccontextmanager
async def _spool_on_small_disk(folder: Path, lab: PrivateLibvirt, guest: Guest) -> AsyncIterator[Visit]:
    """A disk with room for a dump of ``guest`` and for its spool, as both are foreseen, and for little more."""
    add_running(lab, guest)
    foreseen = 2 * (guest.memory_mib << 20) + (guest.memory_mib << 12) + 2 * SLACK_BYTES
    with staged(folder, lab, guest, MEMDUMP_MODE="live", MEMDUMP_SPOOL_MEMORY="1M") as scene:
        scene.virsh("migrate-setmaxdowntime", guest.name, str(DOWNTIME_MS))
        async with scene.visit() as visit:
            with mounted(scene.service.dump_dir, "-t", "tmpfs", "-o", f"size={foreseen + (16 << 20)}", "none"):
                yield visit
            await visit.assert_dump_succeeds()


@thorough
async def test_captures_share_the_memory_for_spools(tmp_path: Path, own_lab: PrivateLibvirt) -> None:
    """It is enough for one of two."""
    other = Guest(name="vm-idle-02", memory_mib=512, boots=False)
    for guest in (IDLE, other):
        add_running(own_lab, guest)
    with staged(tmp_path, own_lab, IDLE, MEMDUMP_MODE="live", MEMDUMP_SPOOL_MEMORY="900M") as scene:
        async with scene.visit() as visit:
            async with visit.held("capturing") as (first, _one):
                second = await visit.start(other)
                with capture_process(scene.service, other) as process:
                    eventually(lambda: _has_file_without_name(process.pid), "the second spool is on disk")
                    assert not _has_file_without_name(_one.pid)
                    assert (await visit.end_of(second))["phase"] == "completed"
            assert (await visit.end_of(first))["phase"] == "completed"
            await visit.assert_all_is_well()
            await visit.assert_dump_succeeds()


def _has_file_without_name(pid: int) -> bool:
    """Whether the process has a file open in no folder (``O_TMPFILE``)."""
    with contextlib.suppress(OSError):
        return any(str(entry.readlink()).endswith("(deleted)") for entry in Path(f"/proc/{pid}/fd").iterdir())
    return False
