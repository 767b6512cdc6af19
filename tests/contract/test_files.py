"""Contract, section 5: what a dump is on disk. That its content is guest memory, real guests show (tests/qemu)."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lz4.frame
import pytest
import zstandard

from app.evidence import manifest_path
from tests.contract.conftest import ALPHA
from tests.contract.speech import RECORDS, Api
from tests.contract.test_api import MOMENT, RECORD

MEMORY = b"TestGuestMagic\0"
"""What the test driver writes instead of memory."""

UNPACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.decompress,
    "zstd": lambda stored: zstandard.ZstdDecompressor().stream_reader(stored, read_across_frames=True).read(),
    "lz4": lambda stored: lz4.frame.LZ4FrameDecompressor().decompress(stored),
    "none": bytes,
}


async def dumped(api: Api, vm: str = "alpha", **more: Any) -> tuple[Path, dict[str, Any]]:
    """Dump one VM; the dump's path, and its manifest as it stands on disk."""
    (job,) = await api.dump(vm, **more)
    path = Path((await api.get(f"{RECORDS}/{job['dump_id']}"))["dump_path"])
    return path, json.loads(manifest_path(path).read_text())


@pytest.mark.parametrize(
    ("algorithm", "ending"), [("gzip", ".mem.gz"), ("zstd", ".mem.zst"), ("lz4", ".mem.lz4"), ("none", ".mem")]
)
async def test_a_dump_is_named_hashed_and_private(api: Api, algorithm: str, ending: str) -> None:
    path, manifest = await dumped(api, compression=algorithm)
    assert path.parent == api.service.dump_dir
    assert path.is_absolute()
    assert path.name.startswith(f"1_{manifest['ctime']}")
    assert path.name.endswith(ending)
    for file in (path, manifest_path(path)):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    stored = path.read_bytes()
    assert UNPACK[algorithm](stored) == MEMORY
    assert manifest["sha256"] == hashlib.sha256(MEMORY).hexdigest()
    assert manifest["stored_sha256"] == hashlib.sha256(stored).hexdigest()
    assert (manifest["raw_size_bytes"], manifest["gzip_size_bytes"]) == (len(MEMORY), len(stored))
    assert manifest["compression"]["algorithm"] == algorithm


async def test_the_manifest_has_the_contracts_names_in_its_order_and_is_the_record(api: Api) -> None:
    path, manifest = await dumped(api)
    assert list(manifest) == [*RECORD, "domain_xml"]
    assert list(manifest["compression"]) == ["algorithm", "level", "block_bytes"]
    assert list(manifest["versions"]) == ["memory_dumps", "libvirt", "qemu"]
    assert manifest == await api.get(f"{RECORDS}/{manifest['dump_id']}")
    assert manifest["dump_path"] == str(path)
    assert manifest["dump_id"][14] == "7"  # UUIDv7
    for name in ("timestamp", "captured_at"):
        assert MOMENT.fullmatch(manifest[name])
    assert manifest["uri"] == api.service.environment["LIBVIRT_URI"]
    assert (manifest["dom"], manifest["uuid"], manifest["vmid"]) == ("alpha", ALPHA.uuid, "1")
    assert all(type(manifest[name]) is int for name in ("ctime", "mtime", "atime", "raw_size_bytes", "gzip_size_bytes"))


async def test_a_taken_name_gets_a_number_and_nothing_is_overwritten(api: Api) -> None:
    paths = [(await dumped(api, compression="none"))[0] for _ in range(3)]
    assert len(set(paths)) == 3
    for path in paths:
        stem, _, again = path.name.removesuffix(".mem").partition("-")
        assert (path.with_name(f"{stem}.mem")).exists()
        assert again == "" or int(again) >= 2
        assert path.read_bytes() == MEMORY
    assert not list(api.service.dump_dir.glob("*.partial"))


async def test_a_name_that_somebody_else_took_is_left_to_them(api: Api) -> None:
    """A file for every second that the dump could be named for."""
    _, before = await dumped(api, compression="none")
    taken = [api.service.dump_dir / f"42_{second}.mem" for second in range(before["ctime"], before["ctime"] + 60)]
    for file in taken:
        file.write_bytes(b"mine")
    path, manifest = await dumped(api, "42", compression="none")
    assert path.name == f"42_{manifest['ctime']}-2.mem"
    assert {file.read_bytes() for file in taken} == {b"mine"}


async def test_a_record_outlives_its_file_and_is_read_again_from_the_manifest(api: Api) -> None:
    path, manifest = await dumped(api)
    copy = api.service.folder / "copy"
    copy.mkdir()
    for file in (path, manifest_path(path)):
        shutil.move(file, copy)
    assert await api.get(f"{RECORDS}/{manifest['dump_id']}") == manifest
