"""What captures that died or saw nothing owe their guests: it is made good, once, and by nobody against somebody's will."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.downtime import SUFFIX
from app.evidence import PARTIAL
from demo import Guest, PrivateLibvirt
from tests.conftest import shared
from tests.contract.speech import Message
from tests.faults.by_hand import by_hand, fifo_folders, left_by_captures
from tests.faults.conftest import add_running
from tests.faults.imagelock import image_lock
from tests.faults.processes import Process, eventually
from tests.faults.scene import Scene, memdump, staged
from tests.lab import WEB, add_ready
from tests.thorough import thorough

pytestmark = thorough

WITH_DISK = Guest(name="vm-disk-01", memory_mib=512, boots=False, disk=True)
DOWNTIME_MS = 4321
"""What the guest's owner had set."""

OWED_SEC = 60.0


@pytest.fixture(scope="module")
def booted(tmp_path_factory: pytest.TempPathFactory, module_lab: PrivateLibvirt) -> Iterator[Scene]:
    """A guest whose memory does not fit into the pipe, for this module alone; it is captured live, and no other way."""
    add_ready(module_lab, WEB)
    with staged(tmp_path_factory.mktemp("booted"), module_lab, WEB, MEMDUMP_MODE="live") as made, shared(made.service):
        made.virsh("migrate-setmaxdowntime", WEB.name, str(DOWNTIME_MS))
        yield made


@pytest.fixture
def with_disk(tmp_path: Path, own_lab: PrivateLibvirt) -> Iterator[Scene]:
    add_running(own_lab, WITH_DISK)
    with staged(tmp_path, own_lab, WITH_DISK, MEMDUMP_MODE="live") as made:
        yield made


async def test_running_service_puts_back_what_a_killed_capture_by_hand_could_not(booted: Scene) -> None:
    _kill_a_capture_by_hand(booted)
    eventually(lambda: not _notes(booted) and not fifo_folders(booted), "the service keeps the promise, and drops the FIFO")
    assert _downtime_ms(booted) == DOWNTIME_MS
    eventually(lambda: not list(booted.service.dump_dir.glob(f"*{PARTIAL}")), "what was written of the dump goes")
    async with booted.visit() as visit:
        await visit.assert_all_is_well()


async def test_next_capture_by_hand_puts_back_what_killed_ones_could_not(booted: Scene) -> None:
    assert booted.service.stop() == 0
    for _ in range(2):
        _kill_a_capture_by_hand(booted)
        assert _downtime_ms(booted) != DOWNTIME_MS
    made = memdump(booted.service.environment, "--timeout-sec=0", WEB.name)
    assert made.returncode == 0, made.stderr
    assert _downtime_ms(booted) == DOWNTIME_MS
    assert not _notes(booted)
    await _assert_all_is_well_after_a_start(booted)


async def test_guest_that_somebody_suspended_after_its_capture_died_stays_suspended(booted: Scene) -> None:
    async with booted.visit() as visit, visit.held("capturing") as (_job_id, process):
        booted.service.kill()
        process.kill()
    eventually(lambda: not booted.has_job(), "the dump has broken off")
    assert booted.virsh("domstate", WEB.name) == "running"
    booted.virsh("suspend", WEB.name)
    assert (len(_notes(booted)), _debts(booted)) == (1, 1)
    booted.service.restart()
    eventually(lambda: not _notes(booted) and not _debts(booted), "everything that was owed is made good")
    assert booted.virsh("domstate", "--reason", WEB.name) == "paused (user)"
    assert _downtime_ms(booted) == DOWNTIME_MS
    booted.virsh("resume", WEB.name)
    async with booted.visit() as visit:
        await visit.assert_all_is_well()


async def test_guest_that_was_started_anew_keeps_its_own_downtime(booted: Scene) -> None:
    """The last of those with this guest: Linux has not booted in it again."""
    assert booted.service.stop() == 0
    _kill_a_capture_by_hand(booted)
    booted.virsh("destroy", WEB.name)
    booted.virsh("start", WEB.name)
    anew_ms = _downtime_ms(booted)
    await _assert_all_is_well_after_a_start(booted)
    eventually(lambda: not _notes(booted), "the note is of no use any more")
    assert _downtime_ms(booted) == anew_ms != DOWNTIME_MS


async def test_guest_that_nobody_could_see_is_resumed_as_soon_as_libvirt_answers(with_disk: Scene) -> None:
    """The guest cannot take its disk back, so it stands still; then libvirt hangs, so nobody hears of it."""
    libvirtd = Process(with_disk.lab.libvirtd_pid)
    with contextlib.closing(libvirtd), image_lock(with_disk.lab.folder / "guests" / f"{WITH_DISK.name}.disk") as lock:
        async with with_disk.visit() as visit, asyncio.timeout(OWED_SEC):
            async with visit.held("capturing") as (job_id, process):
                with ThreadPoolExecutor(1) as thread:
                    taken = asyncio.wrap_future(lock.queue(thread))
                    process.go_on()
                    await taken
            await visit.reaches(job_id, "sealing")
            assert with_disk.virsh("domstate", WITH_DISK.name) == "paused"
            libvirtd.stop()
            job = await visit.end_of(job_id)
            assert (job["phase"], job["error"]) == ("completed", None)
            assert "could not be seen" in " ".join(job["warnings"])
            await visit.feed.until(lambda message: _alarm(message) is not None)
            lock.let_go()
            libvirtd.go_on()
            await visit.feed.until(lambda message: message["type"] == "vms" and _alarm(message) is None)
            assert with_disk.virsh("domstate", WITH_DISK.name) == "running"
            eventually(lambda: not _debts(with_disk), "nothing is owed any more")
            await visit.assert_all_is_well()


async def _assert_all_is_well_after_a_start(scene: Scene) -> None:
    """Which tidies partial files, if no service ran when their capture died."""
    assert scene.service.stop() == 0
    scene.service.restart()
    eventually(lambda: not _notes(scene), "the notes go")
    async with scene.visit() as visit:
        await visit.assert_all_is_well()


def _kill_a_capture_by_hand(scene: Scene) -> None:
    """A live one, while its dump is under way."""
    with by_hand(scene) as capture:
        capture.until("progress")
        process = Process(capture.process.pid)
        process.stop()
        assert scene.has_job()
        process.kill()
        process.close()
    eventually(lambda: not scene.has_job(), "the dump has broken off")


def _notes(scene: Scene) -> list[Path]:
    return [path for path in left_by_captures(scene) if path.name.endswith(SUFFIX)]


def _debts(scene: Scene) -> int:
    """How many guests a service has to look at, as its state file says."""
    with contextlib.closing(sqlite3.connect(scene.service.state_dir / "memory-dumps.sqlite3")) as state:
        count: int = state.execute("SELECT count(*) FROM debts").fetchone()[0]
    return count


def _downtime_ms(scene: Scene) -> int:
    return int(scene.virsh("migrate-getmaxdowntime", scene.guest.name))


def _alarm(message: Message) -> str | None:
    """The alarm in a ``vms`` message."""
    alarm: str | None = message["vms"][0]["alarm"] if message["type"] == "vms" else None
    return alarm
