"""The guest is migrated to another host, by its owner: during a capture, before it, and in the moment between.

Both hosts are libvirts of the tests, and each takes the other for a machine of its own.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo import Guest, PrivateLibvirt
from tests.contract.speech import JOBS
from tests.faults.by_hand import by_hand
from tests.faults.conftest import IDLE, add_running
from tests.faults.live.support import beside, notes
from tests.faults.processes import PATIENCE_SEC, Process, eventually
from tests.faults.scene import Scene, Visit, capture_process, staged
from tests.lab import WEB, add_ready, running_lab
from tests.qemu.outside import virsh
from tests.thorough import thorough

pytestmark = thorough

OTHER = Guest(name="vm-idle-02", memory_mib=512, boots=False)

REFUSED_SEC = 60.0
"""libvirt waits half of that for what it does for others."""

TRIES = 20


@pytest.fixture(scope="module")
def other_host() -> Iterator[PrivateLibvirt]:
    """Where guests are migrated to."""
    with running_lab() as lab:
        _set_libvirtd(lab, f'host_uuid = "{uuid.uuid4()}"')
        yield lab


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, module_lab: PrivateLibvirt) -> Iterator[Scene]:
    """With a guest whose memory takes minutes over a slow network; each test brings it back."""
    add_ready(module_lab, WEB)
    with staged(tmp_path_factory.mktemp("scene"), module_lab, WEB) as made:
        yield made


_MIGRATE = """
import json
import sys
import libvirt

source, target, name, parameters = json.loads(sys.argv[1])
libvirt.registerErrorHandler(lambda context, error: None, None)  # it is told below
domain = libvirt.open(source).lookupByName(name)
try:
    domain.migrate3(libvirt.open(target), parameters, libvirt.VIR_MIGRATE_LIVE)
except libvirt.libvirtError as error:
    sys.exit(str(error))
"""
"""``virsh migrate --live``, which at times forgets to tell why it was refused."""


class Migration:
    """A live migration under way."""

    def __init__(self, lab: PrivateLibvirt, guest: Guest, to: PrivateLibvirt, bandwidth_mib: int | None) -> None:
        parameters: dict[str, str | int] = {"migrate_uri": f"unix://{to.folder}/migration-of-{guest.name}"}
        if bandwidth_mib is not None:
            parameters["bandwidth"] = bandwidth_mib
        command = [sys.executable, "-c", _MIGRATE, json.dumps([lab.uri, to.uri, guest.name, parameters])]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def asked(self) -> bool:
        """Whether it speaks to both hosts: then it asks the first to begin."""
        sockets = 0
        for entry in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
                sockets += str(entry.readlink()).startswith("socket:")
        return sockets == 2

    def end(self) -> tuple[int, str]:
        """Its exit code and what it complained of."""
        _, complaint = self.process.communicate(timeout=PATIENCE_SEC)
        return self.process.returncode, complaint


@contextlib.contextmanager
def migration(lab: PrivateLibvirt, guest: Guest, to: PrivateLibvirt, bandwidth_mib: int | None = None) -> Iterator[Migration]:
    """One that has been asked for; it has ended after this block."""
    started = Migration(lab, guest, to, bandwidth_mib)
    try:
        eventually(started.asked, "the migration is asked for")
        yield started
    finally:
        started.process.kill()
        started.process.communicate()


@contextlib.contextmanager
def slow_migration(scene: Scene, to: PrivateLibvirt) -> Iterator[Migration]:
    """One that moves the scene's guest, and takes its time until ``hurry``."""
    with migration(scene.lab, scene.guest, to, bandwidth_mib=1) as started:
        eventually(lambda: "Memory processed" in virsh(scene.lab, "domjobinfo", scene.guest.name), "memory is on its way")
        yield started


def hurry(scene: Scene) -> None:
    scene.virsh("migrate-setspeed", scene.guest.name, "1000")


@pytest.mark.parametrize("mode", ["live", "paused"])
async def test_guest_whose_migration_is_asked_for_during_its_capture_is_captured_and_then_migrated(
    scene: Scene, other_host: PrivateLibvirt, mode: str
) -> None:
    async with scene.visit() as visit:
        async with visit.held("capturing", mode=mode) as (job_id, process):
            with migration(scene.lab, WEB, other_host) as away:
                process.go_on()
                job = await visit.end_of(job_id)
                assert (job["phase"], job["error"], job["warnings"]) == ("completed", None, [])
                assert away.end() == (0, "")
        await _assert_it_is_there_and_comes_back(visit, other_host)


