"""Guests behind ``qemu+ssh://``: the same images as from here, and nothing stays on the other host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.capture.codecs import read_raw
from app.capture.elfcore import read_header
from demo import Guest, PrivateLibvirt, Shape
from tests.contract.speech import Api, Message
from tests.faults.processes import eventually
from tests.lab import COLD, WEB
from tests.qemu.outside import dumped, sha256sum, unpacked_to, virsh
from tests.service import Service, running_service
from tests.sshd import PrivateSshd, far_folders
from tests.thorough import thorough

pytestmark = thorough

HEAD_BYTES = 4096


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, lab: PrivateLibvirt, sshd: PrivateSshd) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("service"), LIBVIRT_URI=sshd.uri(lab)) as started:
        yield started


@pytest.fixture(autouse=True)
def nothing_is_left_over_there(lab: PrivateLibvirt) -> Iterator[None]:
    yield
    assert not far_folders(lab)


@pytest.mark.parametrize("mode", ["paused", "live"])
def test_remote_dump_is_the_local_one(lab: PrivateLibvirt, sshd: PrivateSshd, tmp_path: Path, mode: str) -> None:
    """Of a guest that never ran."""
    here = dumped(lab, tmp_path, COLD, f"--mode={mode}")
    there = dumped(lab, tmp_path, COLD, f"--mode={mode}", f"--uri={sshd.uri(lab, no_verify='1')}")
    assert there["sha256"] == here["sha256"] == sha256sum(unpacked_to(there, tmp_path / "image"))
    assert there["raw_size_bytes"] == here["raw_size_bytes"]
    eventually(lambda: not sshd.far_processes(), "no process is left over there")


@pytest.mark.parametrize("mode", ["paused", "live"])
def test_running_guest_is_dumped_from_afar(lab: PrivateLibvirt, sshd: PrivateSshd, tmp_path: Path, mode: str) -> None:
    manifest = dumped(lab, tmp_path, WEB, f"--mode={mode}", f"--uri={sshd.uri(lab)}")
    assert (manifest["mode"], manifest["dom"], manifest["warnings"]) == (mode, WEB.name, [])
    assert manifest["uri"].startswith("qemu+ssh://")
    assert manifest["guest_pause_ms"] > 0
    assert _marker_in(manifest) == WEB.marker
    assert virsh(lab, "domstate", WEB.name) == "running"
    eventually(lambda: not sshd.far_processes(), "no process is left over there")


def test_guest_with_shared_memory_is_dumped_from_afar(own_lab: PrivateLibvirt, sshd: PrivateSshd, tmp_path: Path) -> None:
    """Of its host's memory only libvirt can tell."""
    guest = Guest(name="vm-memfd-01", memory_mib=128, boots=False, shape=Shape(backing="memfd"))
    own_lab.add(guest)
    manifest = dumped(own_lab, tmp_path, guest, "--mode=paused", f"--uri={sshd.uri(own_lab)}")
    assert manifest["warnings"] == []
    assert not far_folders(own_lab)


async def test_service_lists_and_dumps_what_is_behind_ssh(service: Service, lab: PrivateLibvirt) -> None:
    async with Api.of(service) as api:
        await api.connected()
        known = {vm["name"]: vm["state"] for vm in (await api.get("/api/telemetry/live-vms"))["vms"]}
        assert known[WEB.name] == "running"
        (job,) = await api.dump(WEB.name)
        record = await api.get(f"/api/memory-dumps/records/{job['dump_id']}")
    assert _marker_in(record) == WEB.marker
    assert virsh(lab, "domstate", WEB.name) == "running"
    assert "capture_complains" not in service.log_text()


def _marker_in(manifest: Message) -> bytes:
    """What stands at the marker's address."""
    with Path(manifest["dump_path"]).open("rb") as file:
        algorithm = manifest["compression"]["algorithm"]
        at = read_header(read_raw(file, algorithm, 0, HEAD_BYTES)).offset_of(WEB.marker_address)
        return read_raw(file, algorithm, at, len(WEB.marker))
