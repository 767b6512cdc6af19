"""A guest that is suspended, or given more memory, between the last look at it and libvirt's live dump."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.capture.budget import budget
from app.capture.connection import connect
from app.capture.elfcore import read_header
from app.capture.guest import Guest as Running
from app.capture.guest import look_up
from app.capture.live import After, LiveImage, LivePlan, live_image
from app.capture.patience import Patience
from app.capture.pausemeter import PauseMeter
from app.capture.report import Report
from app.errors import LiveNotPossible
from app.fifo import rendezvous
from app.lines import Line, WarningLine
from demo import Guest, PrivateLibvirt, Shape
from tests.exact.conftest import Stand
from tests.qemu.outside import virsh

NOTHING_IS_DONE = After(looks=lambda: None, captured=lambda: None)
IDLE = Guest(name="vm-late-01", memory_mib=128, boots=False, shape=Shape(room_mib=128))
DIMM = "<memory model='dimm'><target><size unit='MiB'>128</size><node>0</node></target></memory>"


class SuspendedAfterTheLook(Running):
    """The moment that no look can rule out."""

    def runs(self) -> bool:
        ran = super().runs()
        self.connection.call(self.raw.suspend)
        return ran


class PluggedAfterTheLook(Running):
    """The same."""

    def runs(self) -> bool:
        self.connection.call(lambda: self.raw.attachDevice(DIMM))
        return super().runs()


class Deaf(PauseMeter):
    """Hears none of QEMU's events."""

    def from_qemu(self, *event: object) -> None:
        pass


@pytest.fixture
def told() -> list[Line]:
    """What a capture says."""
    return []


@contextlib.contextmanager
def captured(
    lab: PrivateLibvirt, kind: type[Running], folder: Path, told: list[Line], listener: type[PauseMeter] = PauseMeter
) -> Iterator[LiveImage]:
    """What a live capture gives to which ``IDLE`` is of this kind."""
    with contextlib.closing(connect(lab.uri, Patience(60))) as connection:
        found = look_up(connection, IDLE.name)
        guest = kind(connection, found.raw, found.domain)
        where = rendezvous(lab.uri, folder)
        with budget(guest, where, "test", lambda: True) as allowed, listener(guest) as meter:
            plan = LivePlan(
                guest=guest,
                budget=allowed,
                xml=guest.xml(),
                where=where,
                capture_id="test",
                dump_dir=folder,
                max_pause_ms=300,
                max_stops_ms=300,
                spool_memory_bytes=None,
            )
            with live_image(plan, meter, Report("7", told.append), NOTHING_IS_DONE) as image:
                yield image


def test_guest_that_is_suspended_after_the_last_look_is_not_sold_as_captured_live(
    shapes: PrivateLibvirt, stand: Stand, tmp_path: Path, told: list[Line]
) -> None:
    stand(IDLE)
    virsh(shapes, "resume", IDLE.name)
    with (
        pytest.raises(LiveNotPossible, match="suspended as its live capture began"),
        captured(shapes, SuspendedAfterTheLook, tmp_path, told),
    ):
        pass
    assert [line.code for line in told if isinstance(line, WarningLine)] == ["disks-not-locked"]
    assert virsh(shapes, "domstate", "--reason", IDLE.name) == "paused (user)"


def test_memory_that_is_plugged_in_after_the_last_look_is_in_the_image_and_in_its_xml(
    shapes: PrivateLibvirt, stand: Stand, tmp_path: Path, told: list[Line]
) -> None:
    stand(IDLE)
    virsh(shapes, "resume", IDLE.name)
    start = bytearray(64 << 10)
    with captured(shapes, PluggedAfterTheLook, tmp_path, told) as live:
        live.image.fill(start)
        assert "<memory model='dimm'>" in live.xml
    assert read_header(start).offset_of(4 << 30) > 0
    assert [line for line in told if isinstance(line, WarningLine)] == []


def test_instant_that_nobody_heard_is_a_warning_and_is_not_made_up(
    shapes: PrivateLibvirt, stand: Stand, tmp_path: Path, told: list[Line]
) -> None:
    stand(IDLE)
    virsh(shapes, "resume", IDLE.name)
    with captured(shapes, Running, tmp_path, told, Deaf) as live:
        assert live.captured_at is None
    assert [line.code for line in told if isinstance(line, WarningLine)] == ["instant-unknown"]
