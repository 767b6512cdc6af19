"""From the request to the sealed dump, against what people do by hand."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Figure, in_turn, median, spread
from benchmarks.stage import GUEST, Stage, dump, service

_F_SETPIPE_SZ = 1031


def against_three_steps(on: Stage) -> Figure:
    """gzip, against ``virsh dump --memory-only`` to a file, then ``sha256sum``, then ``gzip``."""

    def by_hand() -> float:
        path = on.scratch("by-hand.elf")
        started = time.monotonic()
        _virsh(on, path).check_returncode()
        subprocess.run(["sha256sum", path], check=True, capture_output=True)
        subprocess.run(["gzip", path], check=True)
        seconds = time.monotonic() - started
        path.with_suffix(".elf.gz").unlink()
        os.sync()
        return seconds

    with service(on, "gzip") as by:
        ours, hand = in_turn(lambda: dump(by, [GUEST], "gzip")[0], by_hand)
    return _figure("request to sealed dump, gzip, against `virsh dump`, then `sha256sum`, then `gzip`", ours, hand, 10)


def against_a_pipeline(on: Stage) -> Figure:
    """zstd, against the best that a shell can do: ``tee >(sha256sum) | zstd -1 -T0`` on a FIFO."""

    def pipeline() -> float:
        with _fifo(on) as fifo:
            packed = on.scratch("pipeline.zst")
            started = time.monotonic()
            command = 'exec < "$1"; tee >(sha256sum > "$2.sha256") | zstd -q -1 -T0 -o "$2"; wait $!'
            reading = subprocess.Popen(["bash", "-c", command, "pipeline", fifo, packed])
            dumped = _virsh(on, fifo)
            reading.wait()
            seconds = time.monotonic() - started
        dumped.check_returncode()
        packed.unlink()
        Path(f"{packed}.sha256").unlink()
        os.sync()
        return seconds

    with service(on, "zstd") as by:
        ours, shell = in_turn(lambda: dump(by, [GUEST], "zstd")[0], pipeline)
    return _figure("the same, zstd, against `tee >(sha256sum) \\| zstd -1 -T0` on a FIFO", ours, shell, 2.5)


@contextlib.contextmanager
def _fifo(on: Stage) -> Iterator[Path]:
    """A FIFO of 1 MiB, as good as ours: the pipe keeps its size while somebody has it open."""
    path = on.scratch("pipeline.fifo")
    os.mkfifo(path, 0o600)
    on.give(path)
    keep = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        fcntl.fcntl(keep, _F_SETPIPE_SZ, 1 << 20)
        yield path
    finally:
        os.close(keep)
        path.unlink()


def _virsh(on: Stage, path: Path) -> subprocess.CompletedProcess[bytes]:
    command = ["virsh", "-q", "-c", on.lab.uri, "dump", "--memory-only", GUEST.name, str(path)]
    return subprocess.run(command, check=False, capture_output=True)


def _figure(claim: str, ours: list[float], baseline: list[float], times: float) -> Figure:
    ratio = median(baseline) / median(ours)
    return Figure(
        claim=claim,
        ours=spread(ours, "s"),
        baseline=spread(baseline, "s"),
        ratio=f"1/{ratio:.1f}",
        bound=f"1/{times:g}",
        met=ratio >= times,
    )
