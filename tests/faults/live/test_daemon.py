"""Faults in a live capture: libvirtd dies, hangs, or compresses the stream itself."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.capture.heartbeat import SILENT_AFTER_SEC
from demo import PrivateLibvirt
from tests.contract.speech import Message
from tests.faults.conftest import IDLE, add_running
from tests.faults.live.support import assert_all_is_well, assert_recovered, assert_runs, beside, fifos, promises_are_kept
from tests.faults.processes import Process, eventually
from tests.faults.scene import Scene, Visit, staged
from tests.lab import BUSY, COUNTING, add_ready
from tests.thorough import thorough

BOUNDED_SEC = 90.0
"""Keepalive gives libvirtd up after 20 s; then it is waited for a little in each of several places."""


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
        eventually(lambda: promises_are_kept(scene), "the downtime is put back")
        await assert_all_is_well(visit)


@thorough
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
            await assert_all_is_well(visit)


@thorough
async def test_guest_runs_on_while_the_daemon_hangs(counting: Scene) -> None:
    """Not only after it: nobody but that daemon could resume it."""
    qemu_pid = counting.lab.qemu_pid(COUNTING.name)
    with contextlib.closing(Process(counting.lab.libvirtd_pid)) as libvirtd:
        async with counting.visit() as visit:
            async with visit.held("capturing") as (job_id, process):
                libvirtd.stop()
                assert_runs(qemu_pid, 2 * SILENT_AFTER_SEC)
                process.go_on()
                ending = asyncio.create_task(visit.end_of(job_id))
                async with asyncio.timeout(BOUNDED_SEC):
                    while not ending.done():
                        await beside(lambda: assert_runs(qemu_pid, 0.5))
                job = await ending
            assert (job["phase"], job["error"]["code"]) == ("failed", "hypervisor-not-responding")
            assert_runs(qemu_pid, 0.5)
    await assert_recovered(counting)


@thorough
async def test_guest_runs_on_while_there_is_no_daemon(counting: Scene) -> None:
    qemu_pid = counting.lab.qemu_pid(COUNTING.name)
    async with counting.visit() as visit:
        async with visit.held("capturing") as (job_id, process):
            counting.lab.kill_libvirtd()
            process.go_on()
            job = await visit.end_of(job_id)
        assert (job["phase"], job["error"]["code"]) == ("failed", "hypervisor-unreachable")
        assert_runs(qemu_pid, 0.5)
        counting.lab.restart_libvirtd()
    await assert_recovered(counting)


@thorough
async def test_daemon_that_hangs_in_mid_capture_is_told_and_costs_the_guest_nothing(booted: Scene) -> None:
    async with _daemon_that_hangs(booted) as job:
        assert (job["phase"], job["error"]["code"]) == ("failed", "hypervisor-not-responding")
    await assert_recovered(booted)


@thorough
async def test_daemon_that_hangs_while_a_try_is_given_up_is_not_waited_for_without_end(
    tmp_path: Path, own_lab: PrivateLibvirt
) -> None:
    add_ready(own_lab, BUSY)
    with staged(tmp_path, own_lab, BUSY, MEMDUMP_DUMP_TIMEOUT_SEC="0") as scene:
        async with _daemon_that_hangs(scene, mode="live", max_pause_ms=1) as job:
            assert (job["phase"], job["error"]["code"]) == ("failed", "hypervisor-not-responding")
        await assert_recovered(scene)


@thorough
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
            assert not fifos(scene)
            yield job


async def _connected(visit: Visit) -> None:
    """The service has found libvirt again."""
    async with visit.api.feed("topics=hypervisor") as feed:
        while (await feed.next())["hypervisor"]["state"] != "connected":
            pass
