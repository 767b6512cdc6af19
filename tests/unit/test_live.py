"""What is known of a live capture before the guest is touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.capture.guest import Guest
from app.capture.live import LivePlan, live_image
from app.capture.report import Report
from app.errors import LiveNotPossible
from app.fifo import Rendezvous
from app.lines import Line
from app.model import Domain, DomainState

PCI = "<hostdev mode='subsystem' type='pci' managed='yes'><source><address domain='0x0000' bus='0x06'/></source></hostdev>"
MEDIATED = "<hostdev mode='subsystem' type='mdev' managed='no' model='vfio-pci'/>"
NETWORK = "<interface type='hostdev' managed='yes'><mac address='52:54:00:6d:90:02'/></interface>"
NOTHING: Any = None  # neither libvirt nor QEMU is there to be asked


@pytest.mark.parametrize("device", [PCI, MEDIATED, NETWORK], ids=["pci", "mediated", "network"])
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


@pytest.mark.parametrize(("max_pause_ms", "downtimes"), [(300, [20, 300]), (21, [20, 21]), (20, [20]), (5, [5])])
def test_no_try_allows_a_longer_stop_than_was_asked_for(tmp_path: Path, max_pause_ms: int, downtimes: list[int]) -> None:
    assert [downtime_ms for downtime_ms, _ in _plan(tmp_path, "<domain/>", max_pause_ms).tries()] == downtimes


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
    return LivePlan(
        guest=Guest(NOTHING, NOTHING, domain),
        xml=xml,
        where=Rendezvous(folder, None),
        capture_id="test",
        dump_dir=folder,
        max_pause_ms=max_pause_ms,
        spool_memory_bytes=None,
    )
