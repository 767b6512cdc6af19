"""What a crash may leave of a seal, at every one of its steps, and what becomes of it."""

import fcntl
import json
import os
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest

from app.evidence import (
    ManifestDamaged,
    dump_name,
    encode_manifest,
    finish_partials,
    manifest_path,
    manifests,
    partial_path,
    publish,
    read_manifest,
)
from app.model import Compression, Manifest, Versions

CONTENT = b"evidence"


def manifest_of(path: Path) -> Manifest:
    return Manifest(
        dump_id="0199a0f0-0000-7000-8000-000000000001",
        timestamp="2026-11-23T10:30:00.000000Z",
        dom="vm-web-01 <b>\u202e☃",
        vmid="101",
        uuid="a3090414-a879-482f-852d-f2fd8e7300e5",
        hypervisor="kvm-07",
        uri="qemu:///system",
        mode="paused",
        format="elf",
        captured_at="2026-11-23T10:30:00.100000Z",
        guest_pause_ms=14.2,
        guest_pauses_ms=(14.2,),
        duration_sec=5.23,
        raw_size_bytes=100,
        sha256="0" * 64,
        gzip_size_bytes=len(CONTENT),
        stored_sha256="1" * 64,
        compression=Compression(algorithm="gzip", level=1, block_bytes=1 << 20),
        ctime=1,
        mtime=2,
        atime=3,
        dump_path=str(path),
        operator="admin",
        reason=None,
        case=None,
        versions=Versions(memory_dumps="0.1.0", libvirt="9.0.0", qemu="7.2.22"),
    )


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    return tmp_path / dump_name("101", 1699520400, "gzip")


def steps(dump: Path) -> Generator[str]:
    """A seal, step by step, as ``evidence`` describes it."""
    partial_path(dump).write_bytes(CONTENT)
    yield "dump partial"
    partial_path(manifest_path(dump)).write_bytes(encode_manifest(manifest_of(dump))[:50])
    yield "manifest begun"
    partial_path(manifest_path(dump)).write_bytes(encode_manifest(manifest_of(dump)))
    yield "manifest partial"
    os.link(partial_path(dump), dump)
    yield "dump linked"
    os.link(partial_path(manifest_path(dump)), manifest_path(dump))
    yield "manifest linked"
    partial_path(manifest_path(dump)).unlink()
    yield "manifest tidied"
    partial_path(dump).unlink()
    yield "done"


@pytest.mark.parametrize("crash_after", range(1, 8))
def test_a_crash_at_any_step_leaves_a_whole_dump_or_nothing(dump: Path, crash_after: int) -> None:
    seal = steps(dump)
    reached = [next(seal) for _ in range(crash_after)]
    seal.close()
    left = finish_partials(dump.parent)
    names = sorted(path.name for path in dump.parent.iterdir())
    if crash_after <= 2:
        assert names == [], reached
        assert left.finished == ()
    else:
        assert names == [dump.name, manifest_path(dump).name], reached
        assert dump.read_bytes() == CONTENT
        assert read_manifest(manifest_path(dump)) == manifest_of(dump)
    assert left.kept == ()
    assert finish_partials(dump.parent).removed == ()


@pytest.mark.leaves_partial_files
def test_what_a_living_capture_writes_is_not_touched(dump: Path) -> None:
    partial_path(dump).write_bytes(CONTENT)
    with partial_path(dump).open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        left = finish_partials(dump.parent)
    assert partial_path(dump).read_bytes() == CONTENT
    assert left.removed == ()
    assert [path for path, _ in left.kept] == [partial_path(dump)]


@pytest.mark.leaves_partial_files
def test_a_name_that_was_taken_meanwhile_is_not_overwritten_and_the_rest_is_reported(dump: Path) -> None:
    for step in steps(dump):
        if step == "manifest partial":
            break
    dump.write_bytes(b"somebody else's")
    left = finish_partials(dump.parent)
    assert dump.read_bytes() == b"somebody else's"
    assert partial_path(dump).read_bytes() == CONTENT
    assert len(left.kept) == 1


@pytest.mark.leaves_partial_files
def test_a_file_of_somebody_else_that_ends_in_partial_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "movie.mkv.partial").write_bytes(b"x")
    assert finish_partials(tmp_path).removed == ()
    assert (tmp_path / "movie.mkv.partial").exists()


def test_publishing_again_changes_nothing(dump: Path) -> None:
    for step in steps(dump):
        if step == "dump linked":
            break
    publish(dump)
    assert dump.read_bytes() == CONTENT


def test_a_manifest_comes_back_as_it_was_written(dump: Path) -> None:
    manifest = replace(manifest_of(dump), warnings=("one", "two"), reason='"; DROP TABLE')
    manifest_path(dump).write_bytes(encode_manifest(manifest))
    assert read_manifest(manifest_path(dump)) == manifest


def test_a_damaged_manifest_is_named_and_hides_no_other(dump: Path) -> None:
    manifest_path(dump).write_bytes(encode_manifest(manifest_of(dump)))
    (dump.parent / "0_broken.mem.gz.manifest.json").write_bytes(b"{")
    found = dict(manifests(dump.parent))
    assert isinstance(found[dump.parent / "0_broken.mem.gz.manifest.json"], ManifestDamaged)
    assert found[manifest_path(dump)] == manifest_of(dump)


def test_names_follow_the_contract() -> None:
    assert dump_name("101", 1699520400, "gzip") == "101_1699520400.mem.gz"
    assert dump_name("101", 1699520400, "zstd", 2) == "101_1699520400-2.mem.zst"
    assert dump_name("101", 1699520400, "none") == "101_1699520400.mem"


@pytest.mark.parametrize(
    "wrong",
    [
        {"timestamp": "2026-11-23 10:30"},
        {"captured_at": "2026-11-23T10:30:00+00:00"},
        {"gzip_size_bytes": 2**64},
        {"duration_sec": 1.7e308},
    ],
)
def test_a_manifest_with_a_value_that_no_dump_has_is_damaged(tmp_path: Path, wrong: dict[str, object]) -> None:
    path = tmp_path / "1_1.mem.gz.manifest.json"
    whole = json.loads(encode_manifest(manifest_of(tmp_path / "1_1.mem.gz")))
    path.write_text(json.dumps({**whole, **wrong}))
    with pytest.raises(ManifestDamaged, match=next(iter(wrong))):
        read_manifest(path)


def test_what_only_has_the_name_of_a_manifest_is_damaged_and_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "folder.manifest.json").mkdir()
    os.mkfifo(fifo := tmp_path / "fifo.manifest.json")
    (tmp_path / "dangling.manifest.json").symlink_to("nowhere")
    with (tmp_path / "huge.manifest.json").open("wb") as huge:
        huge.truncate(2**40)
    Path(tmp_path / os.fsdecode(b"\xff.manifest.json")).write_text("[]")
    found = [str(error) for _, error in manifests(tmp_path)]
    fifo.unlink()
    assert [error.partition(" cannot be read: ")[2] for error in found[:4]] == [
        "No such file or directory",
        "it is not a file",
        "it is not a file",
        "it is longer than 16777216 bytes",
    ]
    assert "\\xff.manifest.json cannot be read" in found[4]
