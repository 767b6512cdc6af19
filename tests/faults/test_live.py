"""Faults in a live capture: its guest runs on, its maximum downtime is what it was, and nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.capture.heartbeat import SILENT_AFTER_SEC
from app.downtime import SUFFIX
from app.model import from_rfc3339
from demo import Guest, PrivateLibvirt
from tests.contract.speech import JOBS, RECORDS, Message
from tests.faults.by_hand import by_hand, fifo_folders
from tests.faults.conftest import IDLE, add_running
from tests.faults.imagelock import image_lock
from tests.faults.processes import PATIENCE_SEC, Process, below, eventually
from tests.faults.scene import PHASES, Scene, Visit, capture_process, memdump, staged
from tests.faults.test_dump_dir import SLACK_BYTES, mounted
from tests.lab import WEB, add_ready
from tests.qemu.listener import hearing

WITH_DISK = Guest(name="vm-disk-01", memory_mib=512, boots=False, disk=True)
BUSY = Guest(name="vm-busy-01", memory_mib=512, text_mib=4, random_mib=4, vcpus=2, rewrites_mib=256)
"""Within a stop of one millisecond no live capture of it ever ends."""

COUNTING = Guest(name="vm-counts-01", memory_mib=256, counts=True)
"""Its virtual CPU never rests."""

DOWNTIME_MS = 4321
"""What the guest's owner had set."""

ALARM_SEC = 120.0
NOTICED_SEC = 20.0
BOUNDED_SEC = 90.0
"""Keepalive gives libvirtd up after 20 s; then it is waited for a little in each of several places."""

VMS = "/api/telemetry/live-vms"


@pytest.fixture
def scene(tmp_path: Path, own_lab: PrivateLibvirt) -> Iterator[Scene]:
    """Everything for one test alone; the service captures live, and no other way."""
    add_running(own_lab, IDLE)
    with staged(tmp_path, own_lab, IDLE, MEMDUMP_MODE="live") as made:
        made.virsh("migrate-setmaxdowntime", IDLE.name, str(DOWNTIME_MS))
        yield made


@pytest.fixture
def booted(tmp_path: Path, own_lab: PrivateLibvirt) -> Iterator[Scene]:
    """The same with a guest whose memory does not fit into the pipe: QEMU cannot have ended with it while nobody reads."""
    add_ready(own_lab, WEB)
    with staged(tmp_path, own_lab, WEB, MEMDUMP_MODE="live") as made:
        yield made


@pytest.fixture
def counting(tmp_path: Path, own_lab: PrivateLibvirt) -> Iterator[Scene]:
    """The same with a guest of which can be seen whether it runs, without libvirt."""
    add_ready(own_lab, COUNTING)
    with staged(tmp_path, own_lab, COUNTING, MEMDUMP_MODE="live") as made:
        yield made


@pytest.mark.parametrize("phase", PHASES)
async def test_killed_capture_process_leaves_nothing(scene: Scene, phase: str) -> None:
    async with scene.visit() as visit:
        async with visit.held(phase) as (job_id, process):
            process.kill()
            job = await visit.end_of(job_id)
        assert (job["phase"], job["error"]["code"]) == ("failed", "capture-died")
        await visit.assert_told(job, "capture-died")
        await _assert_all_is_well(visit)


@pytest.mark.parametrize("phase", PHASES)
async def test_cancelled_capture_leaves_nothing(scene: Scene, phase: str) -> None:
    async with scene.visit() as visit:
        async with visit.held(phase) as (job_id, process):
            await visit.api.post(f"{JOBS}/{job_id}/cancel")
            process.go_on()
            job = await visit.end_of(job_id)
        assert (job["phase"], job["error"]["code"]) == ("cancelled", "cancelled")
        await _assert_all_is_well(visit)


@pytest.mark.parametrize("both", [False, True], ids=["service", "service and capture process"])
async def test_killed_service_leaves_nothing_once_it_runs_again(scene: Scene, both: bool) -> None:
    async with scene.visit() as visit, visit.held("capturing") as (job_id, process):
        eventually(lambda: _downtime_ms(scene) != DOWNTIME_MS, "the capture has set a downtime")
        scene.service.kill()
        if both:
            process.kill()
        process.go_on()
        assert process.ended(10)
    scene.service.restart()
    async with scene.visit() as visit:
        job = await visit.api.get(f"{JOBS}/{job_id}")
        assert job["phase"] == "interrupted"
        eventually(lambda: _promises_are_kept(scene), "the downtime is put back")
        await _assert_all_is_well(visit)


