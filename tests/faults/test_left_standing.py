"""A guest that another program keeps from going on after its dump: what is said of it at once, and at whatever end of its job."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.evidence import PARTIAL
from demo import Guest, PrivateLibvirt
from tests.contract.speech import JOBS, Message
from tests.faults.by_hand import by_hand, left_by_captures
from tests.faults.conftest import add_running
from tests.faults.imagelock import ImageLock, image_lock
from tests.faults.processes import Process, eventually
from tests.faults.scene import ACTIVITY, Scene, Visit, capture_process, staged
from tests.thorough import thorough

pytestmark = thorough

WITH_DISK = Guest(name="vm-disk-01", memory_mib=512, boots=False, disk=True)
VMS = "/api/telemetry/live-vms"
SOON_SEC = 30.0
"""From the alarm on. Less than the minute for which a capture tries to resume its guest."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, module_lab: PrivateLibvirt) -> Iterator[Scene]:
    add_running(module_lab, WITH_DISK)
    with staged(tmp_path_factory.mktemp("scene"), module_lab, WITH_DISK, MEMDUMP_MODE="live") as made:
        yield made


@contextlib.asynccontextmanager
async def standing(visit: Visit) -> AsyncIterator[tuple[str, Process, ImageLock]]:
    """A job whose guest has made its last stop and cannot go on, because its image is held; the alarm is there."""
    image = visit.scene.lab.folder / "guests" / f"{WITH_DISK.name}.disk"
    with image_lock(image) as lock, ThreadPoolExecutor(1) as thread:
        taken = asyncio.wrap_future(lock.queue(thread))
        job_id = await visit.start()
        with capture_process(visit.scene.service, WITH_DISK) as process:
            await taken
            await visit.feed.until(_alarms)
            async with asyncio.timeout(SOON_SEC):
                yield job_id, process, lock


async def test_guest_that_stands_still_is_an_alarm_on_the_page_and_in_its_job_at_once(scene: Scene) -> None:
    async with scene.visit() as visit:
        async with standing(visit) as (job_id, _process, lock):
            job = await visit.api.get(f"{JOBS}/{job_id}")
            assert (job["phase"], len(job["warnings"])) == ("sealing", 1)
            assert "stands still" in job["warnings"][0]
            lock.let_go()
            await visit.feed.until(_no_alarm)
        job = await visit.end_of(job_id)
        assert (job["phase"], job["error"]) == ("completed", None)
        await visit.assert_all_is_well()


@pytest.mark.parametrize("how", ["cancelled", "killed"])
async def test_end_of_a_job_whose_guest_stands_still_says_so_until_it_runs(scene: Scene, how: str) -> None:
    async with scene.visit() as visit:
        async with standing(visit) as (job_id, process, lock):
            if how == "cancelled":
                await visit.api.post(f"{JOBS}/{job_id}/cancel")
            else:
                process.kill()
            job = await visit.end_of(job_id)
            assert (job["phase"], job["error"]["code"]) == (
                ("cancelled", "cancelled") if how == "cancelled" else ("failed", "capture-died")
            )
            assert "runs on" not in job["error"]["message"]
            assert "stands still" in job["error"]["message"]
            assert (await visit.api.get(VMS))["vms"][0]["alarm"]
            said = [line["message"] for line in (await visit.api.get(ACTIVITY))["activity"] if line["job_id"] == job_id]
            assert not any("runs on" in message for message in said)
            lock.let_go()
            await visit.feed.until(_no_alarm)
        await visit.assert_all_is_well()
        await visit.assert_dump_succeeds()


async def test_guest_that_a_capture_by_hand_leaves_standing_is_an_alarm_of_the_service_until_it_runs(scene: Scene) -> None:
    image = scene.lab.folder / "guests" / f"{WITH_DISK.name}.disk"
    async with scene.visit() as visit:
        with image_lock(image) as lock, ThreadPoolExecutor(2) as threads:
            taken = asyncio.wrap_future(lock.queue(threads))
            with by_hand(scene, "--mode", "live") as capture:
                warned = asyncio.wrap_future(threads.submit(capture.until, "warning"))
                await taken
                assert "stands still" in (await warned)["message"]
            await visit.feed.until(_alarms)
            lock.let_go()
            await visit.feed.until(_no_alarm)
        eventually(lambda: not [path for path in left_by_captures(scene) if path.name.endswith(PARTIAL)], "nothing is left of it")
        await visit.assert_all_is_well()
        await visit.assert_dump_succeeds()


async def test_guest_that_is_destroyed_while_it_stands_still_is_no_alarm(scene: Scene) -> None:
    async with scene.visit() as visit:
        async with standing(visit) as (job_id, _process, _lock):
            scene.virsh("destroy", WITH_DISK.name)
            job = await visit.end_of(job_id)
        assert job["phase"] == "completed"
        assert len(job["warnings"]) == 1
        (vm,) = (await visit.api.get(VMS))["vms"]
        assert (vm["state"], vm["alarm"]) == ("shutoff", None)
        scene.virsh("start", WITH_DISK.name)
        await visit.feed.until(_no_alarm)


def _alarms(message: Message) -> bool:
    return message["type"] == "vms" and message["vms"][0]["alarm"] is not None


def _no_alarm(message: Message) -> bool:
    return message["type"] == "vms" and message["vms"][0]["alarm"] is None and message["vms"][0]["state"] == "running"
