"""A running guest captured live: one instant, a stop that another witness saw, and a guest that is afterwards as it was."""

from __future__ import annotations

import contextlib
import json
import re
import struct
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import libvirt
import pytest

from app.evidence import MANIFEST
from app.model import MODES, Mode, from_rfc3339
from demo import COUNTER_AT, Guest, PrivateLibvirt, Shape
from tests.contract.speech import FINAL, Api, Message
from tests.lab import BUSY, COLD, COUNTING, DB, WEB, add_ready, running_lab
from tests.qemu.listener import hearing
from tests.qemu.outside import dumped, gzip_read, loads_of, memdump, sha256sum, unpacked_to, virsh
from tests.service import running_service
from tests.thorough import once, thorough

ENOUGH_MS, TOO_LITTLE_MS = 3000, 1
HEAD_BYTES = 4096
PAGE_BYTES = 4096
IN_PEER_MODE = """<qemu:arg value='-object'/><qemu:arg value='memory-backend-memfd,id=shm,share=on,size=1M'/>
<qemu:arg value='-device'/><qemu:arg value='ivshmem-plain,memdev=shm'/></qemu:commandline>"""
"""A device that QEMU does not migrate: shared memory of which another guest is the master."""


@pytest.fixture(scope="module")
def tiring_lab() -> Iterator[PrivateLibvirt]:
    """Guests that write without rest. They stand still where a test has nothing to do with them: they cost three processors."""
    with running_lab() as lab:
        for guest in (COUNTING, BUSY):
            add_ready(lab, guest)
            virsh(lab, "suspend", guest.name)
        yield lab


@pytest.fixture
def counting_lab(tiring_lab: PrivateLibvirt) -> Iterator[PrivateLibvirt]:
    """``COUNTING`` runs."""
    with _going_on(tiring_lab, COUNTING):
        yield tiring_lab


@pytest.fixture
def busy_lab(tiring_lab: PrivateLibvirt) -> Iterator[PrivateLibvirt]:
    """``BUSY`` runs."""
    with _going_on(tiring_lab, BUSY):
        yield tiring_lab


@contextlib.contextmanager
def _going_on(lab: PrivateLibvirt, guest: Guest) -> Iterator[None]:
    virsh(lab, "resume", guest.name)
    yield
    virsh(lab, "suspend", guest.name)


@pytest.mark.parametrize(("mode", "guest"), once([("live", WEB), ("auto", DB)], ("live", WEB)))
def test_live_dump_is_a_vmcore_of_the_instant_that_another_listener_saw(
    lab: PrivateLibvirt, tmp_path: Path, mode: Mode, guest: Guest
) -> None:
    before_ms = virsh(lab, "migrate-getmaxdowntime", guest.name)
    with hearing(lab.uri, guest.name) as listener:
        manifest = dumped(lab, tmp_path, guest, f"--mode={mode}")
        (stopped, stopped_at), (resumed, resumed_at) = listener.heard()
    assert (stopped, resumed) == ("STOP", "RESUME")
    assert (manifest["mode"], manifest["format"], manifest["warnings"]) == ("live", "elf", [])
    assert manifest["guest_pauses_ms"] == [manifest["guest_pause_ms"]]
    assert manifest["guest_pause_ms"] == pytest.approx((resumed_at - stopped_at) * 1000, abs=3)
    assert from_rfc3339(manifest["captured_at"]).timestamp() == pytest.approx(stopped_at, abs=0.003)
    assert virsh(lab, "domstate", "--reason", guest.name).startswith("running")
    assert virsh(lab, "migrate-getmaxdowntime", guest.name) == before_ms
    _assert_is_a_vmcore_of(manifest, guest, tmp_path / "image")
    assert _notes(tmp_path / "image") == ["CORE", "QEMU", "VMCOREINFO"]


def test_dump_shows_one_instant(counting_lab: PrivateLibvirt, tmp_path: Path) -> None:
    """Two counters, raised one after the other, in pages far apart."""
    counted = []
    for number in range(3):
        image = unpacked_to(dumped(counting_lab, tmp_path, COUNTING, "--mode=live"), tmp_path / f"{number}").read_bytes()
        a, b = (_counter(image, COUNTING, letter) for letter in "AB")
        assert a - b in (0, 1)
        counted.append(a)
    assert counted == sorted(set(counted)), "the guest runs on"


@pytest.mark.parametrize("mode", once(MODES, "auto"))
def test_suspended_guest_is_captured_the_paused_way_and_stays_as_it_is(own_lab: PrivateLibvirt, tmp_path: Path, mode: Mode) -> None:
    own_lab.add(COLD)
    virsh(own_lab, "resume", COLD.name)
    virsh(own_lab, "suspend", COLD.name)
    with hearing(own_lab.uri, COLD.name) as listener:
        manifest = dumped(own_lab, tmp_path, COLD, f"--mode={mode}")
        assert listener.heard() == []
    assert (manifest["mode"], manifest["guest_pauses_ms"]) == ("paused", [])
    assert ("suspended" in " ".join(manifest["warnings"])) == (mode != "paused")
    assert virsh(own_lab, "domstate", "--reason", COLD.name) == "paused (user)"
    status = json.loads(virsh(own_lab, "qemu-monitor-command", COLD.name, '{"execute": "query-status"}'))
    assert status["return"]["status"] != "postmigrate"