async def test_killed_daemon_costs_the_dump_and_not_the_guest(scene: Scene) -> None:
    async with scene.visit() as visit:
        async with visit.held("capturing") as (job_id, process):
            before = scene.dumps()
            scene.lab.kill_libvirtd()
            process.go_on()
            job = await visit.end_of(job_id)
        assert (job["phase"], job["error"]["code"]) == ("failed", "hypervisor-unreachable")
        assert scene.dumps() == before
        scene.lab.restart_libvirtd()
    async with scene.visit() as visit:
        eventually(lambda: _promises_are_kept(scene), "the downtime is put back")
        await _assert_all_is_well(visit)


async def test_daemon_that_hangs_for_a_while_costs_nothing_but_time(scene: Scene) -> None:
    libvirtd = Process(scene.lab.libvirtd_pid)
    with contextlib.closing(libvirtd):
        async with scene.visit() as visit, asyncio.timeout(60):
            async with visit.held("capturing") as (job_id, process):
                libvirtd.stop()
                process.go_on()
                await visit.feed.until(
                    lambda message: message["type"] == "hypervisor" and message["hypervisor"]["state"] != "connected"
                )
                libvirtd.go_on()
                job = await visit.end_of(job_id)
            await _connected(visit)
            assert (job["phase"], job["error"]) == ("completed", None)
            await _assert_all_is_well(visit)


async def test_guest_runs_on_while_the_daemon_hangs(counting: Scene) -> None:
    """Not only after it: nobody but that daemon could resume it."""
    qemu_pid = counting.lab.qemu_pid(COUNTING.name)
    with contextlib.closing(Process(counting.lab.libvirtd_pid)) as libvirtd:
        async with counting.visit() as visit:
            async with visit.held("capturing") as (job_id, process):
                libvirtd.stop()
                _assert_runs(qemu_pid, 2 * SILENT_AFTER_SEC)
                process.go_on()
                ending = asyncio.create_task(visit.end_of(job_id))
                async with asyncio.timeout(BOUNDED_SEC):
                    while not ending.done():
                        await _beside(lambda: _assert_runs(qemu_pid, 0.5))
                job = await ending
            assert (job["phase"], job["error"]["code"]) == ("failed", "hypervisor-not-responding")
            _assert_runs(qemu_pid, 0.5)
    await _assert_recovered(counting)


async def test_guest_runs_on_while_there_is_no_daemon(counting: Scene) -> None:
    qemu_pid = counting.lab.qemu_pid(COUNTING.name)
    async with counting.visit() as visit:
        async with visit.held("capturing") as (job_id, process):
            counting.lab.kill_libvirtd()
            process.go_on()
            job = await visit.end_of(job_id)
        assert (job["phase"], job["error"]["code"]) == ("failed", "hypervisor-unreachable")
        _assert_runs(qemu_pid, 0.5)
        counting.lab.restart_libvirtd()
    await _assert_recovered(counting)


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


async def test_daemon_that_hangs_in_mid_capture_is_told_and_costs_the_guest_nothing(booted: Scene) -> None:
    async with _daemon_that_hangs(booted) as job:
        assert (job["phase"], job["error"]["code"]) == ("failed", "hypervisor-not-responding")
    await _assert_recovered(booted)


async def test_daemon_that_hangs_while_a_try_is_given_up_is_not_waited_for_without_end(
    tmp_path: Path, own_lab: PrivateLibvirt
) -> None:
    add_ready(own_lab, BUSY)
    with staged(tmp_path, own_lab, BUSY, MEMDUMP_DUMP_TIMEOUT_SEC="0") as scene:
        async with _daemon_that_hangs(scene, mode="live", max_pause_ms=1) as job:
            assert (job["phase"], job["error"]["code"]) == ("failed", "hypervisor-not-responding")
        await _assert_recovered(scene)


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
        await _assert_all_is_well(visit)


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
            eventually(lambda: _downtime_ms(scene) == DOWNTIME_MS, "the downtime is what it was")


