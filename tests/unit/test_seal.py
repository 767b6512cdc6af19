"""One pass from bytes to a named dump: hashes, bounds, names, and what is left when it fails."""

import contextlib
import errno
import gzip
import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from app.capture.codecs import BLOCK_BYTES, Buffer, Pieces, codec
from app.capture.patience import Patience
from app.capture.seal import SHORT, SLOTS, Image, Seal
from app.errors import CaptureCancelled, DumpDirUnusable, NoSpace, SealFailed
from app.evidence import finish_partials, manifest_path, partial_path
from app.model import ALGORITHMS, Algorithm, Manifest
from tests.unit.test_evidence import manifest_of

RESERVE = 64 << 20


def feed(seal: Seal, blocks: Iterator[bytes] | list[bytes]) -> None:
    patience = Patience()
    for block in blocks:
        slot = seal.take(patience)
        slot.buffer[: len(block)] = block
        seal.put(slot, len(block))


def describe(image: Image, path: Path) -> Manifest:
    return replace(manifest_of(path), sha256=image.sha256, gzip_size_bytes=image.stored_size_bytes)


def blocks() -> list[bytes]:
    return [
        os.urandom(BLOCK_BYTES),
        bytes(BLOCK_BYTES),
        b"text " * (BLOCK_BYTES // 5) + b"x",
        bytes(BLOCK_BYTES),
        os.urandom(12_345),
    ]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_both_hashes_are_those_of_the_bytes(tmp_path: Path, algorithm: Algorithm) -> None:
    raw = blocks()
    with Seal(tmp_path, "101", 1, codec(algorithm), RESERVE) as seal:
        feed(seal, raw)
        image = seal.finish(Patience())
        manifest = seal.publish(lambda path: describe(image, path))
    dump = Path(manifest.dump_path)
    assert image.raw_size_bytes == sum(map(len, raw))
    assert image.sha256 == hashlib.sha256(b"".join(raw)).hexdigest()
    assert image.stored_sha256 == hashlib.sha256(dump.read_bytes()).hexdigest()
    assert image.stored_size_bytes == dump.stat().st_size
    assert sorted(tmp_path.iterdir()) == [dump, manifest_path(dump)]
    assert dump.stat().st_mode & 0o777 == 0o600
    assert manifest_path(dump).stat().st_mode & 0o777 == 0o600


def test_what_was_reserved_and_not_needed_is_given_back(tmp_path: Path) -> None:
    with Seal(tmp_path, "101", 1, codec("gzip"), RESERVE) as seal:
        assert partial_path(tmp_path / "101_1.mem.gz").stat().st_blocks * 512 >= RESERVE
        feed(seal, [b"x"])
        image = seal.finish(Patience())
        dump = Path(seal.publish(lambda path: describe(image, path)).dump_path)
    assert dump.stat().st_blocks * 512 < 1 << 20


def test_a_taken_name_gets_a_number_and_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "101_1.mem.gz").write_bytes(b"an older dump")
    (tmp_path / "101_1-2.mem.gz.manifest.json").write_bytes(b"an older manifest")
    with Seal(tmp_path, "101", 1, codec("gzip"), RESERVE) as seal:
        feed(seal, [b"x"])
        image = seal.finish(Patience())
        manifest = seal.publish(lambda path: describe(image, path))
    assert manifest.dump_path == str(tmp_path / "101_1-3.mem.gz")
    assert (tmp_path / "101_1.mem.gz").read_bytes() == b"an older dump"
    assert (tmp_path / "101_1-2.mem.gz.manifest.json").read_bytes() == b"an older manifest"


@pytest.mark.parametrize("taken", ["101_1.mem.gz", "101_1.mem.gz.manifest.json"])
def test_a_name_taken_at_the_last_moment_is_left_and_the_next_one_used(tmp_path: Path, taken: str) -> None:
    with Seal(tmp_path, "101", 1, codec("gzip"), RESERVE) as seal:
        feed(seal, [b"x"])
        image = seal.finish(Patience())
        (tmp_path / taken).write_bytes(b"somebody else's")
        manifest = seal.publish(lambda path: describe(image, path))
    assert (tmp_path / taken).read_bytes() == b"somebody else's"
    assert manifest.dump_path == str(tmp_path / "101_1-2.mem.gz")
    assert gzip.decompress(Path(manifest.dump_path).read_bytes()) == b"x"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([taken, "101_1-2.mem.gz", "101_1-2.mem.gz.manifest.json"])


@pytest.mark.parametrize(("syncs", "exists"), [(0, False), (1, True)])
def test_a_disk_that_fails_between_the_names_leaves_the_whole_dump_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, syncs: int, exists: bool
) -> None:
    left = iter(range(syncs))

    def sync(_folder: Path) -> None:
        if next(left, None) is None:
            raise OSError(errno.EIO, "Input/output error")

    with Seal(tmp_path, "101", 1, codec("gzip"), RESERVE) as seal:
        feed(seal, [b"x"])
        image = seal.finish(Patience())
        monkeypatch.setattr("app.evidence.sync_folder", sync)
        with contextlib.nullcontext() if exists else pytest.raises(SealFailed, match="Nothing of it was kept"):
            seal.publish(lambda path: describe(image, path))
    finish_partials(tmp_path)
    dump = tmp_path / "101_1.mem.gz"
    assert sorted(tmp_path.iterdir()) == ([dump, manifest_path(dump)] if exists else [])


def test_two_seals_of_the_same_second_get_different_names(tmp_path: Path) -> None:
    with Seal(tmp_path, "101", 1, codec("gzip"), RESERVE) as one, Seal(tmp_path, "101", 1, codec("gzip"), RESERVE) as other:
        paths = []
        for seal in (one, other):
            feed(seal, [b"x"])
            image = seal.finish(Patience())
            paths.append(seal.publish(partial(describe, image)).dump_path)
    assert len(set(paths)) == 2


