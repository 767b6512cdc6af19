"""A capture that waits for libvirt's job lock, because somebody else's work began just before: the dangerous moment.

libvirtd has not opened the FIFO yet. Were it left without a reader, libvirtd would wait in ``open()`` as soon as the lock
is free, and with it the guest and every client of the host.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest

from tests.contract.speech import JOBS
from tests.faults.by_hand import by_hand, fifo_folders
from tests.faults.processes import Process, eventually
from tests.faults.scene import Scene, Visit, capture_process
from tests.qemu.foreign import foreign_dump
from tests.thorough import thorough

pytestmark = thorough

TRIES = 20


@contextlib.asynccontextmanager
async def waiting_for_the_lock(visit: Visit) -> AsyncIterator[tuple[str, Process]]:
    """A job whose capture process waits for a foreign dump to end, which it does with this block.

    The process is stopped between its look for foreign jobs and its call to libvirt; if it was quicker, once more.
    """
    scene = visit.scene
    for _ in range(TRIES):
        job_id = await visit.start()
        with capture_process(scene.service, scene.guest) as process:
            eventually(lambda: list(scene.service.dump_dir.glob("*.partial")), "a partial file")
            process.stop()
            if not scene.has_job() and scene.virsh("domstate", scene.guest.name) == "running":
                with foreign_dump(scene.lab, scene.guest):
                    process.go_on()
                    await visit.reaches(job_id, "capturing")
                    yield job_id, process
                return
        await visit.end_of(job_id)
    raise AssertionError("no capture could be held before its call to libvirt")


async def test_cancel_while_waiting_for_the_lock(own_scene: Scene) -> None:
    async with own_scene.visit() as visit:
        async with waiting_for_the_lock(visit) as (job_id, _process):
            await visit.api.post(f"{JOBS}/{job_id}/cancel")
            job = await visit.end_of(job_id)
            assert (job["phase"], job["error"]["code"]) == ("cancelled", "cancelled")
            assert fifo_folders(own_scene) == []
            own_scene.virsh("list")
        await visit.assert_all_is_well()
        await visit.assert_dump_succeeds()


async def test_kill_of_the_capture_process_while_waiting_for_the_lock(own_scene: Scene) -> None:
    async with own_scene.visit() as visit:
        async with waiting_for_the_lock(visit) as (job_id, process):
            process.kill()
            job = await visit.end_of(job_id)
            assert (job["phase"], job["error"]["code"]) == ("failed", "capture-died")
            assert fifo_folders(own_scene) == []
            own_scene.virsh("list")
        await visit.assert_all_is_well()
        await visit.assert_dump_succeeds()


async def test_kill_of_service_and_capture_process_while_waiting_for_the_lock(own_scene: Scene) -> None:
    async with own_scene.visit() as visit, waiting_for_the_lock(visit) as (job_id, process):
        own_scene.service.kill()
        process.kill()
    # The lock is free now, and libvirtd waits for a reader that is dead.
    own_scene.service.restart()
    async with own_scene.visit() as visit:
        assert (await visit.api.get(f"{JOBS}/{job_id}"))["phase"] == "interrupted"
        await visit.assert_all_is_well()
        await visit.assert_dump_succeeds()


@pytest.mark.parametrize("how", [pytest.param("SIGTERM", marks=pytest.mark.deep), "SIGKILL"])
async def test_end_of_a_capture_by_hand_while_it_waits_for_the_lock(own_scene: Scene, how: str) -> None:
    with by_hand(own_scene) as capture:
        capture.until("phase", "preparing")
        process = Process(capture.process.pid)
        process.stop()
        with foreign_dump(own_scene.lab, own_scene.guest):
            process.go_on()
            capture.until("phase", "capturing")
            if how == "SIGTERM":
                process.terminate()
                assert capture.until("failed")["code"] == "cancelled"
                assert capture.process.wait(10) == 8
                assert fifo_folders(own_scene) == []
            else:
                process.kill()
        process.close()
    assert own_scene.service.stop() == 0
    own_scene.service.restart()
    async with own_scene.visit() as visit:
        await visit.assert_all_is_well()
        await visit.assert_dump_succeeds()
