"""A guest on which libvirt works for somebody else is left alone."""

from __future__ import annotations

from pathlib import Path

from demo import PrivateLibvirt
from tests.contract.speech import TRIGGER, Api
from tests.lab import COLD, DB, WEB
from tests.qemu.foreign import foreign_dump
from tests.qemu.outside import memdump
from tests.service import running_service


async def test_service_refuses_a_guest_that_is_being_dumped_by_somebody_else(lab: PrivateLibvirt, tmp_path: Path) -> None:
    with running_service(tmp_path, LIBVIRT_URI=lab.uri, MEMDUMP_MODE="paused") as service:
        async with Api.of(service) as api:
            await api.connected()
            with foreign_dump(lab, WEB):
                problem = await api.trigger(DB.name, WEB.name, status=409)
                assert (await api.get("/api/memory-dumps/jobs"))["jobs"] == []
                assert list(service.dump_dir.iterdir()) == []
            (job,) = await api.dump(WEB.name)
    assert [(error["vm_id"], error["code"]) for error in problem["errors"]] == [(WEB.name, "domain-busy")]
    assert "dump" in problem["errors"][0]["detail"]
    assert problem["errors"][0]["detail"].startswith(f"{WEB.name} (vmid {WEB.vmid})")
    assert job["phase"] == "completed"


async def test_all_leaves_out_a_guest_that_is_being_dumped_by_somebody_else(lab: PrivateLibvirt, tmp_path: Path) -> None:
    with running_service(tmp_path, LIBVIRT_URI=lab.uri, MEMDUMP_MODE="paused") as service:
        async with Api.of(service) as api:
            await api.connected()
            async with api.feed("topics=job") as feed:
                await feed.next()
                with foreign_dump(lab, WEB):
                    scheduled = (await api.post(TRIGGER, {"all": True}, 202))["jobs"]
                    assert {job["dom"] for job in scheduled} == {DB.name, COLD.name}
                    ended = await feed.ended([job["job_id"] for job in scheduled])
    assert {job["phase"] for job in ended.values()} == {"completed"}


def test_command_line_refuses_a_guest_that_is_being_dumped_by_somebody_else(lab: PrivateLibvirt, tmp_path: Path) -> None:
    with foreign_dump(lab, WEB):
        refused = memdump(lab, tmp_path, WEB)
    assert refused.code == 4
    assert [(line["event"], line["code"]) for line in refused.lines] == [("failed", "domain-busy")]
    assert list((tmp_path / "dumps").iterdir()) == []
    assert memdump(lab, tmp_path, WEB).code == 0