@thorough
async def test_guest_that_rewrites_its_memory_is_captured_at_the_second_try_with_the_whole_budget(
    busy_lab: PrivateLibvirt, tmp_path: Path
) -> None:
    with running_service(tmp_path, LIBVIRT_URI=busy_lab.uri) as service:
        async with Api.of(service) as api:
            await api.connected()
            async with api.feed() as feed:
                await feed.next()
                await api.trigger(BUSY.name, mode="live", max_pause_ms=ENOUGH_MS)
                heard = await feed.until(lambda message: message["type"] == "job" and message["job"]["phase"] in FINAL)
            job = heard[-1]["job"]
            assert (job["phase"], job["warnings"]) == ("completed", [])
            record = await api.get(f"/api/memory-dumps/records/{job['dump_id']}")
    iterations = [message["iteration"] for message in heard if message["type"] == "progress" and message["phase"] == "capturing"]
    assert max(iterations) > 1
    assert any(after < before for before, after in pairwise(iterations)), "the first try was given up"
    assert record["mode"] == "live"
    assert record["guest_pause_ms"] > 0  # how long is a matter of the machine's load, and the benchmarks'
    assert virsh(busy_lab, "domstate", BUSY.name) == "running"


@thorough
def test_guest_that_does_not_converge_is_told_so_and_runs_on(busy_lab: PrivateLibvirt, tmp_path: Path) -> None:
    before_ms = virsh(busy_lab, "migrate-getmaxdowntime", BUSY.name)
    with hearing(busy_lab.uri, BUSY.name) as listener:
        capture = memdump(busy_lab, tmp_path, BUSY, "--mode=live", f"--max-pause-ms={TOO_LITTLE_MS}")
        assert listener.heard() == []
    assert (capture.code, capture.lines[-1]["code"]) == (6, "live-not-converging")
    assert list((tmp_path / "dumps").iterdir()) == []
    assert virsh(busy_lab, "migrate-getmaxdowntime", BUSY.name) == before_ms


@thorough
async def test_auto_falls_back_and_says_so_everywhere(busy_lab: PrivateLibvirt, tmp_path: Path) -> None:
    with running_service(tmp_path, LIBVIRT_URI=busy_lab.uri, MEMDUMP_MAX_PAUSE_MS=str(TOO_LITTLE_MS)) as service:
        async with Api.of(service) as api:
            await api.connected()
            async with api.feed("topics=job,progress") as feed:
                await feed.next()
                await api.trigger(BUSY.name)
                heard = await feed.until(lambda message: message["type"] == "job" and message["job"]["phase"] in FINAL)
            job = heard[-1]["job"]
            record = await api.get(f"/api/memory-dumps/records/{job['dump_id']}")
            async with api.session.get("/memory-dumps") as answer:
                page = await answer.text()
    ways = [message["mode"] for message in heard if message["type"] == "progress"]
    assert ways == sorted(ways), "first live, then paused"
    assert {*ways} == {"live", "paused"}
    assert (job["mode"], job["progress"]["mode"]) == ("auto", "paused")
    assert record["mode"] == "paused"
    (warning,) = record["warnings"]
    assert "paused way" in warning
    assert job["warnings"] == [warning]
    assert "So vm-busy-01 was captured the paused way." in page


@thorough
async def test_auto_does_not_fall_back_where_that_would_take_too_long(busy_lab: PrivateLibvirt, tmp_path: Path) -> None:
    settings = {"MEMDUMP_MAX_PAUSE_MS": str(TOO_LITTLE_MS), "MEMDUMP_FALLBACK_PAUSE_MS": "0"}
    with running_service(tmp_path, LIBVIRT_URI=busy_lab.uri, **settings) as service:
        async with Api.of(service) as api:
            await api.connected()
            with hearing(busy_lab.uri, BUSY.name) as listener:
                (job,) = await api.dump(BUSY.name)
                assert listener.heard() == []
        assert list(service.dump_dir.iterdir()) == []
    assert (job["phase"], job["error"]["code"]) == ("failed", "would-pause-too-long")
    assert "MEMDUMP_FALLBACK_PAUSE_MS" in job["error"]["message"]


async def test_a_stop_that_a_request_forbids_is_not_made_the_paused_way_either(lab: PrivateLibvirt, tmp_path: Path) -> None:
    with running_service(tmp_path, LIBVIRT_URI=lab.uri) as service:
        async with Api.of(service) as api:
            await api.connected()
            with hearing(lab.uri, WEB.name) as listener:
                (job,) = await api.dump(WEB.name, mode="paused", max_pause_ms=1)
                assert listener.heard() == []
        assert list(service.dump_dir.iterdir()) == []
    assert (job["phase"], job["error"]["code"]) == ("failed", "would-pause-too-long")
    assert "max_pause_ms allows 1 ms" in job["error"]["message"]


