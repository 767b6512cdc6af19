"""libvirtd hangs, dies, comes back, is not there yet; QEMU hangs or dies: the service says so, and gets over it by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from demo import Guest, PrivateLibvirt
from tests.contract.speech import JOBS, Api, Message
from tests.faults.conftest import IDLE, add_running
from tests.faults.processes import Process, eventually
from tests.faults.scene import Scene, Visit, memdump, staged
from tests.lab import COLD
from tests.service import running_service
from tests.thorough import thorough

NOTICED_SEC = 15.0
"""Keepalive asks every 3 s, and gives up after the second question without an answer."""


@pytest.fixture
def libvirtd(own_scene: Scene) -> Iterator[Process]:
    """The daemon of ``own_scene``."""
    process = Process(own_scene.lab.libvirtd_pid)
    yield process
    process.close()


async def test_daemon_that_hangs_is_told_and_answers_come_from_what_is_known(own_scene: Scene, libvirtd: Process) -> None:
    async with own_scene.visit() as visit:
        known = await visit.api.get("/api/telemetry/live-vms")
        libvirtd.stop()
        status = await _hypervisor(visit, lambda state: state != "connected")
        assert status["state"] == "not-responding"
        assert status["message"]
        assert await visit.api.get("/api/telemetry/live-vms") == known
        assert (await visit.api.get("/api/memory-dumps/records"))["records"] == [own_scene.earlier]
        problem = await visit.api.trigger(IDLE.name, status=503)
        assert problem["code"] == "hypervisor-not-responding"
        page = await _page(visit.api)
        assert IDLE.name in page
        assert own_scene.lab.uri in page
        libvirtd.go_on()
        await _hypervisor(visit, lambda state: state == "connected")
        await visit.assert_all_is_well()
        await visit.assert_dump_succeeds()


async def test_daemon_that_hangs_for_a_while_in_a_capture_costs_nothing_but_time(own_scene: Scene, libvirtd: Process) -> None:
    async with own_scene.visit() as visit:
        async with visit.held("capturing") as (job_id, process):
            eventually(lambda: own_scene.virsh("domstate", IDLE.name) == "paused", "the dump has begun")
            libvirtd.stop()
            process.go_on()
            await visit.feed.until(lambda message: message["type"] == "progress" and message["bytes_done"] > 0)
            assert (await visit.api.get(f"{JOBS}/{job_id}"))["phase"] == "capturing"
            libvirtd.go_on()
            job = await visit.end_of(job_id)
        assert (job["phase"], job["error"]) == ("completed", None)
        await visit.assert_all_is_well()


async def test_daemon_that_is_killed_in_a_capture_never_leaves_a_dump_and_the_guest_runs_on(own_scene: Scene) -> None:
    own_scene.lab.add(COLD)
    async with own_scene.visit() as visit:
        async with visit.held("capturing") as (job_id, process):
            before = own_scene.dumps()
            own_scene.lab.kill_libvirtd()
            process.go_on()
            job = await visit.end_of(job_id)
        assert (job["phase"], job["error"]["code"]) == ("failed", "hypervisor-unreachable")
        await visit.assert_told(job, "hypervisor-unreachable")
        assert own_scene.dumps() == before
        own_scene.lab.restart_libvirtd()
    async with own_scene.visit() as visit:
        await _connected(visit.api)
        vms = (await visit.api.get("/api/telemetry/live-vms"))["vms"]
        assert {vm["name"]: vm["state"] for vm in vms} == {IDLE.name: "running", COLD.name: "paused"}
        await visit.assert_all_is_well()
        await visit.assert_dump_succeeds()


async def test_service_that_starts_before_libvirt_finds_it_by_itself(own_lab: PrivateLibvirt, tmp_path: Path) -> None:
    own_lab.add(COLD)
    own_lab.kill_libvirtd()
    with running_service(tmp_path, LIBVIRT_URI=own_lab.uri, MEMDUMP_MODE="paused") as service:
        async with Api.of(service) as api, api.feed() as feed:
            snapshot = await feed.next()
            assert snapshot["vms"] == []
            assert (await api.trigger(COLD.name, status=503))["code"] == "hypervisor-unreachable"
            own_lab.restart_libvirtd()
            vms = (await feed.until(lambda message: message["type"] == "vms"))[-1]["vms"]
            assert [vm["name"] for vm in vms] == [COLD.name]
            (job,) = await api.dump(COLD.name)
    assert job["phase"] == "completed"


async def test_guest_that_is_killed_in_a_capture_is_told_to_be_gone(own_scene: Scene) -> None:
    qemu = Process(own_scene.lab.qemu_pid(IDLE.name))
    async with own_scene.visit() as visit:
        async with visit.held("capturing") as (job_id, process):
            qemu.kill()
            process.go_on()
            job = await visit.end_of(job_id)
        qemu.close()
        assert (job["phase"], job["error"]["code"]) == ("failed", "guest-gone")
        await visit.assert_told(job, "guest-gone")
        assert (await visit.api.trigger(IDLE.name, status=409))["errors"][0]["code"] == "vm-not-running"
        own_scene.virsh("start", IDLE.name)
        await visit.feed.until(_is_running(IDLE))
        await visit.assert_all_is_well()
        await visit.assert_dump_succeeds()


@thorough
async def test_guest_that_hangs_lets_its_capture_time_out(own_lab: PrivateLibvirt, tmp_path: Path) -> None:
    add_running(own_lab, IDLE)
    qemu = Process(own_lab.qemu_pid(IDLE.name))
    with staged(tmp_path, own_lab, IDLE, MEMDUMP_DUMP_TIMEOUT_SEC="1") as scene:
        async with scene.visit() as visit:
            async with visit.held("preparing") as (job_id, process):
                qemu.stop()
                process.go_on()
                job = await visit.end_of(job_id)
            qemu.close()
            assert (job["phase"], job["error"]["code"]) == ("failed", "timed-out")
            await visit.assert_told(job, "timed-out")
            await visit.assert_all_is_well()
            assert memdump(scene.service.environment, "--timeout-sec=0", IDLE.name).returncode == 0


@pytest.mark.deep
async def test_guest_that_hangs_while_its_memory_is_read_lets_its_capture_time_out(own_lab: PrivateLibvirt, tmp_path: Path) -> None:
    add_running(own_lab, IDLE)
    qemu = Process(own_lab.qemu_pid(IDLE.name))
    with staged(tmp_path, own_lab, IDLE, MEMDUMP_DUMP_TIMEOUT_SEC="1") as scene:
        async with scene.visit() as visit:
            async with visit.held("capturing") as (job_id, process):
                eventually(lambda: scene.virsh("domstate", IDLE.name) == "paused", "the dump has begun")
                qemu.stop()
                process.go_on()
                job = await visit.end_of(job_id)
            qemu.close()
            await visit.assert_told(job, "timed-out")
            assert "could not be seen" in " ".join(job["warnings"])
            await visit.assert_all_is_well()
            assert memdump(scene.service.environment, "--timeout-sec=0", IDLE.name).returncode == 0


@pytest.mark.deep
async def test_capture_process_that_hangs_beyond_its_time_is_killed(own_lab: PrivateLibvirt, tmp_path: Path) -> None:
    add_running(own_lab, IDLE)
    with staged(tmp_path, own_lab, IDLE, MEMDUMP_DUMP_TIMEOUT_SEC="1") as scene:
        async with scene.visit() as visit:
            async with visit.held("capturing") as (job_id, process):
                async with asyncio.timeout(40):
                    job = await visit.end_of(job_id)
                assert process.ended(0)
            assert (job["phase"], job["error"]["code"]) == ("failed", "timed-out")
            await visit.assert_told(job, "timed-out")
            await visit.assert_all_is_well()


async def _hypervisor(visit: Visit, fits: Callable[[str], bool]) -> Message:
    """The first status of the hypervisor that fits, as the feed tells it, within bounds."""
    async with asyncio.timeout(NOTICED_SEC):
        heard = await visit.feed.until(lambda message: message["type"] == "hypervisor" and fits(message["hypervisor"]["state"]))
    status: Message = heard[-1]["hypervisor"]
    return status


async def _connected(api: Api) -> None:
    async with asyncio.timeout(NOTICED_SEC), api.feed("topics=hypervisor") as feed:
        message = await feed.next()
        while message["hypervisor"]["state"] != "connected":
            message = await feed.next()


async def _page(api: Api) -> str:
    """The first page, as somebody logged in sees it."""
    async with api.session.get("/memory-dumps") as answer:
        assert answer.status == 200
        return await answer.text()


def _is_running(guest: Guest) -> Callable[[Message], bool]:
    def fits(message: Message) -> bool:
        return message["type"] == "vms" and any(vm["name"] == guest.name and vm["state"] == "running" for vm in message["vms"])

    return fits