async def test_capture_whose_time_ends_in_mid_stream_leaves_nothing(tmp_path: Path, own_lab: PrivateLibvirt) -> None:
    add_ready(own_lab, WEB)
    with staged(tmp_path, own_lab, WEB, MEMDUMP_MODE="live", MEMDUMP_DUMP_TIMEOUT_SEC="2") as scene:
        scene.virsh("migrate-setmaxdowntime", WEB.name, str(DOWNTIME_MS))
        with contextlib.closing(Process(own_lab.qemu_pid(WEB.name))) as qemu:
            async with scene.visit() as visit:
                async with visit.held("capturing") as (job_id, process):
                    qemu.stop()
                    process.go_on()
                    eventually(lambda: not _fifos(scene), "the dump is broken off")
                    qemu.go_on()
                    job = await visit.end_of(job_id)
                assert (job["phase"], job["error"]["code"]) == ("failed", "timed-out")
                await visit.assert_told(job, "timed-out")
                eventually(lambda: _promises_are_kept(scene), "the downtime is put back")
                await visit.assert_all_is_well()
            assert memdump(scene.service.environment, "--timeout-sec=0", WEB.name).returncode == 0


async def test_guest_that_somebody_suspends_in_mid_capture_is_captured_and_stays_suspended(booted: Scene) -> None:
    """libvirt makes the suspension wait for the dump."""
    async with booted.visit() as visit:
        async with visit.held("capturing") as (job_id, process):
            suspension = asyncio.create_task(_beside(lambda: booted.virsh("suspend", WEB.name)))
            process.go_on()
            job = await visit.end_of(job_id)
            await suspension
        assert (job["phase"], job["error"]) == ("completed", None)
        assert booted.virsh("domstate", "--reason", WEB.name) == "paused (user)"
        assert not any("was resumed" in warning for warning in job["warnings"])
        booted.virsh("resume", WEB.name)
        await visit.assert_all_is_well()
        await visit.assert_dump_succeeds()


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


# --- a disk image that another program holds when the guest is to go on


@pytest.fixture
def with_disk(tmp_path: Path, own_lab: PrivateLibvirt) -> Iterator[Scene]:
    add_running(own_lab, WITH_DISK)
    with staged(tmp_path, own_lab, WITH_DISK, MEMDUMP_MODE="live") as made:
        yield made


async def test_guest_whose_image_was_held_is_resumed_once_it_is_free(with_disk: Scene) -> None:
    async with with_disk.visit() as visit:
        with image_lock(_image(with_disk)) as lock:
            taken = asyncio.create_task(_beside(lock.take_when_it_is_free))
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
    with image_lock(_image(with_disk)) as lock:
        async with with_disk.visit() as visit, asyncio.timeout(ALARM_SEC):
            taken = asyncio.create_task(_beside(lock.take_when_it_is_free))
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


# --- a host that compresses the stream itself


@pytest.mark.parametrize("mode", ["live", "auto"])
async def test_stream_that_libvirt_compresses_is_recognised(tmp_path: Path, own_lab: PrivateLibvirt, mode: str) -> None:
    with (own_lab.folder / "config/libvirt/qemu.conf").open("a") as conf:
        conf.write('dump_image_format = "gzip"\n')
    own_lab.kill_libvirtd()
    own_lab.restart_libvirtd()
    add_running(own_lab, IDLE)
    with staged(tmp_path, own_lab, IDLE, MEMDUMP_MODE="paused") as scene:
        async with scene.visit() as visit:
            job = await visit.end_of(await visit.start(mode=mode))
            said = " ".join(job["warnings"]) if mode == "auto" else job["error"]["message"]
            assert "dump_image_format" in said
            assert (job["phase"], (job["error"] or {}).get("code")) == (
                ("completed", None) if mode == "auto" else ("failed", "stream-malformed")
            )
            if mode == "auto":
                record = await visit.api.get(f"/api/memory-dumps/records/{job['dump_id']}")
                assert record["mode"] == "paused"
                with gzip.open(record["dump_path"]) as image:
                    assert image.read(4) == b"\x7fELF"
            await visit.assert_all_is_well()


