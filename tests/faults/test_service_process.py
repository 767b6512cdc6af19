"""The service is ended or killed while it captures, and started again: nothing is left, nothing is lost, and it says so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.evidence import MANIFEST
from demo import PrivateLibvirt
from tests.conftest import shared
from tests.contract.speech import JOBS, Message
from tests.faults.by_hand import by_hand, fifo_folders
from tests.faults.processes import Process, children_of, eventually
from tests.faults.scene import PHASES, Scene, staged
from tests.lab import DB, WEB
from tests.service import run_app
from tests.thorough import once, thorough

SIGTERM_BIT = 1 << 14


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, lab: PrivateLibvirt) -> Iterator[Scene]:
    """As elsewhere, but each test may end its service, and starts it again."""
    folder = tmp_path_factory.mktemp("scene")
    with staged(folder, lab, WEB, MEMDUMP_MAX_CONCURRENT_DUMPS="1") as made, shared(made.service):
        yield made


@pytest.mark.parametrize("phase", once(PHASES, "capturing"))
async def test_service_that_is_asked_to_end_ends_its_captures(scene: Scene, phase: str) -> None:
    async with scene.visit() as visit, visit.held(phase) as (job_id, process):
        waiting = await visit.start(DB)
        scene.service.process.terminate()
        eventually(lambda: _sigterm_waits_for(process.pid), "the service asks its capture process to end")
        process.go_on()
        assert scene.service.stop() == 0
        assert process.ended(0)
    scene.assert_nothing_is_left()
    scene.service.restart()
    for ended in (job_id, waiting):
        await _assert_interrupted(scene, ended)


@pytest.mark.parametrize("phase", once(PHASES, "sealing"))
async def test_capture_process_ends_with_a_service_that_is_killed(scene: Scene, phase: str) -> None:
    async with scene.visit() as visit, visit.held(phase) as (job_id, process):
        waiting = await visit.start(DB)
        scene.service.kill()
        process.go_on()
        assert process.ended(10)
    scene.service.restart()
    for ended in (job_id, waiting):
        await _assert_interrupted(scene, ended)


async def test_capture_process_that_outlived_its_service_is_ended_by_the_next_start(scene: Scene) -> None:
    async with scene.visit() as visit, visit.held("capturing") as (job_id, process):
        scene.service.kill()
        scene.service.restart()
        assert process.ended(0)
    await _assert_interrupted(scene, job_id)
    assert "capture-process-ended" in scene.service.log_text()


async def test_seal_that_ended_while_its_service_was_dying_gets_its_record(scene: Scene) -> None:
    async with scene.visit() as visit, visit.held("capturing") as (job_id, process):
        before = _manifests(scene)
        service = Process(scene.service.process.pid)
        service.stop()
        process.go_on()
        eventually(lambda: _manifests(scene) - before, "the dump is sealed")
        assert process.ended(10)
        scene.service.kill()
        service.close()
    scene.service.restart()
    job = await _assert_interrupted(scene, job_id)
    (manifest,) = _manifests(scene) - before
    async with scene.visit() as visit:
        record = await visit.api.get(f"/api/memory-dumps/records/{job['dump_id']}")
    assert Path(record["dump_path"] + MANIFEST) == manifest
    assert record["dump_path"] in job["error"]["message"]


@thorough
async def test_dump_that_was_sealed_before_a_kill_keeps_its_job_and_record(scene: Scene) -> None:
    async with scene.visit() as visit:
        job_id = await visit.start()
        job = await visit.end_of(job_id)
        scene.service.kill()
    scene.service.restart()
    async with scene.visit() as visit:
        assert await visit.api.get(f"{JOBS}/{job_id}") == job
        await visit.api.get(f"/api/memory-dumps/records/{job['dump_id']}")
        await visit.assert_all_is_well()


async def test_start_of_the_service_tidies_after_a_killed_capture_by_hand(scene: Scene) -> None:
    with by_hand(scene) as capture:
        capture.until("phase", "capturing")
        process = Process(capture.process.pid)
        process.stop()
        process.kill()
        process.close()
    assert list(scene.service.dump_dir.glob("*.partial"))
    assert fifo_folders(scene)
    assert scene.service.stop() == 0
    scene.service.restart()
    for code in ("fifo-dropped", "partial-removed"):
        assert code in scene.service.log_text()
    async with scene.visit() as visit:
        await visit.assert_all_is_well()


@thorough
async def test_living_capture_by_hand_is_left_alone_by_a_start_of_the_service(scene: Scene) -> None:
    with by_hand(scene) as capture:
        capture.until("phase", "capturing")
        process = Process(capture.process.pid)
        process.stop()
        assert scene.service.stop() == 0
        scene.service.restart()
        process.close()
        sealed = capture.until("sealed")
        assert capture.process.wait(10) == 0
    async with scene.visit() as visit:
        await visit.api.get(f"/api/memory-dumps/records/{sealed['manifest']['dump_id']}")
        await visit.assert_all_is_well()


async def test_second_service_on_the_same_state_does_not_start_and_harms_nothing(scene: Scene) -> None:
    async with scene.visit() as visit:
        async with visit.held("capturing") as (job_id, _process):
            second = run_app(environment={**scene.service.environment, "MEMDUMP_PORT": "0"})
        assert second.returncode == 1
        assert "Ready" not in second.stdout
        assert second.stderr.count("\n") == 1
        assert str(scene.service.state_dir) in second.stderr
        assert (await visit.end_of(job_id))["phase"] == "completed"
        await visit.assert_all_is_well()


@pytest.mark.deep
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("attempt", range(20))
async def test_kill_after_kill_leaves_nothing(scene: Scene, phase: str, attempt: int) -> None:
    async with scene.visit() as visit, visit.held(phase) as (job_id, process):
        scene.service.kill()
        if attempt % 2:
            process.kill()
    scene.service.restart()
    await _assert_interrupted(scene, job_id)


async def _assert_interrupted(scene: Scene, job_id: str) -> Message:
    """The job is interrupted, in words, and all is well."""
    assert set(children_of(scene.service.process.pid)) == set()
    async with scene.visit() as visit:
        job = await visit.api.get(f"{JOBS}/{job_id}")
        assert (job["phase"], job["error"]["code"]) == ("interrupted", "interrupted")
        assert job["error"]["message"]
        await visit.assert_all_is_well()
    return job


def _manifests(scene: Scene) -> set[Path]:
    return set(scene.service.dump_dir.glob(f"*{MANIFEST}"))


def _sigterm_waits_for(pid: int) -> bool:
    """Whether SIGTERM is pending for the process (``ShdPnd``, proc(5)), which stands still and cannot take it."""
    status = Path(f"/proc/{pid}/status").read_text()
    pending = next(line for line in status.splitlines() if line.startswith("ShdPnd:"))
    return bool(int(pending.split()[1], 16) & SIGTERM_BIT)