async def test_migrations_that_wait_too_long_for_a_capture_are_refused_and_the_dumps_sealed(
    tmp_path: Path, own_lab: PrivateLibvirt, other_host: PrivateLibvirt
) -> None:
    _set_libvirtd(own_lab, "keepalive_interval = -1")  # or it would take the captures, which stand still here, for dead
    for guest in (IDLE, OTHER):
        add_running(own_lab, guest)
    with staged(tmp_path, own_lab, IDLE) as scene:
        async with contextlib.AsyncExitStack() as visits, scene.visit() as visit:
            async with (
                visit.held("capturing", IDLE, mode="live") as (first, _),
                visit.held("capturing", OTHER, mode="paused") as (second, _),
            ):
                with migration(own_lab, IDLE, other_host) as one, migration(own_lab, OTHER, other_host) as two:
                    await beside(lambda: [refused.process.wait(REFUSED_SEC) for refused in (one, two)])
                    for refused in (one, two):
                        code, complaint = refused.end()
                        assert code != 0
                        assert "cannot acquire state change lock" in complaint
                later = await visits.enter_async_context(scene.visit())  # a feed that nobody reads for so long is ended
            for job in (await later.feed.ended([first, second])).values():
                assert (job["phase"], job["error"], job["warnings"]) == ("completed", None, [])
            assert scene.virsh("domstate", OTHER.name) == "running"
            await later.assert_all_is_well()
            await later.assert_dump_succeeds()


async def test_guest_that_is_being_migrated_is_left_alone(scene: Scene, other_host: PrivateLibvirt) -> None:
    async with scene.visit() as visit:
        with slow_migration(scene, other_host) as away:
            problem = await visit.api.trigger(WEB.name, status=409)
            assert [(error["vm_id"], error["code"]) for error in problem["errors"]] == [(WEB.name, "domain-busy")]
            assert "migration" in problem["errors"][0]["detail"]
            problem = await visit.api.trigger(all=True, status=409)
            assert [error["code"] for error in problem["errors"]] == ["domain-busy"]
            with by_hand(scene) as refused:
                assert refused.until("failed")["code"] == "domain-busy"
                assert refused.process.wait(PATIENCE_SEC) == 4
            hurry(scene)
            assert away.end() == (0, "")
        problem = await visit.api.trigger(WEB.name, status=409)
        assert [error["code"] for error in problem["errors"]] == ["vm-not-running"]
        await _assert_it_is_there_and_comes_back(visit, other_host)


@pytest.mark.parametrize(("mode", "code"), [("live", "domain-busy"), ("paused", "guest-gone")])
async def test_guest_whose_migration_began_between_the_look_at_it_and_its_dump_is_migrated(
    scene: Scene, other_host: PrivateLibvirt, mode: str, code: str
) -> None:
    """A live capture would change for how long the migration may stop the guest, so it looks once more. A paused one waits."""
    async with scene.visit() as visit:
        for _ in range(TRIES):
            job_id = await visit.start(mode=mode)
            with capture_process(scene.service, WEB) as process:
                eventually(lambda: list(scene.service.dump_dir.glob("*.partial")), "a partial file")
                process.stop()
                if not scene.has_job():
                    await _migrated_meanwhile(visit, process, other_host, job_id, code)
                    break
            await visit.end_of(job_id)
        else:
            raise AssertionError("no capture could be held before its call to libvirt")
        await _assert_it_is_there_and_comes_back(visit, other_host)


async def _migrated_meanwhile(visit: Visit, process: Process, to: PrivateLibvirt, job_id: str, code: str) -> None:
    scene = visit.scene
    with slow_migration(scene, to) as away:
        downtime = scene.virsh("migrate-getmaxdowntime", WEB.name)
        process.go_on()
        phase = await visit.reaches(job_id, "capturing")
        assert scene.virsh("migrate-getmaxdowntime", WEB.name) == downtime
        hurry(scene)
        assert away.end() == (0, "")
        job = await (visit.end_of(job_id) if phase == "capturing" else visit.api.get(f"{JOBS}/{job_id}"))
    assert (job["phase"], job["error"]["code"]) == ("failed", code)
    await visit.assert_told(job, code)


async def _assert_it_is_there_and_comes_back(visit: Visit, other_host: PrivateLibvirt) -> None:
    """It runs on the other host alone; nothing is left here; and when it is back it can be dumped."""
    scene = visit.scene
    assert virsh(other_host, "domstate", WEB.name) == "running"
    assert scene.virsh("domstate", "--reason", WEB.name) == "shut off (migrated)"
    scene.assert_no_file_is_left()
    eventually(lambda: not notes(scene), "no promise is left")
    await beside(
        lambda: virsh(other_host, "migrate", "--live", WEB.name, scene.lab.uri, f"--migrateuri=unix://{scene.lab.folder}/back")
    )
    await visit.feed.until(
        lambda message: (
            message["type"] == "vms" and any(vm["name"] == WEB.name and vm["state"] == "running" for vm in message["vms"])
        )
    )
    await visit.assert_all_is_well()
    await visit.assert_dump_succeeds()


def _set_libvirtd(lab: PrivateLibvirt, line: str) -> None:
    (lab.folder / "config/libvirt/libvirtd.conf").write_text(f"{line}\n")
    lab.kill_libvirtd()
    lab.restart_libvirtd()
