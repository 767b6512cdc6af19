"""The capture process's peak memory, for a guest of 1 GiB and for one of 3.5 GiB: it must not grow with the guest."""

from __future__ import annotations

from benchmarks.figures import Figure, in_turn, median, spread
from benchmarks.stage import GUEST, LARGE, Stage
from demo import Guest
from tests.qemu.outside import memdump

_MOST_MIB = 250
_SPOOL_MIB = 1200


def of_small_and_large(on: Stage) -> Figure:
    """``VmHWM`` of ``scripts/memdump.py``, which is the capture process, gzip, the paused way."""
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
    capture = memdump(on.lab, on.folder / "peak", guest, "--no-record", f"--mode={mode}", **settings)
    if capture.code:
        raise RuntimeError(f"the capture ended with {capture.code}: {capture.lines[-1]}")
    for path in (on.folder / "peak" / "dumps").iterdir():
        path.unlink()
    return capture.peak_bytes / 2**20
