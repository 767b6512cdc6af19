"""A service whose news are made up: ten dumps that report at the full rate, or a night of dumps, without one guest.

What is made up goes the way of everything that happens, through ``changes`` and the feed. Commands are lines of JSON on a socket in
the service's folder; each is answered by a line when it is done.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web

from app.changes import Changes
from app.model import Activity, Job, Phase, Progress, Stats, Wish
from app.web import keys
from benchmarks.records import manifest
from tests.nodes import Vm, node, numbered_uuid
from tests.service import Service, running_service

JOBS = 10
BYTES_A_MICROSECOND = 4096
"""A report's ``bytes_done`` says when it was made: so many bytes for each microsecond since the run began."""

_EVERY_SEC = 0.1
_TOTAL_BYTES = 2**38
_PHASES = (Phase.PREPARING, Phase.CAPTURING, Phase.SEALING, Phase.RECORDING, Phase.COMPLETED)
_FAR_BEHIND = 200
"""No page is left so many changes behind: the night is over as soon as it can follow."""


@contextmanager
def conducted_service(folder: Path) -> Iterator[Service]:
    """One over ten VMs, which none of its dumps will ever touch."""
    folder.mkdir(parents=True, exist_ok=True)
    vms = [Vm(name=_name(number), uuid=numbered_uuid(number), opennebula=str(100 + number)) for number in range(JOBS)]
    program = [sys.executable, "-m", "benchmarks.conductor", str(folder / "conductor")]
    with running_service(folder, program=program, LIBVIRT_URI=node(folder / "node.xml", vms)) as started:
        yield started


@contextmanager
def playing(service: Service, **command: Any) -> Iterator[Callable[[], Any]]:
    """Begin what ``command`` asks for; what is yielded waits for its end and gives the answer."""
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(service.folder / "conductor"))
        line.sendall(json.dumps(command).encode() + b"\n")
        yield lambda: json.loads(line.makefile().readline())


async def full_rate(changes: Changes, seconds: float) -> dict[str, float]:
    """Ten dumps report ten times a second each; ``began`` is seconds since 1970."""
    jobs = [_begun(changes, number, f"rate-{number}") for number in range(JOBS)]
    clock = asyncio.get_running_loop().time
    began, start, sent = time.time(), clock(), 0
    while clock() - start < seconds:
        number = sent % JOBS
        done = int((time.time() - began) * 1e6) * BYTES_A_MICROSECOND
        changes.advance(jobs[number].job_id, Phase.CAPTURING, _progress(done))
        sent += 1
        await asyncio.sleep(max(0.0, start + sent * _EVERY_SEC / JOBS - clock()))
    for job in jobs:
        _ended(changes, job)
    return {"began": began, "sent": sent}


async def dumps(changes: Changes, first: int, count: int) -> dict[str, int]:
    """So many dumps, each from request to record, as fast as the pages follow; progress is thinned to four reports each."""
    before = changes.newest
    for number in range(first, first + count):
        while any(changes.newest - each.after > _FAR_BEHIND for each in _listening(changes)):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)
        job = _begun(changes, number % JOBS, f"night-{number}")
        for step in range(4):
            changes.advance(job.job_id, Phase.CAPTURING, _progress(_TOTAL_BYTES * step // 4))
            await asyncio.sleep(0)
        _ended(changes, job)
        made = replace(manifest(number), uuid=job.uuid, dom=job.dom)
        changes.publish("record", made)
        totals = Stats(
            total_dumps=number,
            total_vms=JOBS,
            total_size_bytes=number << 28,
            avg_duration_sec=2.0,
            last_dump=made.timestamp,
        )
        changes.publish("stats", totals)
        changes.publish(
            "activity", Activity(at=_now(), kind="success", code="sealed", message=f"{job.dom} was dumped.", dom=job.dom)
        )
        await asyncio.sleep(0)
    return {"changes": changes.newest - before, "progress": count * 4}


def _begun(changes: Changes, number: int, job_id: str) -> Job:
    wish = Wish(mode="auto", compression="gzip", operator="admin")
    job = Job(
        job_id=job_id, trigger_id=job_id, uuid=numbered_uuid(number), vm_id=str(100 + number), dom=_name(number), wish=wish,
        phase=Phase.QUEUED, requested_at=_now(),
    )  # fmt: skip
    changes.publish("job", job)
    return _stepped(changes, job, _PHASES[:2])


def _ended(changes: Changes, job: Job) -> None:
    _stepped(changes, job, _PHASES[2:])
    changes.ended(job.job_id)


def _stepped(changes: Changes, job: Job, phases: tuple[Phase, ...]) -> Job:
    for phase in phases:
        job = job.step(phase, _now())
        changes.publish("job", job)
    return job


def _progress(done: int) -> Progress:
    return Progress(
        bytes_done=done, bytes_total=_TOTAL_BYTES, rate_bytes_per_sec=5e8 + done % 977 * 1e5, eta_sec=3.0 + done % 7,
        guest_paused=False, iteration=1, mode="live",
    )  # fmt: skip


def _listening(changes: Changes) -> set[Any]:
    found: set[Any] = vars(changes)["_subscriptions"]
    return found


def _name(number: int) -> str:
    return f"vm-{number:02d}"


def _now() -> datetime:
    return datetime.now(UTC)


_PIECES: dict[str, Callable[..., Awaitable[Any]]] = {"full_rate": full_rate, "dumps": dumps}


def _serve(path: Path) -> int:
    """The service as it is, with an ear for commands."""
    from app import serving
    from app.__main__ import main
    from app.application import create_app
    from app.foundation import Foundation

    async def conducted(app: web.Application) -> AsyncIterator[None]:
        async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            command = json.loads(await reader.readline())
            answer = await _PIECES[command.pop("play")](app[keys.CHANGES], **command)
            writer.write(json.dumps(answer).encode() + b"\n")
            with suppress(ConnectionError):
                await writer.drain()
            writer.close()

        async with await asyncio.start_unix_server(hear, path):
            yield

    def create(foundation: Foundation) -> web.Application:
        app = create_app(foundation)
        app.cleanup_ctx.append(conducted)
        return app

    vars(serving)["create_app"] = create
    return main([])


if __name__ == "__main__":
    sys.exit(_serve(Path(sys.argv[1])))
