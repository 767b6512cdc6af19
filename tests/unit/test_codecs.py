"""Stored blocks: unpacked by the formats' own tools, and read from the middle."""

import io
import os
import subprocess
import zlib
from collections.abc import Sequence

import lz4.frame
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from app.capture.codecs import BLOCK_BYTES, blocks_of, codec, read_raw, unpack
from app.errors import ConfigError
from app.model import ALGORITHMS, Algorithm

_NOISE = os.urandom(BLOCK_BYTES)
_TEXT = (b"the quick brown fox jumps over the lazy dog; " * (BLOCK_BYTES // 40))[:BLOCK_BYTES]
_HALF = _NOISE[: BLOCK_BYTES // 2] + bytes(BLOCK_BYTES // 2)
BLOCKS = (_NOISE, _TEXT, bytes(BLOCK_BYTES), _HALF, _TEXT[:70_001])


def stored(blocks: Sequence[bytes], algorithm: Algorithm) -> bytes:
    chosen = codec(algorithm)
    packed = [b"".join(chosen.pack(bytearray(block))) for block in blocks]
    lengths = [(len(piece), len(block)) for piece, block in zip(packed, blocks, strict=True)]
    return b"".join(packed) + chosen.table(lengths)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@given(raw=st.binary(max_size=200_000))
def test_a_block_unpacks_to_what_it_was(algorithm: Algorithm, raw: bytes) -> None:
    assert unpack(b"".join(codec(algorithm).pack(raw)), algorithm) == raw


@pytest.mark.parametrize(("algorithm", "tool"), [("gzip", "zcat"), ("zstd", "zstdcat")])
def test_the_formats_own_tool_unpacks_the_whole_file(algorithm: Algorithm, tool: str) -> None:
    unpacked = subprocess.run([tool], input=stored(BLOCKS, algorithm), capture_output=True, check=True).stdout
    assert unpacked == b"".join(BLOCKS)


def test_the_lz4_library_skips_the_table_at_the_end() -> None:
    content, found = stored(BLOCKS, "lz4"), b""
    with lz4.frame.open(io.BytesIO(content)) as file:
        found = file.read(sum(map(len, BLOCKS)))
    assert found == b"".join(BLOCKS)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    ("offset", "length"), [(0, 1), (BLOCK_BYTES - 3, 7), (3 * BLOCK_BYTES, 5), (4 * BLOCK_BYTES, 10**6), (10**9, 1)]
)
def test_bytes_from_the_middle_are_read_by_their_offset(algorithm: Algorithm, offset: int, length: int) -> None:
    whole = b"".join(BLOCKS)
    assert read_raw(io.BytesIO(stored(BLOCKS, algorithm)), algorithm, offset, length) == whole[offset : offset + length]


@pytest.mark.parametrize("algorithm", ["gzip", "zstd", "lz4"])
def test_blocks_are_found_without_unpacking(algorithm: Algorithm) -> None:
    found = list(blocks_of(io.BytesIO(stored(BLOCKS, algorithm)), algorithm))
    assert [block.raw_bytes for block in found] == [len(block) for block in BLOCKS]
    assert [block.raw_at for block in found] == [number * BLOCK_BYTES for number in range(len(BLOCKS))]


def test_a_gzip_member_says_its_stored_length_in_its_extra_field() -> None:
    member = b"".join(codec("gzip").pack(_TEXT))
    assert member[:4] == b"\x1f\x8b\x08\x04"
    assert member[10:16] == b"\x08\x00MD\x04\x00"
    assert int.from_bytes(member[16:20], "little") == len(member)


def test_noise_is_stored_not_compressed_and_stays_valid() -> None:
    member = b"".join(codec("gzip").pack(_NOISE))
    assert zlib.decompress(member, wbits=31) == _NOISE
    assert len(member) < BLOCK_BYTES * 1.001


def test_half_noise_is_compressed() -> None:
    assert len(b"".join(codec("gzip").pack(_HALF))) < BLOCK_BYTES * 0.6


def test_the_seek_table_is_the_one_that_zstd_documents() -> None:
    content = stored(BLOCKS, "zstd")
    assert content[-4:] == (0x8F92EAB1).to_bytes(4, "little")
    assert content[-5] == 0
    count = int.from_bytes(content[-9:-5], "little")
    assert count == len(BLOCKS)
    frame = content[-(8 + 8 * count + 9) :]
    assert frame[:8] == (0x184D2A5E).to_bytes(4, "little") + (8 * count + 9).to_bytes(4, "little")
    assert int.from_bytes(frame[8:12], "little") == len(b"".join(codec("zstd").pack(_NOISE)))
    assert zstandard.ZstdDecompressor().stream_reader(content, read_across_frames=True).read(-1) == b"".join(BLOCKS)


@pytest.mark.parametrize("algorithm", ["gzip", "zstd", "lz4"])
@given(garbage=st.binary(max_size=300))
def test_garbage_has_no_blocks(algorithm: Algorithm, garbage: bytes) -> None:
    if algorithm == "gzip" and not garbage:
        return  # no member at all is an empty image
    with pytest.raises(ValueError, match="no "):
        list(blocks_of(io.BytesIO(garbage), algorithm))


@pytest.mark.parametrize(("algorithm", "level"), [("gzip", 4), ("gzip", -1), ("zstd", 23), ("lz4", 17), ("none", 1)])
def test_a_level_that_the_codec_does_not_have_is_refused(algorithm: Algorithm, level: int) -> None:
    with pytest.raises(ConfigError):
        codec(algorithm, level)
