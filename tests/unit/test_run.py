"""One job outside the queue, where its process, its disk or who cancels it is difficult."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from app.errors import StateUnwritable
from app.evidence import encode_manifest, manifest_path, partial_path
from app.jobs.process import CaptureProcess
from app.jobs.run import Parts, Run
from app.model import Job, Phase
from tests.histories import manifest_at
from tests.unit.test_standing import JOB

PATIENCE_SEC = 20.0


@pytest.fixture(autouse=True)
async def _threads_end() -> AsyncIterator[None]:
    yield
    await asyncio.get_running_loop().shutdown_default_executor()


class Deaf:
    """A capture process that heeds no request to end."""

    pid = 7

    def __init__(self) -> None:
        self.asked = 0
        self.killed = asyncio.Event()

    def cancel(self) -> None:
        self.asked += 1

    def kill(self) -> None:
        self.killed.set()


def parts(dump_dir: Path) -> Any:
    """What a run works with, over a disk that takes no job any more."""

    async def keep(_job: Job) -> None:
        raise StateUnwritable("No space left on device")

    return SimpleNamespace(
        settings=SimpleNamespace(libvirt_uri="test:///default", dump_dir=dump_dir),
        changes=SimpleNamespace(ended=lambda _job_id: None),
        keep=keep,
    )


def left_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def test_who_asks_again_for_a_cancel_puts_the_kill_off_no_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.jobs.run._CANCEL_SEC", 0.2)
    run, process = Run(replace(JOB, phase=Phase.CAPTURING), cast(Parts, parts(tmp_path))), Deaf()
    run._process = cast(CaptureProcess, process)
    async with asyncio.timeout(PATIENCE_SEC):
        while not process.killed.is_set():
            run.cancel("admin")
            await asyncio.sleep(0.02)
    assert process.asked == 1


async def test_a_job_whose_journal_cannot_be_written_leaves_no_partial_file(tmp_path: Path) -> None:
    partial = partial_path(tmp_path / "101_1.mem.gz")
    partial.write_bytes(b"what its capture process had written when it was killed")
    run = Run(replace(JOB, phase=Phase.QUEUED), cast(Parts, parts(tmp_path)))
    run._dump_id = "0192e505-9000-7000-8000-000000000000"
    await run.live()
    assert left_in(tmp_path) == []
    assert run.job.phase is Phase.FAILED
    assert run.job.error is not None
    assert run.job.error.code == "state-unwritable"


async def test_a_job_whose_journal_cannot_be_written_after_the_seal_says_where_its_dump_is(tmp_path: Path) -> None:
    manifest = replace(manifest_at(10**18), dump_path=str(tmp_path / "101_1.mem.gz"))
    (tmp_path / "101_1.mem.gz").write_bytes(b"sealed")
    manifest_path(tmp_path / "101_1.mem.gz").write_bytes(encode_manifest(manifest))
    run = Run(replace(JOB, phase=Phase.QUEUED), cast(Parts, parts(tmp_path)))
    run._dump_id = manifest.dump_id
    await run.live()
    assert run.job.error is not None
    assert run.job.error.message.startswith(f"The dump is sealed at {manifest.dump_path}, but its record is not kept yet: ")
