"""``make bench``: measure everything, print the table, write it to ``docs/benchmarks.md``. Exit code 1 if a bound is missed."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from benchmarks import (
    dump_time,
    event_loop,
    guest_pause,
    live_pause,
    live_time,
    login_check,
    page,
    parser,
    peak_memory,
    records,
    records_http,
)
from benchmarks.figures import RUNS, Figure
from benchmarks.stage import GUEST, GUESTS, Stage, stage

REPORT = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"

T = TypeVar("T")

CLAIMS: tuple[Callable[[Stage], Figure], ...] = (
    live_pause.idle,  # before anything else: the first capture of each guest counts
    dump_time.against_three_steps,
    dump_time.against_a_pipeline,
    guest_pause.against_the_floor,
    peak_memory.of_small_and_large,
    event_loop.while_two_dumps_run,
    live_pause.busy,
    live_pause.against_the_paused_way,
    live_time.half_full,
    live_time.mostly_empty,
    parser.into_memory,
    peak_memory.of_a_spool,
)


def main(names: Sequence[str]) -> int:
    """Measure the claims whose name contains one of ``names``, or all; only a whole run is written down."""
    figures = [
        *_measure(CLAIMS, names, lambda folder: stage(folder, GUESTS)),
        *_measure((*records.CLAIMS, *page.OF_MANY, *records_http.CLAIMS), names, records_http.desk),
        *_measure(page.CLAIMS, names, page.hall),
        *_measure((login_check.of_a_request,), names, nullcontext),
    ]
    if not names:
        REPORT.write_text(_report(figures))
        print(f"Written to {REPORT.relative_to(Path.cwd())}.")
    return 0 if all(figure.met for figure in figures) else 1


def _measure(
    claims: Sequence[Callable[[T], Figure]], names: Sequence[str], stand: Callable[[Path], AbstractContextManager[T]]
) -> list[Figure]:
    """What they need is made only if some of them are asked for."""
    chosen = [claim for claim in claims if not names or any(name in _name(claim) for name in names)]
    figures: list[Figure] = []
    if chosen:
        with tempfile.TemporaryDirectory(prefix="memdump-bench-") as folder, stand(Path(folder)) as on:
            for claim in chosen:
                figures.append(claim(on))
                print(_row(figures[-1]), flush=True)
    return figures


def _name(claim: Callable[..., Figure]) -> str:
    return f"{claim.__module__}.{claim.__qualname__}"


def _row(figure: Figure) -> str:
    verdict = "met" if figure.met else "**missed**"
    return f"| {figure.claim} | {figure.ours} | {figure.baseline} | {figure.ratio} | {figure.bound} | {verdict} |"


def _report(figures: Sequence[Figure]) -> str:
    rows = "\n".join(map(_row, figures))
    return f"""# Benchmarks

Written by `make bench` on {datetime.now(UTC):%Y-%m-%d}, on {_machine()}.

Dumps are measured on a demo guest of 1 GiB, {GUEST.random_mib} MiB of it random and {GUEST.text_mib} MiB text, under
software emulation, each line beside its baseline in the same run, in turn, {RUNS} times after one that does not count: the
median, and the least and the most in brackets. Records are a million of 200 VMs over two years, asked of the index alone and of a
service over HTTP. The page is that of a real service in a real browser, headless Chromium, which draws without a graphics card; its
events are made up and go the way of real ones.

| | ours | baseline | compared | at most | |
| --- | --- | --- | --- | --- | --- |
{rows}
"""


def _machine() -> str:
    models = [
        line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")
    ]
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    model = models[0] if models else platform.machine()
    return f"{os.cpu_count()} × {model}, {memory_gib:.0f} GiB of memory, Linux {platform.release()}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
