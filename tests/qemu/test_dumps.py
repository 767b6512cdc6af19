"""Dumps of real guests, opened from the outside: hashes, sizes, the map of memory, and what lies where."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.capture.codecs import read_raw
from app.capture.elfcore import read_header
from app.evidence import MANIFEST, SUFFIXES
from app.model import ALGORITHMS, Algorithm
from demo import Guest, PrivateLibvirt
from tests.contract.speech import Api, Message
from tests.lab import COLD, DB, WEB
from tests.qemu.outside import dumped, gzip_read, loads_of, sha256sum, unpacked_to, virsh
from tests.service import Service, running_service
from tests.thorough import once, thorough

HEAD_BYTES = 4096
LOW_BYTES = 0xA0000
"""Where the hole for video memory and option ROMs begins, which is not the guest's memory."""
HIGH_ADDRESS = 1 << 20


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, lab: PrivateLibvirt) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("service"), LIBVIRT_URI=lab.uri, MEMDUMP_MODE="paused") as started:
        yield started


@pytest.mark.parametrize("algorithm", once(ALGORITHMS, "gzip", "zstd"))
def test_dump_by_hand_is_what_its_manifest_says(lab: PrivateLibvirt, tmp_path: Path, algorithm: Algorithm) -> None:
    manifest = dumped(lab, tmp_path, WEB, f"--compression={algorithm}", "--reason=a test", "--case=4711", "--operator=somebody")
    _assert_is_what_it_says(manifest, WEB, algorithm, tmp_path / "image")
    assert (manifest["operator"], manifest["reason"], manifest["case"]) == ("somebody", "a test", "4711")


@pytest.mark.parametrize("algorithm", once(ALGORITHMS, "gzip"))
async def test_dump_by_the_service_is_what_its_record_says(service: Service, tmp_path: Path, algorithm: Algorithm) -> None:
    async with Api.of(service) as api:
        await api.connected()
        (job,) = await api.dump(DB.name, compression=algorithm, reason="a test", case="4711")
        record = await api.get(f"/api/memory-dumps/records/{job['dump_id']}")
    _assert_is_what_it_says(record, DB, algorithm, tmp_path / "image")
    assert (record["reason"], record["case"]) == ("a test", "4711")


def test_cold_guest_gives_the_same_image_every_time_and_libvirts_own(lab: PrivateLibvirt, tmp_path: Path) -> None:
    first, second = dumped(lab, tmp_path, COLD), dumped(lab, tmp_path, COLD, "--compression=zstd")
    libvirts_own = lab.folder / "guests" / "own.core"
    try:
        virsh(lab, "dump", "--memory-only", COLD.name, str(libvirts_own))
        assert first["sha256"] == second["sha256"] == sha256sum(libvirts_own)
        assert first["raw_size_bytes"] == libvirts_own.stat().st_size
    finally:
        libvirts_own.unlink(missing_ok=True)


@thorough
def test_no_dump_overwrites_another(lab: PrivateLibvirt, tmp_path: Path) -> None:
    """Some of them are of the same second."""
    paths = [dumped(lab, tmp_path, COLD)["dump_path"] for _ in range(4)]
    assert len(set(paths)) == len(list((tmp_path / "dumps").glob(f"*{MANIFEST}"))) == 4
    assert all(Path(path).exists() for path in paths)


async def test_two_guests_are_dumped_at_once(service: Service, lab: PrivateLibvirt) -> None:
    async with Api.of(service) as api:
        await api.connected()
        async with api.feed() as feed:
            await feed.next()
            phases = {job["job_id"]: "queued" for job in (await api.trigger(WEB.name, DB.name))["jobs"]}
            together = False
            while not together:
                message = await feed.next()
                if message["type"] == "job" and message["job"]["job_id"] in phases:
                    phases[message["job"]["job_id"]] = message["job"]["phase"]
                    assert "completed" not in phases.values(), "one after the other"
                together = "queued" not in phases.values()
            ends = await feed.ended(phases)
        assert {job["phase"] for job in ends.values()} == {"completed"}
        records = [await api.get(f"/api/memory-dumps/records/{job['dump_id']}") for job in ends.values()]
    for record in records:
        guest = WEB if record["dom"] == WEB.name else DB
        assert _marker_in(record, guest) == guest.marker
    assert virsh(lab, "domstate", WEB.name) == virsh(lab, "domstate", DB.name) == "running"


def _assert_is_what_it_says(manifest: Message, guest: Guest, algorithm: Algorithm, image: Path) -> None:
    dump = Path(manifest["dump_path"])
    assert dump.name.endswith(SUFFIXES[algorithm])
    assert manifest == json.loads(dump.with_name(dump.name + MANIFEST).read_bytes())
    assert (manifest["dom"], manifest["vmid"], manifest["uuid"]) == (guest.name, guest.vmid, guest.uuid)
    assert (manifest["mode"], manifest["format"]) == ("paused", "elf")
    assert manifest["compression"]["algorithm"] == algorithm
    assert sha256sum(dump) == manifest["stored_sha256"]
    assert dump.stat().st_size == manifest["gzip_size_bytes"]
    unpacked_to(manifest, image)
    assert sha256sum(image) == manifest["sha256"]
    assert image.stat().st_size == manifest["raw_size_bytes"]
    _assert_covers_the_memory(image, guest)
    assert _marker_in(manifest, guest) == guest.marker


def _assert_covers_the_memory(image: Path, guest: Guest) -> None:
    """Every byte of it once, by the PT_LOADs that readelf sees; the file is long enough to hold them."""
    loads = loads_of(image)
    ranges = sorted((physical, physical + size) for _, physical, size in loads)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(ranges))
    end = guest.memory_mib << 20
    assert _covered(ranges, 0, LOW_BYTES) == LOW_BYTES
    assert _covered(ranges, HIGH_ADDRESS, end) == end - HIGH_ADDRESS
    assert max(offset + size for offset, _, size in loads) <= image.stat().st_size


def _covered(ranges: list[tuple[int, int]], start: int, end: int) -> int:
    """How many bytes from ``start`` to ``end`` the ranges hold."""
    return sum(max(0, min(end, until) - max(start, since)) for since, until in ranges)


def _marker_in(manifest: Message, guest: Guest) -> bytes:
    """What stands at the marker's address, read from the middle of the dump; of gzip also without any code of ours."""
    dump, algorithm = Path(manifest["dump_path"]), manifest["compression"]["algorithm"]
    length = len(guest.marker)
    with dump.open("rb") as file:
        at = read_header(read_raw(file, algorithm, 0, HEAD_BYTES)).offset_of(guest.marker_address)
        found = read_raw(file, algorithm, at, length)
    if algorithm == "gzip":
        assert gzip_read(dump, at, length) == found
    return found
