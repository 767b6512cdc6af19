"""What is known of a live capture before the guest is touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.capture.guest import Guest
from app.capture.layout import refuse_passthrough
from app.capture.live import LivePlan, live_image
from app.capture.report import Report
from app.errors import LiveNotPossible
from app.fifo import Rendezvous
from app.lines import Line
from app.model import Domain, DomainState

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
