"""A guest whose memory QEMU has to be asked about: once in each of its runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.capture.live import PROBE_STOP_MS
from demo import Guest, PrivateLibvirt, Shape
from demo.guest import GuestFiles
from tests.faults.conftest import add_running
from tests.lab import add_ready
from tests.qemu.listener import hearing
from tests.qemu.outside import memdump
from tests.thorough import thorough

PATIENT = "--max-pause-ms=5000"
"""However slow the machine is just now, both stops are allowed."""

UEFI = Guest(name="vm-uefi-01", vmid="108", shape=Shape(ovmf=True, room_mib=128))
"""Firmware of its own, which the rules do not know."""

VIRTIO_MEM = """
<memory model='virtio-mem'>
  <target><size unit='MiB'>256</size><node>0</node><block unit='MiB'>2</block><requested unit='MiB'>128</requested></target>
</memory>
"""


class Growing(Guest):
    """A guest with memory that can be plugged in piece by piece."""

    def xml(self, files: GuestFiles) -> str:
        return super().xml(files).replace("</devices>", f"{VIRTIO_MEM}</devices>")


GROWING = Growing(name="vm-grows-01", vmid="109", memory_mib=256, boots=False, shape=Shape(room_mib=1024))


DIMM = "<memory model='dimm'><target><size unit='MiB'>128</size><node>0</node></target></memory>"


@thorough
@pytest.mark.timeout(120)
def test_guest_is_stopped_for_its_headers_once_in_each_run(own_lab: PrivateLibvirt, tmp_path: Path) -> None:
    add_ready(own_lab, UEFI)
    first, second = (memdump(own_lab, tmp_path, UEFI, "--mode=live", PATIENT).manifest for _ in range(2))
    assert first["mode"] == second["mode"] == "live"
    assert len(first["guest_pauses_ms"]) == 2
    assert "QEMU was asked where the memory lies" in " ".join(first["warnings"])
    assert len(second["guest_pauses_ms"]) == 1
    assert second["warnings"] == []
    with own_lab.connection() as connection:
        connection.lookupByName(UEFI.name).attachDevice(DIMM)
    plugged = memdump(own_lab, tmp_path, UEFI, "--mode=live", PATIENT).manifest  # what is known of it is not true any more
    assert len(plugged["guest_pauses_ms"]) == 2
    assert plugged["raw_size_bytes"] > second["raw_size_bytes"] + (128 << 20)
    with own_lab.connection() as connection:
        connection.lookupByName(UEFI.name).destroy()
        connection.lookupByName(UEFI.name).create()
    third = memdump(own_lab, tmp_path, UEFI, "--mode=live", PATIENT).manifest
    assert len(third["guest_pauses_ms"]) == 2


@thorough
def test_guest_is_not_stopped_for_its_headers_where_that_would_be_too_long(own_lab: PrivateLibvirt, tmp_path: Path) -> None:
    add_ready(own_lab, UEFI)
    with hearing(own_lab.uri, UEFI.name) as listener:
        refused = memdump(own_lab, tmp_path, UEFI, "--mode=live", f"--max-pause-ms={PROBE_STOP_MS}")
        heard = [name for name, _ in listener.heard()]
    assert (refused.code, refused.lines[-1]["code"]) == (6, "layout-unknown")
    assert "max_pause_ms" in refused.lines[-1]["message"]
    phases = [line["phase"] for line in refused.lines if line["event"] == "phase"]
    assert phases == ["preparing", "capturing"]  # its time limit is in force as long as the paused way could follow
    assert heard == ["STOP", "RESUME"]
    assert list((tmp_path / "dumps").iterdir()) == []


@thorough
def test_no_memory_of_the_guest_is_in_what_is_kept(own_lab: PrivateLibvirt, tmp_path: Path) -> None:
    add_ready(own_lab, UEFI)
    assert memdump(own_lab, tmp_path, UEFI, "--mode=live", PATIENT).code == 0
    (kept,) = own_lab.folder.rglob("*.header")
    assert kept.stat().st_mode & 0o777 == 0o600
    assert kept.stat().st_size < 4096


def test_guest_with_memory_of_another_model_is_not_stopped_in_vain(own_lab: PrivateLibvirt, tmp_path: Path) -> None:
    add_running(own_lab, GROWING)
    with hearing(own_lab.uri, GROWING.name) as listener:
        refused = memdump(own_lab, tmp_path, GROWING, "--mode=live")
        heard = listener.heard()
    assert (refused.code, refused.lines[-1]["code"]) == (6, "layout-unknown")
    assert "virtio-mem" in refused.lines[-1]["message"]
    assert heard == []
    captured = memdump(own_lab, tmp_path, GROWING, "--mode=auto").manifest
    assert captured["mode"] == "paused"
    assert len(captured["guest_pauses_ms"]) == 1
    assert "virtio-mem" in " ".join(captured["warnings"])