async def test_spool_on_disk_gives_the_same_kind_of_dump_and_leaves_no_file(lab: PrivateLibvirt, tmp_path: Path) -> None:
    with running_service(tmp_path, LIBVIRT_URI=lab.uri, MEMDUMP_MODE="live", MEMDUMP_SPOOL_MEMORY="1M") as service:
        async with Api.of(service) as api:
            await api.connected()
            (job,) = await api.dump(WEB.name)
            record = await api.get(f"/api/memory-dumps/records/{job['dump_id']}")
        dump = Path(record["dump_path"])
        assert set(service.dump_dir.iterdir()) == {dump, dump.with_name(dump.name + MANIFEST)}
    assert (record["mode"], record["warnings"]) == ("live", [])
    _assert_is_a_vmcore_of(record, WEB, tmp_path / "image")


def test_guest_that_cannot_migrate_is_captured_the_paused_way_with_the_reason(own_lab: PrivateLibvirt, tmp_path: Path) -> None:
    guest = Guest(name="vm-peer-01", memory_mib=128, boots=False, starts=False)
    own_lab.add(guest)
    with own_lab.connection() as connection:
        xml = connection.lookupByName(guest.name).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        connection.defineXML(xml.replace("</qemu:commandline>", IN_PEER_MODE)).create()
    with hearing(own_lab.uri, guest.name) as listener:
        refused = memdump(own_lab, tmp_path, guest, "--mode=live")
        assert listener.heard() == []
    assert (refused.code, refused.lines[-1]["code"]) == (6, "live-not-possible")
    assert "ivshmem" in refused.lines[-1]["message"]
    manifest = dumped(own_lab, tmp_path, guest, "--mode=auto")
    assert manifest["mode"] == "paused"
    assert "ivshmem" in " ".join(manifest["warnings"])
    assert virsh(own_lab, "domstate", guest.name) == "running"


@thorough
@pytest.mark.parametrize(
    "guest",
    [
        Guest(name="vm-memfd-01", memory_mib=128, boots=False, shape=Shape(backing="memfd")),
        Guest(name="vm-i440fx-01", memory_mib=128, boots=False, shape=Shape(machine="pc", video="vga")),
    ],
    ids=lambda guest: guest.name,
)
def test_other_shapes_are_captured_live(own_lab: PrivateLibvirt, tmp_path: Path, guest: Guest) -> None:
    own_lab.add(guest)
    virsh(own_lab, "resume", guest.name)
    manifest = dumped(own_lab, tmp_path, guest, "--mode=live")
    assert (manifest["mode"], manifest["warnings"]) == ("live", [])
    _assert_is_a_vmcore_of(manifest, guest, tmp_path / "image")


@thorough
def test_memory_plugged_in_since_the_start_is_in_the_dump(own_lab: PrivateLibvirt, tmp_path: Path) -> None:
    guest = Guest(name="vm-dimm-01", memory_mib=128, boots=False, shape=Shape(room_mib=256))
    own_lab.add(guest)
    virsh(own_lab, "resume", guest.name)
    with own_lab.connection() as connection:
        connection.lookupByName(guest.name).attachDevice(
            "<memory model='dimm'><target><size unit='MiB'>128</size><node>0</node></target></memory>"
        )
    manifest = dumped(own_lab, tmp_path, guest, "--mode=live")
    assert manifest["mode"] == "live"
    image = unpacked_to(manifest, tmp_path / "image")
    assert (1 << 32, 128 << 20) in [(physical, size) for _, physical, size in loads_of(image)]


def _assert_is_a_vmcore_of(manifest: Message, guest: Guest, image: Path) -> None:
    """readelf opens it, all hashes fit, and the guest's marker is where it belongs."""
    dump = Path(manifest["dump_path"])
    assert sha256sum(dump) == manifest["stored_sha256"]
    assert sha256sum(unpacked_to(manifest, image)) == manifest["sha256"]
    assert image.stat().st_size == manifest["raw_size_bytes"]
    loads = loads_of(image)
    assert max(physical + size for _, physical, size in loads if physical < 1 << 31) == guest.memory_mib << 20
    offset, physical, _ = next(load for load in loads if 0 <= guest.marker_address - load[1] < load[2])
    assert gzip_read(dump, offset + guest.marker_address - physical, len(guest.marker)) == guest.marker


def _notes(image: Path) -> list[str]:
    """The owners of the ELF notes, by readelf."""
    listed = subprocess.run(["readelf", "--notes", "--wide", str(image)], capture_output=True, text=True, check=True).stdout
    return re.findall(r"^  (\w+) +0x", listed, re.MULTILINE)


def _counter(image: bytes, guest: Guest, letter: str) -> int:
    """A guest's counter: its page begins as no other does. The headers of a vmcore are not of whole pages."""
    start = guest.counter_page(letter)
    (at,) = [found.start() for found in re.finditer(re.escape(start), image)]
    (value,) = struct.unpack_from("<Q", image, at + COUNTER_AT)
    return int(value)
