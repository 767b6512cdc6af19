"""The migration stream's parser into the spool, against copying the stream's bytes once, which is the least it can cost."""

from __future__ import annotations

import mmap
import tempfile
import time
from pathlib import Path

import libvirt

from app.capture.migration import Migration
from app.capture.spool import open_spool
from app.fifo import Rendezvous
from benchmarks.figures import Figure, in_turn, median, spread
from benchmarks.stage import GUEST, Stage

_CHUNK_BYTES = 4 << 20
_MOST_SEC = 0.4


def into_memory(on: Stage) -> Figure:
    """A recorded stream of the guest of 1 GiB, in memory beforehand, fed by 4 MiB as the capture does."""
    path = on.scratch("parser.stream")
    try:
        with on.lab.connection() as connection:
            connection.lookupByName(GUEST.name).coreDump(str(path), libvirt.VIR_DUMP_LIVE)
        stream = memoryview(path.read_bytes())
    finally:
        path.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=on.folder) as folder:
        ours, copy = in_turn(lambda: _parse(stream, Path(folder)), lambda: _copy(stream))
    return Figure(
        claim=f"{len(stream) >> 20} MiB of migration stream (1 GiB, half full) parsed into the spool, against one copy of it",
        ours=spread(ours, "s"),
        baseline=spread(copy, "s"),
        ratio=f"{median(ours) / median(copy):.1f} times",
        bound=f"{_MOST_SEC:g} s",
        met=median(ours) <= _MOST_SEC,
    )


def _parse(stream: memoryview, folder: Path) -> float:
    with open_spool(GUEST.memory_mib << 20, folder, Rendezvous(folder, None), 2 << 30) as spool:
        assert spool.in_memory
        started = time.perf_counter()
        migration = Migration(spool)
        at = 0
        while at < len(stream):
            at += migration.feed(stream[at : at + _CHUNK_BYTES])
        migration.finish()
        return time.perf_counter() - started


def _copy(stream: memoryview) -> float:
    """Into memory that nobody has touched yet, as the spool's."""
    with mmap.mmap(-1, len(stream), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as fresh:
        fresh.madvise(mmap.MADV_HUGEPAGE)
        started = time.perf_counter()
        for at in range(0, len(stream), _CHUNK_BYTES):
            piece = stream[at : at + _CHUNK_BYTES]
            fresh[at : at + len(piece)] = piece
        return time.perf_counter() - started
