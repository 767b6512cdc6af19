"""The capture process's peak memory, for a guest of 1 GiB and for one of 3.5 GiB: it must not grow with the guest."""

from __future__ import annotations

import os
import sys

from benchmarks.figures import Figure, in_turn, median, spread
from benchmarks.stage import GUEST, LARGE, Stage
from demo import Guest

_MOST_MIB = 250
_SPOOL_MIB = 1200


def of_small_and_large(on: Stage) -> Figure:
    """``ru_maxrss`` of ``scripts/memdump.py``, which is the capture process, gzip, the paused way."""
    small, large = in_turn(lambda: _peak_mib(on, GUEST, "paused"), lambda: _peak_mib(on, LARGE, "paused"))
    growth = median(large) / median(small) - 1
    return Figure(
        claim="peak memory of the capture process, and the same for a guest of 3.5 GiB",
        ours=spread(small, "MiB", 0),
        baseline=f"3.5 GiB: {spread(large, 'MiB', 0)}",
        ratio=f"{growth:+.1%}",
        bound=f"{_MOST_MIB} MiB, ±10 %",
        met=max(*small, *large) <= _MOST_MIB and abs(growth) <= 0.1,
    )


def of_a_spool(on: Stage) -> Figure:
    """The live way with the spool in memory, and on disk; RSS counts what the guest has ever written."""
    memory, disk = in_turn(
        lambda: _peak_mib(on, GUEST, "live", MEMDUMP_SPOOL_MEMORY=f"{_SPOOL_MIB}M"),
        lambda: _peak_mib(on, GUEST, "live", MEMDUMP_SPOOL_MEMORY="1M"),
    )
    return Figure(
        claim=f"live: peak memory of the capture process, spool in memory (bound {_SPOOL_MIB} MiB) · on disk",
        ours=spread(memory, "MiB", 0),
        baseline=f"on disk: {spread(disk, 'MiB', 0)}",
        ratio="–",
        bound=f"spool + {_MOST_MIB} MiB · {_MOST_MIB} MiB",
        met=max(memory) <= _SPOOL_MIB + _MOST_MIB and max(disk) <= _MOST_MIB,
    )


def _peak_mib(on: Stage, guest: Guest, mode: str, **settings: str) -> float:
    dumps = on.folder / "peak"
    dumps.mkdir(exist_ok=True)
    options = ["--no-record", f"--mode={mode}", f"--uri={on.lab.uri}", f"--dump-dir={dumps}"]
    words = [sys.executable, "scripts/memdump.py", *options, guest.name]
    silent = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1, 2)]
    pid = os.posix_spawn(words[0], words, {**os.environ, **settings}, file_actions=silent)
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise RuntimeError(f"the capture ended with {os.waitstatus_to_exitcode(status)}")
    for path in dumps.iterdir():
        path.unlink()
    return usage.ru_maxrss / 1024
