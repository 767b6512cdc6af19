"""Faults in a live capture: what happens to its guest meanwhile, by others or by time."""

from __future__ import annotations

import asyncio
import contextlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.model import from_rfc3339
from demo import PrivateLibvirt
from tests.contract.speech import JOBS, RECORDS, Message
from tests.faults.conftest import IDLE, add_running
from tests.faults.imagelock import image_lock
from tests.faults.live.support import (
    DOWNTIME_MS,
    WITH_DISK,
    assert_all_is_well,
    beside,
    downtime_ms,
    fifos,
    promises_are_kept,
)
from tests.faults.processes import Process, eventually
from tests.faults.scene import Scene, Visit, memdump, staged
from tests.lab import COUNTING, WEB, add_ready
from tests.qemu.listener import hearing
from tests.thorough import thorough

pytestmark = thorough

ALARM_SEC = 120.0

NOTICED_SEC = 20.0

VMS = "/api/telemetry/live-vms"


async def test_stop_by_something_else_in_mid_capture_is_told_and_not_taken_for_the_capture_s_own(counting: Scene) -> None:
    async with counting.visit() as visit:
        with hearing(counting.lab.uri, COUNTING.name) as listener:
            async with visit.held("capturing") as (job_id, process):
                for command in ("stop", "cont"):
                    counting.virsh("qemu-monitor-command", COUNTING.name, json.dumps({"execute": command}))
                process.go_on()
                job = await visit.end_of(job_id)
            events = listener.heard()[-4:]
        assert (job["phase"], job["error"]) == ("completed", None)
        assert [name for name, _ in events] == ["STOP", "RESUME", "STOP", "RESUME"]
        record = await visit.api.get(f"{RECORDS}/{job['dump_id']}")
        stopped_at, resumed_at = events[2][1], events[3][1]
        assert from_rfc3339(record["captured_at"]).timestamp() == pytest.approx(stopped_at, abs=0.001)
        assert record["guest_pauses_ms"] == [pytest.approx((resumed_at - stopped_at) * 1000, abs=0.01)]
        assert record["warnings"] == [f"{COUNTING.name} was also stopped by something else while it was captured."]
        await visit.assert_all_is_well()


async def test_killed_guest_is_told_to_be_gone(booted: Scene) -> None:
    with contextlib.closing(Process(booted.lab.qemu_pid(WEB.name))) as qemu:
        async with booted.visit() as visit:
            async with visit.held("capturing") as (job_id, process):
                qemu.kill()
                process.go_on()
                job = await visit.end_of(job_id)
            await _assert_gone_and_back(visit, job)


async def test_guest_that_is_switched_off_is_told_to_be_gone(booted: Scene) -> None:
    async with booted.visit() as visit:
        async with visit.held("capturing") as (job_id, process):
            booted.virsh("destroy", WEB.name)
            process.go_on()
            job = await visit.end_of(job_id)
        await _assert_gone_and_back(visit, job)


async def test_guest_that_starts_anew_in_mid_capture_is_captured_all_the_same(scene: Scene) -> None:
    async with scene.visit() as visit:
        async with visit.held("capturing") as (job_id, process):
            scene.virsh("qemu-monitor-command", IDLE.name, '{"execute": "system_reset"}')
            process.go_on()
            job = await visit.end_of(job_id)
        assert (job["phase"], job["error"], job["warnings"]) == ("completed", None, [])
        await assert_all_is_well(visit)


async def test_capture_that_takes_too_long_leaves_nothing(tmp_path: Path, own_lab: PrivateLibvirt) -> None:
    add_running(own_lab, IDLE)
    with staged(tmp_path, own_lab, IDLE, MEMDUMP_MODE="live", MEMDUMP_DUMP_TIMEOUT_SEC="1") as scene:
        scene.virsh("migrate-setmaxdowntime", IDLE.name, str(DOWNTIME_MS))
        qemu = Process(own_lab.qemu_pid(IDLE.name))
        async with scene.visit() as visit:
            async with visit.held("preparing") as (job_id, process):
                qemu.stop()
                process.go_on()
                job = await visit.end_of(job_id)
            qemu.close()
            assert (job["phase"], job["error"]["code"]) == ("failed", "timed-out")
            await visit.assert_all_is_well()
            eventually(lambda: downtime_ms(scene) == DOWNTIME_MS, "the downtime is what it was")


