"""How long the guest stands still, against the least that a memory-only dump can cost: a reader that throws all away."""

from __future__ import annotations

import fcntl
import os
import subprocess

import libvirt

from app.capture import Patience, connect
from app.capture.guest import look_up
from app.capture.pausemeter import PauseMeter
from benchmarks.figures import Figure, in_turn, median, spread
from benchmarks.stage import GUEST, Stage, dump, service

_F_SETPIPE_SZ = 1031


def against_the_floor(on: Stage) -> Figure:
    """The pause of a dump with gzip, the default."""
    with service(on, "pause") as by:
        ours, floor = in_turn(lambda: float(dump(by, [GUEST], "gzip")[1][0]["guest_pause_ms"]), lambda: _floor(on))
    ratio = median(ours) / median(floor)
    return Figure(
        claim="guest pause, against the floor (a reader that throws away what a FIFO of 1 MiB gives)",
        ours=spread(ours, "ms", 0),
        baseline=spread(floor, "ms", 0),
        ratio=f"{ratio:.2f} times",
        bound="2 times",
        met=ratio <= 2,
    )


def _floor(on: Stage) -> float:
    path = on.scratch("floor.fifo")
    os.mkfifo(path, 0o600)
    on.give(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        fcntl.fcntl(reader, _F_SETPIPE_SZ, 1 << 20)
        os.set_blocking(reader, True)
        connection = connect(on.lab.uri, Patience())
        guest = look_up(connection, GUEST.name)
        # Held open for writing until dd reads, for dd would take a FIFO without a writer for one that has ended.
        writer = os.open(path, os.O_WRONLY)
        discard = subprocess.Popen(["dd", "of=/dev/null", "bs=1M", "status=none"], stdin=reader)
        with PauseMeter(guest) as meter:
            meter.expect("paused")
            guest.raw.coreDumpWithFormat(
                str(path), libvirt.VIR_DOMAIN_CORE_DUMP_FORMAT_RAW, libvirt.VIR_DUMP_MEMORY_ONLY | libvirt.VIR_DUMP_LIVE
            )
            os.close(writer)
            discard.wait()
            stops = meter.stops()
        connection.close()
    finally:
        os.close(reader)
        path.unlink()
    return sum(stops.each_ms)
