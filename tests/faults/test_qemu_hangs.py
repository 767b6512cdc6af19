"""A QEMU that hangs harms its own VM, and no other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from demo import Guest
from tests.contract.speech import TRIGGER
from tests.faults.conftest import IDLE, add_running
from tests.faults.processes import Process, eventually
from tests.faults.scene import ACTIVITY, Scene
from tests.qemu.foreign import foreign_dump
from tests.thorough import thorough

OTHER = Guest(name="vm-idle-02", memory_mib=128, boots=False)
HYPERVISOR_TROUBLE = {"hypervisor-not-responding", "hypervisor-unreachable"}


@pytest.fixture(scope="module")
def beside(own_scene: Scene) -> Guest:
    """Another guest of ``own_scene``."""
    add_running(own_scene.lab, OTHER)
    return OTHER


@pytest.fixture
def qemu(own_scene: Scene, beside: Guest) -> Iterator[Process]:
    """The QEMU of ``own_scene``'s guest; ``beside`` it another guest runs."""
    process = Process(own_scene.lab.qemu_pid(IDLE.name))
    yield process
    process.close()


@thorough
async def test_guest_whose_qemu_hangs_in_a_dump_is_refused_by_name_and_others_are_dumped(own_scene: Scene, qemu: Process) -> None:
    async with own_scene.visit() as visit:
        with foreign_dump(own_scene.lab, IDLE):
            qemu.stop()
            for _ in range(2):  # while the first question is not answered no other is asked
                problem = await visit.api.trigger(IDLE.name, OTHER.name, status=409)
                (fault,) = problem["errors"]
                assert (fault["vm_id"], fault["code"]) == (IDLE.name, "vm-not-responding")
                assert IDLE.name in fault["detail"]
                assert "QEMU" in fault["detail"]
            (job,) = await visit.api.dump(OTHER.name)
            assert (job["phase"], job["error"]) == ("completed", None)
            scheduled = await visit.api.post(TRIGGER, {"all": True}, 202)
            assert [each["dom"] for each in scheduled["jobs"]] == [OTHER.name]
            assert (await visit.end_of(scheduled["jobs"][0]["job_id"]))["phase"] == "completed"
            told = (await visit.api.get(ACTIVITY))["activity"]
            assert not HYPERVISOR_TROUBLE & {line["code"] for line in told if line["kind"] == "error"}
            assert any(line["code"] == "vm-not-responding" and IDLE.name in line["message"] for line in told)
            qemu.go_on()
        eventually(lambda: own_scene.virsh("domstate", IDLE.name) == "running", f"{IDLE.name} runs")
        eventually(lambda: not own_scene.has_job(), "its dump has ended")
        await visit.assert_dump_succeeds()
        await visit.assert_all_is_well()


@thorough
async def test_dump_whose_qemu_hangs_keeps_no_other_guest_from_being_dumped(own_scene: Scene, qemu: Process) -> None:
    own_scene.service.stop()
    own_scene.service.restart(MEMDUMP_DUMP_TIMEOUT_SEC="5")
    async with own_scene.visit() as visit:
        async with visit.held("capturing") as (job_id, process):
            eventually(lambda: own_scene.virsh("domstate", IDLE.name) == "paused", "the dump has begun")
            qemu.stop()
            process.go_on()
            job = await visit.end_of(job_id)
        assert (job["phase"], job["error"]["code"]) == ("failed", "timed-out")
        (other,) = await visit.api.dump(OTHER.name)
        assert (other["phase"], other["error"]) == ("completed", None)
        (vm,) = [each for each in (await visit.api.get("/api/telemetry/live-vms"))["vms"] if each["name"] == IDLE.name]
        assert IDLE.name in vm["alarm"]
        assert "QEMU" in vm["alarm"]
        assert not HYPERVISOR_TROUBLE & {
            line["code"] for line in (await visit.api.get(ACTIVITY))["activity"] if line["kind"] == "error"
        }
        qemu.go_on()
        await visit.feed.until(lambda message: message["type"] == "vms" and all(each["alarm"] is None for each in message["vms"]))
        await visit.assert_all_is_well()
        await visit.assert_dump_succeeds()
