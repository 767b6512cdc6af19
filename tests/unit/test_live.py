"""What is known of a live capture before the guest is touched, and when a try is given up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from app.capture.budget import Budget
from app.capture.guest import Guest
from app.capture.layout import refuse_passthrough
from app.capture.live import (
    ABORT_SEC,
    PROBE_STOP_MS,
    GivenUp,
    Limits,
    LivePlan,
    Watch,
    allow_probe,
    check_it_ran,
    live_image,
    receive,
)
from app.capture.migration import Migration
from app.capture.patience import Call
from app.capture.pausemeter import PauseMeter
from app.capture.report import Report
from app.capture.source import Stream
from app.capture.spool import Spool, open_spool
from app.errors import CaptureFailed, HypervisorNotResponding, HypervisorUnreachable, LayoutUnknown, LiveNotPossible
from app.fifo import Rendezvous
from app.lines import Line
from app.model import Domain, DomainState
from tests.migration_stream import PAGE, Page, stream

OF_THE_HOST = {
    "pci": "<hostdev mode='subsystem' type='pci' managed='yes'><source><address domain='0x0000' bus='0x06'/></source></hostdev>",
    "mediated": "<hostdev mode='subsystem' type='mdev' managed='no' model='vfio-pci'/>",
    "scsi": "<hostdev mode='subsystem' type='scsi' rawio='yes'><source><adapter name='scsi_host0'/></source></hostdev>",
    "scsi host": "<hostdev mode='subsystem' type='scsi_host'><source protocol='vhost' wwpn='naa.50014057667280d8'/></hostdev>",
    "vdpa device": "<hostdev mode='subsystem' type='vdpa'><source dev='/dev/vhost-vdpa-0'/></hostdev>",
    "not known yet": "<hostdev mode='subsystem' type='quantum'/>",
    "network": "<interface type='hostdev' managed='yes'><mac address='52:54:00:6d:90:02'/></interface>",
    "vdpa network": "<interface type='vdpa'><source dev='/dev/vhost-vdpa-0'/></interface>",
    "nvme": "<disk type='nvme' device='disk'><source type='pci' namespace='1'/><target dev='vde' bus='virtio'/></disk>",
    "nvme below": "<disk type='file' device='disk'><backingStore type='nvme'><source type='pci'/></backingStore></disk>",
}
OF_QEMU = {
    "usb": "<hostdev mode='subsystem' type='usb'><source><vendor id='0x1234'/><product id='0xbeef'/></source></hostdev>",
    "network": "<interface type='network'><source network='default'/><model type='virtio'/></interface>",
    "bridge": "<interface type='bridge'><source bridge='br0'/></interface>",
    "disk": "<disk type='block' device='disk'><source dev='/dev/nvme0n1'/><target dev='vda' bus='virtio'/></disk>",
    "channel": "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>",
}
PAGES = 8
WHOLE = stream([("pc.ram", PAGES)], [[Page(0, number, b"\x01" * PAGE) for number in range(PAGES)]])
FIRST, REST = WHOLE[: 4 * PAGE], WHOLE[4 * PAGE :]
AT_ONCE = Limits(times_ram=0.1, after_first_pass_sec=3600)
NEVER = Limits(times_ram=100, after_first_pass_sec=3600)
NOTHING: Any = None  # neither libvirt nor QEMU is there to be asked


@pytest.mark.parametrize("device", OF_THE_HOST.values(), ids=OF_THE_HOST)
def test_guest_with_a_passed_through_device_is_refused_before_anything_is_tried(tmp_path: Path, device: str) -> None:
    told: list[Line] = []
    plan = _plan(tmp_path, f"<domain><devices>{device}</devices></domain>", max_pause_ms=300)
    with (
        pytest.raises(LiveNotPossible, match=r"a device of the host"),
        live_image(plan, NOTHING, Report("7", told.append), NOTHING),
    ):
        pass
    assert told == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("device", OF_QEMU.values(), ids=OF_QEMU)
def test_device_that_writes_through_qemu_stands_in_no_way(device: str) -> None:
    refuse_passthrough("vm-web-01", f"<domain><devices>{device}</devices></domain>")


@pytest.mark.parametrize(("max_pause_ms", "downtimes"), [(300, [20, 300]), (21, [20, 21]), (20, [20]), (5, [5])])
def test_no_try_allows_a_longer_stop_than_was_asked_for(tmp_path: Path, max_pause_ms: int, downtimes: list[int]) -> None:
    assert [downtime_ms for downtime_ms, _ in _plan(tmp_path, "<domain/>", max_pause_ms).tries()] == downtimes


@pytest.mark.parametrize(("stood_ms", "max_stops_ms"), [(0, PROBE_STOP_MS), (14.2, 300), (300 - PROBE_STOP_MS, 300)])
def test_qemu_is_asked_for_its_headers_where_both_stops_are_allowed(stood_ms: float, max_stops_ms: int) -> None:
    allow_probe(LayoutUnknown("It has UEFI firmware."), stood_ms, max_stops_ms)


@pytest.mark.parametrize(("stood_ms", "max_stops_ms"), [(0.1, PROBE_STOP_MS), (14.2, 20), (300.1 - PROBE_STOP_MS, 300)])
def test_qemu_is_not_asked_for_its_headers_where_that_would_stop_the_guest_for_too_long(stood_ms: float, max_stops_ms: int) -> None:
    with pytest.raises(LayoutUnknown, match=rf"UEFI firmware\. .* {max_stops_ms} ms are allowed"):
        allow_probe(LayoutUnknown("It has UEFI firmware."), stood_ms, max_stops_ms)


class FakeStream:
    """A dump that is whole, or is cut short and not confirmed, or goes on without end."""

    def __init__(self, *chunks: bytes, aborted: bool = False, then: Callable[[], None] | None = None) -> None:
        self._chunks = list(chunks)
        self._aborted = aborted
        self._then = then

    def read(self, view: memoryview, tick: Callable[[], None]) -> int:
        if not self._chunks and self._then is not None:
            self._then()
            tick()
            return self.read(view, tick)
        chunk = self._chunks.pop(0) if self._chunks else b""
        view[: len(chunk)] = chunk
        return len(chunk)

    def confirm(self, tick: Callable[[], None]) -> None:
        tick()
        if self._aborted:
            raise CaptureFailed("libvirt reported: operation aborted.")


class FakeGuest:
    """Counts how often it was told to abort, which takes ``abort_sec``; asked for its state it does as it was told."""

    def __init__(self, suspended: Callable[[], bool] = lambda: False, abort_sec: float = 0) -> None:
        self.aborts = self.aborted = 0
        self.abort_sec = abort_sec
        self.connection = SimpleNamespace(uri="qemu:///system")
        self.domain = SimpleNamespace(name="vm-web-01")
        self.suspended = suspended

    def abort(self) -> Call[None]:
        self.aborts += 1
        return Call(self._abort)

    def _abort(self) -> None:
        time.sleep(self.abort_sec)  # so that it ends after the stream has: who does not wait for it is seen
        self.aborted += 1


class Clock:
    """Stands still between the calls of ``tick``."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def pass_by(self) -> None:
        self.now += ABORT_SEC / 4


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with open_spool(PAGES * PAGE, tmp_path, Rendezvous(tmp_path, None), 0) as opened:
        yield opened


