"""The longest gap of the service's event loop while two dumps run, against an idle loop in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from aiohttp import web

from benchmarks.figures import RUNS, Figure, median, spread
from benchmarks.stage import GUEST, SECOND, Stage, dump
from tests.service import Service, running_service

_TICK_SEC = 0.001
_LEAST_SEC = 0.002
_MORE_MS = 50


def while_two_dumps_run(on: Stage) -> Figure:
    """Both loops tick every millisecond; what counts is the longest time between two ticks."""
    ours, idle = [], []
    with watched_service(on.folder / "loop", LIBVIRT_URI=on.lab.uri) as (by, gaps), idle_loop(on.folder / "idle.gaps") as idle_gaps:
        dump(by, [GUEST, SECOND], "gzip")
        for _ in range(RUNS):
            since = time.monotonic()
            dump(by, [GUEST, SECOND], "gzip")
            until = time.monotonic()
            ours.append(longest_ms(gaps, since, until))
            idle.append(longest_ms(idle_gaps, since, until))
    more_ms = median(ours) - median(idle)
    return Figure(
        claim="longest gap of the service's event loop while two dumps run, against an idle loop beside it",
        ours=spread(ours, "ms", 1),
        baseline=spread(idle, "ms", 1),
        ratio=f"{more_ms:+.1f} ms",
        bound=f"+{_MORE_MS} ms",
        met=more_ms <= _MORE_MS,
    )


def longest_ms(gaps: Path, since: float, until: float) -> float:
    """The longest gap that ended between two moments of CLOCK_MONOTONIC, which all processes share."""
    lines = (line.split() for line in gaps.read_text().splitlines())
    return max((float(gap) * 1000 for at, gap in lines if since <= float(at) <= until), default=_LEAST_SEC * 1000)


async def watch(gaps: Path) -> None:
    """Write each gap of this loop that is longer than ``_LEAST_SEC`` to ``gaps``: when it ended, and seconds."""
    with gaps.open("w", buffering=1) as file:
        before = time.monotonic()
        while True:
            await asyncio.sleep(_TICK_SEC)
            now = time.monotonic()
            if now - before > _LEAST_SEC:
                file.write(f"{now:.6f} {now - before:.6f}\n")
            before = now


@contextlib.contextmanager
def watched_service(folder: Path, **settings: str) -> Iterator[tuple[Service, Path]]:
    """A service that writes down the gaps of its loop, and where it does."""
    program = [sys.executable, "-m", "benchmarks.event_loop", str(folder / "gaps")]
    with running_service(folder, program=program, **settings) as by:
        yield by, folder / "gaps"


@contextlib.contextmanager
def idle_loop(gaps: Path) -> Iterator[Path]:
    """A loop in a process of its own that has nothing to do."""
    idle = subprocess.Popen([sys.executable, "-m", "benchmarks.event_loop", str(gaps), "--idle"])
    try:
        yield gaps
    finally:
        idle.terminate()
        idle.wait()


def _serve_watched(gaps: Path) -> int:
    """The service as it is, with one more task on its loop."""
    from app import serving
    from app.__main__ import main
    from app.application import create_app
    from app.foundation import Foundation

    async def watched(_app: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(watch(gaps))
        yield
        task.cancel()

    def create(foundation: Foundation) -> web.Application:
        app = create_app(foundation)
        app.cleanup_ctx.append(watched)
        return app

    vars(serving)["create_app"] = create
    return main([])


if __name__ == "__main__":
    if sys.argv[2:] == ["--idle"]:
        asyncio.run(watch(Path(sys.argv[1])))
    else:
        sys.exit(_serve_watched(Path(sys.argv[1])))
