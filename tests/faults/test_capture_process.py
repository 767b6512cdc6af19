"""The capture process is killed, hangs, takes too long, is cancelled: the guest runs on, and the service says what happened."""

from __future__ import annotations

import pytest

from app.evidence import PARTIAL
from tests.contract.speech import JOBS
from tests.faults.processes import eventually
from tests.faults.scene import PHASES, Visit, capture_process
from tests.lab import DB
from tests.thorough import once, thorough


@pytest.mark.parametrize("phase", once(PHASES, "sealing"))
async def test_killed_capture_process_fails_its_job_and_leaves_nothing(visit: Visit, phase: str) -> None:
    async with visit.held(phase) as (job_id, process):
        process.kill()
        job = await visit.end_of(job_id)
    assert (job["phase"], job["error"]["code"]) == ("failed", "capture-died")
    await visit.assert_told(job, "capture-died")
    await visit.assert_all_is_well()


@thorough
async def test_capture_process_that_dies_with_its_file_and_before_its_fifo_leaves_nothing(visit: Visit) -> None:
    job_id = await visit.start()
    with capture_process(visit.scene.service, visit.scene.guest) as process:
        eventually(lambda: list(visit.scene.service.dump_dir.glob(f"*{PARTIAL}")), "a partial file")
        process.kill()
        job = await visit.end_of(job_id)
    assert (job["phase"], job["error"]["code"]) == ("failed", "capture-died")
    await visit.assert_all_is_well()


@pytest.mark.parametrize("phase", PHASES)
async def test_cancelled_capture_leaves_nothing(visit: Visit, phase: str) -> None:
    async with visit.held(phase) as (job_id, process):
        await visit.api.post(f"{JOBS}/{job_id}/cancel")
        await visit.api.post(f"{JOBS}/{job_id}/cancel")  # asking again changes nothing
        process.go_on()
        job = await visit.end_of(job_id)
    assert (job["phase"], job["error"]["code"]) == ("cancelled", "cancelled")
    assert job["error"]["message"]
    await visit.assert_all_is_well()


@thorough
async def test_waiting_job_is_cancelled_without_touching_its_guest(visit: Visit) -> None:
    async with visit.held("capturing") as (running, _process):
        waiting = await visit.start(DB)
        await visit.api.post(f"{JOBS}/{waiting}/cancel")
        job = await visit.end_of(waiting)
    assert (job["phase"], job["error"]["code"], job["started_at"]) == ("cancelled", "cancelled", None)
    assert (await visit.end_of(running))["phase"] == "completed"
    await visit.assert_all_is_well()


@pytest.mark.parametrize("end", ["cancelled", "failed"])
async def test_job_that_ended_no_longer_says_that_it_keeps_its_guest(visit: Visit, end: str) -> None:
    job_id = await visit.start()
    with capture_process(visit.scene.service, visit.scene.guest) as process:
        await visit.feed.until(lambda message: message["type"] == "progress" and message["guest_paused"])
        process.stop()
        assert (await visit.api.get(f"{JOBS}/{job_id}"))["progress"]["guest_paused"]
        if end == "failed":
            process.kill()
        else:
            await visit.api.post(f"{JOBS}/{job_id}/cancel")
    job = await visit.end_of(job_id)
    assert (job["phase"], job["progress"]["guest_paused"]) == (end, False)
    assert (await visit.api.get(f"{JOBS}/{job_id}"))["progress"]["guest_paused"] is False
    await visit.assert_all_is_well()


@pytest.mark.deep
@pytest.mark.parametrize("phase", PHASES)
async def test_capture_process_that_does_not_heed_a_cancel_is_killed(visit: Visit, phase: str) -> None:
    async with visit.held(phase) as (job_id, _process):
        await visit.api.post(f"{JOBS}/{job_id}/cancel")
        job = await visit.end_of(job_id)
    assert (job["phase"], job["error"]["code"]) == ("cancelled", "cancelled")
    await visit.assert_all_is_well()


async def test_everything_works_after_all_that(visit: Visit) -> None:
    await visit.assert_dump_succeeds()
    await visit.assert_all_is_well()