def test_a_new_partial_file_is_never_taken_for_a_dead_captures(tmp_path: Path) -> None:
    """Another process tidies all the while: whoever has claimed a name still has its file."""
    tidied = threading.Event()

    def tidy() -> None:
        while not tidied.is_set():
            finish_partials(tmp_path)

    tidier = threading.Thread(target=tidy)
    tidier.start()
    try:
        for number in range(40):
            with Seal(tmp_path, "101", number, codec("none"), 1):
                assert len(list(tmp_path.glob(f"101_{number}*.partial"))) == 1
    finally:
        tidied.set()
        tidier.join()


def test_a_seal_that_is_left_leaves_nothing(tmp_path: Path) -> None:
    patience = Patience()
    patience.cancel()
    with Seal(tmp_path, "101", 1, codec("gzip"), RESERVE) as seal:
        feed(seal, blocks())
        with pytest.raises(CaptureCancelled):
            patience.check()
    assert list(tmp_path.iterdir()) == []


def test_memory_is_bounded_and_a_cancelled_wait_for_a_buffer_ends(tmp_path: Path) -> None:
    patience = Patience()
    with Seal(tmp_path, "101", 1, codec("gzip"), RESERVE) as seal:
        held = [seal.take(patience) for _ in range(SLOTS)]
        patience.cancel()
        with pytest.raises(CaptureCancelled):
            seal.take(patience)
        assert len(held) == SLOTS


def test_a_capture_can_be_cancelled_while_zeros_are_still_hashed(tmp_path: Path) -> None:
    patience = Patience()
    with Seal(tmp_path, "101", 1, codec("gzip"), RESERVE) as seal:
        for _ in range(1000):
            seal.put(seal.take(patience), BLOCK_BYTES)
        patience.cancel()
        with pytest.raises(CaptureCancelled):
            seal.finish(patience)
    assert list(tmp_path.iterdir()) == []


def test_room_that_is_not_there_is_missed_before_anything_is_written(tmp_path: Path) -> None:
    stat = os.statvfs(tmp_path)
    with pytest.raises(NoSpace) as caught:
        Seal(tmp_path, "101", 1, codec("gzip"), stat.f_blocks * stat.f_frsize * 2)
    assert caught.value.code == "no-space"
    assert list(tmp_path.iterdir()) == []


def test_room_that_other_dumps_have_reserved_is_told_apart(tmp_path: Path) -> None:
    stat = os.statvfs(tmp_path)
    (tmp_path / "9_9.mem.gz.partial").write_bytes(bytes(3 * RESERVE))  # nobody writes it any more
    with Seal(tmp_path, "102", 1, codec("gzip"), RESERVE), pytest.raises(NoSpace) as caught:
        Seal(tmp_path, "101", 1, codec("gzip"), stat.f_blocks * stat.f_frsize * 2)
    assert RESERVE <= caught.value.taken_bytes < 2 * RESERVE
    assert "reserved by dumps under way" in str(caught.value)
    assert "Try again when they have ended" in str(caught.value)
    (tmp_path / "9_9.mem.gz.partial").unlink()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DumpDirUnusable, match="gone"):
        Seal(tmp_path / "gone", "101", 1, codec("gzip"), RESERVE)


def test_a_disk_that_fails_in_the_middle_ends_in_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    """A real limit of the kernel (RLIMIT_FSIZE) in a process of its own stops the writing."""
    script = """
import resource, signal, sys
from pathlib import Path
from app.capture.codecs import codec
from app.capture.seal import Seal
from app.errors import SealFailed
from tests.unit.test_seal import blocks, feed
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    with Seal(Path(sys.argv[1]), "101", 1, codec("none"), 1 << 20) as seal:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, resource.RLIM_INFINITY))
        feed(seal, blocks() * 40)
        seal.finish(Patience())
except SealFailed as error:
    print(error.code)
"""
    ended = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert ended.stdout.strip() == "seal-failed", ended.stderr
    assert list(tmp_path.iterdir()) == []


class Watched:
    """A codec that keeps count of what it packs."""

    def __init__(self) -> None:
        self._codec = codec("none")
        self.algorithm, self.level, self.table = self._codec.algorithm, self._codec.level, self._codec.table
        self.packed = 0

    def pack(self, raw: Buffer) -> Pieces:
        self.packed += 1
        return self._codec.pack(raw)


@pytest.fixture
def two_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})


@pytest.mark.usefixtures("two_processors")
def test_while_a_guest_stands_still_nothing_is_packed_before_buffers_run_short(tmp_path: Path) -> None:
    block, watched = os.urandom(BLOCK_BYTES), Watched()
    with Seal(tmp_path, "101", 1, watched, RESERVE * 4) as seal:
        seal.brace()
        feed(seal, [block] * (SLOTS - SHORT))
        assert watched.packed == 0
        feed(seal, [block] * SLOTS)  # more than there are buffers: only those that come back take them
        assert watched.packed >= SLOTS - SHORT
        image = seal.finish(Patience())
    assert watched.packed == 2 * SLOTS - SHORT
    assert image.sha256 == hashlib.sha256(block * (2 * SLOTS - SHORT)).hexdigest()


@pytest.mark.usefixtures("two_processors")
def test_a_capture_that_is_given_up_does_not_wait_for_what_it_left_for_afterwards(tmp_path: Path) -> None:
    with Seal(tmp_path, "101", 1, codec("gzip"), RESERVE) as seal:
        seal.brace()
        feed(seal, blocks())
    assert not list(tmp_path.iterdir())