def test_dump_that_was_whole_before_its_abort_is_kept(spool: Spool) -> None:
    """The abort is waited for all the same: it would hit the next job on the guest, whoever's that is."""
    guest, migration = FakeGuest(abort_sec=0.2), Migration(spool)
    watch = Watch(cast("Guest", guest), migration, AT_ONCE)
    receive(cast("Stream", FakeStream(FIRST, REST)), migration, watch, lambda: None)
    assert (guest.aborts, guest.aborted) == (1, 1)
    assert migration.finish().name == "pc-q35-7.2"


def test_dump_that_was_aborted_is_given_up(spool: Spool) -> None:
    guest, migration = FakeGuest(), Migration(spool)
    with pytest.raises(GivenUp, match="times its memory was read"):
        receive(
            cast("Stream", FakeStream(FIRST, aborted=True)),
            migration,
            Watch(cast("Guest", guest), migration, AT_ONCE),
            lambda: None,
        )
    assert guest.aborts == 1


def test_dump_that_failed_by_itself_is_not_taken_for_one_that_was_given_up(spool: Spool) -> None:
    guest, migration = FakeGuest(), Migration(spool)
    with pytest.raises(CaptureFailed, match="operation aborted"):
        receive(
            cast("Stream", FakeStream(FIRST, aborted=True)), migration, Watch(cast("Guest", guest), migration, NEVER), lambda: None
        )
    assert guest.aborts == 0


def test_abort_that_nobody_heeds_is_waited_for_within_a_bound(spool: Spool) -> None:
    guest, migration, clock = FakeGuest(), Migration(spool), Clock()
    endless = FakeStream(FIRST, then=clock.pass_by)
    with pytest.raises(HypervisorNotResponding):
        receive(cast("Stream", endless), migration, Watch(cast("Guest", guest), migration, AT_ONCE, clock), lambda: None)
    assert guest.aborts == 1


def _nobody_answers() -> bool:
    raise HypervisorUnreachable("qemu:///system", "Cannot recv data: Connection reset by peer")


def test_whole_image_outlives_the_libvirtd_that_could_say_whether_the_guest_ran() -> None:
    told: list[Line] = []
    meter = SimpleNamespace(foreign=0)
    check_it_ran(cast("Guest", FakeGuest(_nobody_answers)), cast("PauseMeter", meter), Report("7", told.append))
    assert told == []


def test_image_of_a_guest_that_was_suspended_as_its_capture_began_is_refused() -> None:
    told: list[Line] = []
    report = Report("7", told.append)
    meter = SimpleNamespace(foreign=0, resumed=lambda: False)
    with pytest.raises(LiveNotPossible, match="was suspended as its live capture began"):
        check_it_ran(cast("Guest", FakeGuest(lambda: True)), cast("PauseMeter", meter), report)
    assert len(report.warnings) == 1
    assert "let go of the locks on its disk images" in report.warnings[0]


def _plan(folder: Path, xml: str, max_pause_ms: int) -> LivePlan:
    domain = Domain(
        uuid="0199",
        name="vm-gpu-01",
        id=7,
        vmid="7",
        state=DomainState.RUNNING,
        memory_bytes=1 << 30,
        vcpus=1,
        hypervisor="kvm-07",
    )
    guest, where = Guest(NOTHING, NOTHING, domain), Rendezvous(folder, None)
    return LivePlan(
        guest=guest,
        budget=Budget(guest, where, "test"),
        xml=xml,
        where=where,
        capture_id="test",
        dump_dir=folder,
        max_pause_ms=max_pause_ms,
        max_stops_ms=max_pause_ms,
        spool_memory_bytes=None,
    )