async def test_capture_whose_time_ends_in_mid_stream_leaves_nothing(tmp_path: Path, own_lab: PrivateLibvirt) -> None:
    add_ready(own_lab, WEB)
    with staged(tmp_path, own_lab, WEB, MEMDUMP_MODE="live", MEMDUMP_DUMP_TIMEOUT_SEC="2") as scene:
        scene.virsh("migrate-setmaxdowntime", WEB.name, str(DOWNTIME_MS))
        with contextlib.closing(Process(own_lab.qemu_pid(WEB.name))) as qemu:
            async with scene.visit() as visit:
                async with visit.held("capturing") as (job_id, process):
                    qemu.stop()
                    process.go_on()
                    eventually(lambda: not fifos(scene), "the dump is broken off")
                    qemu.go_on()
                    job = await visit.end_of(job_id)
                assert (job["phase"], job["error"]["code"]) == ("failed", "timed-out")
                await visit.assert_told(job, "timed-out")
                eventually(lambda: promises_are_kept(scene), "the downtime is put back")
                await visit.assert_all_is_well()
            assert memdump(scene.service.environment, "--timeout-sec=0", WEB.name).returncode == 0


async def test_guest_that_somebody_suspends_in_mid_capture_is_captured_and_stays_suspended(booted: Scene) -> None:
    """libvirt makes the suspension wait for the dump."""
    async with booted.visit() as visit:
        async with visit.held("capturing") as (job_id, process):
            suspension = asyncio.create_task(beside(lambda: booted.virsh("suspend", WEB.name)))
            process.go_on()
            job = await visit.end_of(job_id)
            await suspension
        assert (job["phase"], job["error"]) == ("completed", None)
        assert booted.virsh("domstate", "--reason", WEB.name) == "paused (user)"
        assert not any("was resumed" in warning for warning in job["warnings"])
        booted.virsh("resume", WEB.name)
        await visit.assert_all_is_well()
        await visit.assert_dump_succeeds()


async def test_guest_whose_image_was_held_is_resumed_once_it_is_free(with_disk: Scene) -> None:
    async with with_disk.visit() as visit:
        with image_lock(_image(with_disk)) as lock, ThreadPoolExecutor(1) as thread:
            taken = asyncio.wrap_future(lock.queue(thread))
            job_id = await visit.start()
            await taken
            await visit.reaches(job_id, "sealing")
            assert with_disk.virsh("domstate", WITH_DISK.name) == "paused"
        job = await visit.end_of(job_id)
        assert (job["phase"], job["error"]) == ("completed", None)
        assert "was resumed" in " ".join(job["warnings"])
        await visit.assert_all_is_well()


@pytest.mark.deep
async def test_guest_that_cannot_be_resumed_is_an_alarm_until_it_runs(with_disk: Scene) -> None:
    with image_lock(_image(with_disk)) as lock, ThreadPoolExecutor(1) as thread:
        async with with_disk.visit() as visit, asyncio.timeout(ALARM_SEC):
            taken = asyncio.wrap_future(lock.queue(thread))
            job_id = await visit.start()
            await taken
            while not (alarm := _alarm(await visit.feed.socket.receive_json())):
                pass
            assert WITH_DISK.name in alarm
            while not _completed(await visit.feed.socket.receive_json(), job_id):  # a minute of silence, while it is tried
                pass
            job = await visit.api.get(f"{JOBS}/{job_id}")
            assert "stands still" in " ".join(job["warnings"])
            await _assert_page_alarms(visit)
        assert with_disk.service.stop() == 0
        with_disk.service.restart()
        async with with_disk.visit() as visit:
            assert (await visit.api.get(VMS))["vms"][0]["alarm"]
            await _assert_page_alarms(visit)
            lock.let_go()
            async with asyncio.timeout(NOTICED_SEC):
                await visit.feed.until(lambda message: message["type"] == "vms" and _alarm(message) is None)
            await visit.assert_all_is_well()


async def _assert_gone_and_back(visit: Visit, job: Message) -> None:
    assert (job["phase"], job["error"]["code"]) == ("failed", "guest-gone")
    await visit.assert_told(job, "guest-gone")
    visit.scene.virsh("start", WEB.name)
    await visit.feed.until(
        lambda message: (
            message["type"] == "vms" and any(vm["name"] == WEB.name and vm["state"] == "running" for vm in message["vms"])
        )
    )
    await visit.assert_all_is_well()
    await visit.assert_dump_succeeds()


async def _assert_page_alarms(visit: Visit) -> None:
    async with visit.api.session.get("/memory-dumps") as answer:
        page = await answer.text()
    banner = page.partition('id="alarms"')[2].partition("<template")[0]
    assert WITH_DISK.name in banner


def _alarm(message: Message) -> str | None:
    """The alarm in a ``vms`` message."""
    if message["type"] != "vms":
        return None
    alarm: str | None = message["vms"][0]["alarm"]
    return alarm


def _completed(message: Message, job_id: str) -> bool:
    job = message["job"] if message["type"] == "job" else {}
    return (job.get("job_id"), job.get("phase")) == (job_id, "completed")


def _image(scene: Scene) -> Path:
    return scene.lab.folder / "guests" / f"{scene.guest.name}.disk"
