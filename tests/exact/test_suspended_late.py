"""A guest that is suspended between the last look at it and libvirt's live dump."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from app.capture.connection import connect
from app.capture.guest import Guest as Running
from app.capture.guest import look_up
from app.capture.live import LivePlan, live_image
from app.capture.patience import Patience
from app.capture.pausemeter import PauseMeter
from app.capture.report import Report
from app.errors import LiveNotPossible
from app.fifo import rendezvous
from app.lines import Line, WarningLine
from demo import Guest, PrivateLibvirt
from tests.exact.conftest import Stand
from tests.qemu.outside import virsh

IDLE = Guest(name="vm-late-01", memory_mib=128, boots=False)


class SuspendedAfterTheLook(Running):
    """The moment that no look can rule out."""

    def runs(self) -> bool:
        ran = super().runs()
        self.connection.call(self.raw.suspend)
        return ran


def test_guest_that_is_suspended_after_the_last_look_is_not_sold_as_captured_live(
    shapes: PrivateLibvirt, stand: Stand, tmp_path: Path
) -> None:
    stand(IDLE)
    virsh(shapes, "resume", IDLE.name)
    told: list[Line] = []
    with contextlib.closing(connect(shapes.uri, Patience(60))) as connection:
        found = look_up(connection, IDLE.name)
        guest = SuspendedAfterTheLook(connection, found.raw, found.domain)
        where = rendezvous(shapes.uri, tmp_path)
        plan = LivePlan(
            guest=guest,
            xml=guest.xml(),
            where=where,
            capture_id="test",
            dump_dir=tmp_path,
            max_pause_ms=300,
            max_stops_ms=300,
            spool_memory_bytes=None,
        )
        with (
            PauseMeter(guest) as meter,
            pytest.raises(LiveNotPossible, match="suspended as its live capture began"),
            live_image(plan, meter, Report("7", told.append), lambda: None),
        ):
            pass
    assert [line.code for line in told if isinstance(line, WarningLine)] == ["disks-not-locked"]
    assert virsh(shapes, "domstate", "--reason", IDLE.name) == "paused (user)"