@contextlib.asynccontextmanager
async def _daemon_that_hangs(scene: Scene, **wish: object) -> AsyncIterator[Message]:
    """A job in whose capture libvirtd began to hang, as the job ended; libvirtd goes on after this block."""
    with contextlib.closing(Process(scene.lab.libvirtd_pid)) as libvirtd:
        async with scene.visit() as visit:
            async with visit.held("capturing", None, **wish) as (job_id, process):
                libvirtd.stop()
                process.go_on()
                async with asyncio.timeout(BOUNDED_SEC):
                    job = await visit.end_of(job_id)
            assert not _fifos(scene)
            yield job


async def _assert_recovered(scene: Scene) -> None:
    """libvirtd answers again: the service does for the guest what its capture could not, and nothing is left."""
    async with scene.visit() as visit:
        eventually(lambda: not _notes(scene), "the downtime is put back")
        await visit.assert_all_is_well()
        await visit.assert_dump_succeeds()


async def _assert_all_is_well(visit: Visit) -> None:
    await visit.assert_all_is_well()
    assert _downtime_ms(visit.scene) == DOWNTIME_MS
    await visit.assert_dump_succeeds()
    assert not list(visit.scene.lab.folder.rglob(".spool-memory"))


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


async def _connected(visit: Visit) -> None:
    """The service has found libvirt again."""
    async with visit.api.feed("topics=hypervisor") as feed:
        while (await feed.next())["hypervisor"]["state"] != "connected":
            pass


async def _assert_page_alarms(visit: Visit) -> None:
    async with visit.api.session.get("/memory-dumps") as answer:
        page = await answer.text()
    banner = page.partition('id="alarms"')[2].partition("<template")[0]
    assert WITH_DISK.name in banner


async def _beside(work: Callable[[], object]) -> None:
    """``work`` on a thread that ends with it."""
    with ThreadPoolExecutor(1) as thread:
        await asyncio.get_running_loop().run_in_executor(thread, work)


def _assert_runs(qemu_pid: int, for_sec: float) -> None:
    """Its virtual CPUs have computed for so long, from now on."""
    until = _computed_sec(qemu_pid) + for_sec
    eventually(lambda: _computed_sec(qemu_pid) >= until, "the guest runs")


def _computed_sec(qemu_pid: int) -> float:
    """utime and stime of the threads of its virtual CPUs (proc(5))."""
    ticks = 0
    for task in Path(f"/proc/{qemu_pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # another thread, that ends at this moment
            if (task / "comm").read_text().startswith("CPU "):
                ticks += sum(map(int, (task / "stat").read_text().rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _alarm(message: Message) -> str | None:
    """The alarm in a ``vms`` message."""
    if message["type"] != "vms":
        return None
    alarm: str | None = message["vms"][0]["alarm"]
    return alarm


def _completed(message: Message, job_id: str) -> bool:
    job = message["job"] if message["type"] == "job" else {}
    return (job.get("job_id"), job.get("phase")) == (job_id, "completed")


def _fifos(scene: Scene) -> list[Path]:
    return [folder for folder in fifo_folders(scene) if folder.is_dir()]


def _downtime_ms(scene: Scene) -> int:
    """Asked without the domain's job lock; 0 while libvirt cannot say."""
    command = ["virsh", "--quiet", "--connect", scene.lab.uri, "migrate-getmaxdowntime", scene.guest.name]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=40)
    return int(ran.stdout) if ran.returncode == 0 else 0


def _promises_are_kept(scene: Scene) -> bool:
    """The service has done for its guest what a dead capture could not, and the note of it is gone."""
    return _downtime_ms(scene) == DOWNTIME_MS and not _notes(scene)


def _notes(scene: Scene) -> list[Path]:
    return [path for path in below(scene.lab.folder / "run") if path.name.endswith(SUFFIX)]


def _image(scene: Scene) -> Path:
    return scene.lab.folder / "guests" / f"{scene.guest.name}.disk"


def _has_file_without_name(pid: int) -> bool:
    """Whether the process has a file open in no folder (``O_TMPFILE``)."""
    with contextlib.suppress(OSError):
        return any(str(entry.readlink()).endswith("(deleted)") for entry in Path(f"/proc/{pid}/fd").iterdir())
    return False
