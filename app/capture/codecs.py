"""Compression in independent blocks: each block of raw bytes becomes bytes that any tool can unpack on their own.

Concatenated they are one valid ``.gz``, ``.zst`` or ``.lz4`` file, may be compressed in parallel, and can be read from
the middle:

* **gzip** (RFC 1952): a member a block. Its extra field holds one subfield ``MD`` of four bytes: the stored length of
  the whole member, little-endian. That is BGZF's way (SAM specification, section 4.1), whose two bytes allow only
  64 KiB a member.
* **zstd** (RFC 8878): a frame a block, and at the end the seek table of zstd's "seekable format" (version 0.1.0).
* **lz4** (LZ4 frame format 1.6.1): a frame a block, and at the end a skippable frame of the same layout as zstd's seek
  table; lz4 reserves the same magic numbers for skippable frames.
* **none**: the raw bytes themselves.

Memory images are full of zero pages, so the compressed form of a block of zeros is made once and used again.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol

import lz4.frame
import zstandard
from isal import isal_zlib

from app.errors import ConfigError
from app.model import Algorithm

BLOCK_BYTES = 1 << 20
"""Raw bytes a block; the contract allows at most 4 MiB."""

_GZIP_HEADER = struct.Struct("<4sIBBH2sHI")  # magic, method, flags; mtime; xfl; os; xlen; subfield id, length, value
_GZIP_TAIL = struct.Struct("<II")  # CRC-32 and length of the raw bytes
_GZIP_START = b"\x1f\x8b\x08\x04"  # deflate, with an extra field
_SUBFIELD = b"MD"

_STORED_HEAD = struct.Struct("<BHH")  # last or not, kind "stored"; length, its complement
_STORED_BYTES = 0xFFFF
_SAMPLES, _SAMPLE_BYTES = 16, 512

_ZSTD_MAGIC = 0xFD2FB528
_RAW_FRAME = struct.Struct("<IBI")  # magic, descriptor, content size
_SINGLE_SEGMENT = 0xA0  # a content size of four bytes; the window is as large
_RAW_BLOCK_BYTES = 128 << 10

_SKIPPABLE = 0x184D2A5E
_SEEKABLE = 0x8F92EAB1
_FRAME = struct.Struct("<II")  # skippable magic, length of what follows
_ENTRY = struct.Struct("<II")  # stored length, raw length of one block
_FOOTER = struct.Struct("<IBI")  # number of blocks, descriptor (0: no checksums), magic

_LEVELS: dict[Algorithm, tuple[int, int, int]] = {"gzip": (1, 0, 3), "zstd": (1, -7, 22), "lz4": (0, -9, 16)}


Buffer = bytearray | bytes | memoryview
Pieces = tuple[Buffer, ...]


class Codec(Protocol):
    """Makes stored blocks of raw blocks. ``pack`` may be called by several threads at once."""

    @property
    def algorithm(self) -> Algorithm:
        """Its name in manifests."""

    @property
    def level(self) -> int | None:
        """Its level, or None where there is none."""

    def pack(self, raw: Buffer) -> Pieces:
        """The stored form of one raw block, in pieces to be written one after the other.

        A piece may be a view of ``raw``, which must then stay as it is until it is written.
        """

    def table(self, blocks: list[tuple[int, int]]) -> bytes:
        """What stands after the last block, given each block's (stored, raw) length."""


@dataclass(frozen=True, slots=True)
class Gzip:
    """DEFLATE by Intel's ISA-L, levels 0 to 3. What cannot be compressed is stored, as DEFLATE allows."""

    level: int
    algorithm: Algorithm = "gzip"

    def pack(self, raw: Buffer) -> Pieces:
        body = _stored(raw) if _is_noise(raw) else (isal_zlib.compress(raw, self.level, wbits=-15),)
        length = _GZIP_HEADER.size + sum(map(len, body)) + _GZIP_TAIL.size
        head = _GZIP_HEADER.pack(_GZIP_START, 0, 0, 255, 8, _SUBFIELD, 4, length)
        return (head, *body, _GZIP_TAIL.pack(isal_zlib.crc32(raw), len(raw)))

    def table(self, blocks: list[tuple[int, int]]) -> bytes:
        return b""


def _is_noise(raw: Buffer) -> bool:
    """Whether none of a few samples gets smaller: encrypted, compressed or random bytes.

    ISA-L takes 2 ms for a MiB of noise and gains nothing; the samples take 0.06 ms. A block that is half noise is
    taken for noise once in 2**16 times, and then merely stays as large as it is.
    """
    view, step = memoryview(raw), len(raw) // _SAMPLES
    return step > _SAMPLE_BYTES and all(
        len(isal_zlib.compress(view[at : at + _SAMPLE_BYTES], 0, wbits=-15)) > _SAMPLE_BYTES * 0.97
        for at in range(0, step * _SAMPLES, step)
    )


def _stored(raw: Buffer) -> Pieces:
    """DEFLATE's stored blocks (RFC 1951, section 3.2.4), each of at most 65,535 bytes, as views of ``raw``."""
    view = memoryview(raw)
    pieces: list[Buffer] = []
    for at in range(0, len(view), _STORED_BYTES):
        part = view[at : at + _STORED_BYTES]
        last = at + _STORED_BYTES >= len(view)
        pieces += [_STORED_HEAD.pack(last, len(part), len(part) ^ 0xFFFF), part]
    return tuple(pieces)


@dataclass(frozen=True, slots=True)
class Zstd:
    """Zstandard, levels -7 to 22."""

    level: int
    algorithm: Algorithm = "zstd"

    def pack(self, raw: Buffer) -> Pieces:
        if _is_noise(raw):
            return _raw_frame(raw)
        return (zstandard.ZstdCompressor(level=self.level, write_content_size=True).compress(raw),)

    def table(self, blocks: list[tuple[int, int]]) -> bytes:
        return _seek_table(blocks)


def _raw_frame(raw: Buffer) -> Pieces:
    """A frame of raw blocks (RFC 8878, section 3.1.1): its content size, and at most 128 KiB a block, as views of ``raw``."""
    view = memoryview(raw)
    pieces: list[Buffer] = [_RAW_FRAME.pack(_ZSTD_MAGIC, _SINGLE_SEGMENT, len(view))]
    for at in range(0, len(view), _RAW_BLOCK_BYTES):
        part = view[at : at + _RAW_BLOCK_BYTES]
        last = at + _RAW_BLOCK_BYTES >= len(view)
        pieces += [(last | len(part) << 3).to_bytes(3, "little"), part]
    return tuple(pieces)


@dataclass(frozen=True, slots=True)
class Lz4:
    """LZ4 frames, levels -9 (fastest) to 16."""

    level: int
    algorithm: Algorithm = "lz4"

    def pack(self, raw: Buffer) -> Pieces:
        options = {"block_size": lz4.frame.BLOCKSIZE_MAX1MB, "content_checksum": True, "store_size": True}
        return (lz4.frame.compress(raw, compression_level=self.level, **options),)

    def table(self, blocks: list[tuple[int, int]]) -> bytes:
        return _seek_table(blocks)


@dataclass(frozen=True, slots=True)
class Plain:
    """The raw bytes themselves."""

    level: None = None
    algorithm: Algorithm = "none"

    def pack(self, raw: Buffer) -> Pieces:
        return (memoryview(raw),)

    def table(self, blocks: list[tuple[int, int]]) -> bytes:
        return b""


def codec(algorithm: Algorithm, level: int | None = None) -> Codec:
    """The codec of that name, at ``level`` or its default. Raises ``ConfigError`` for a level it does not have."""
    if algorithm == "none":
        if level is not None:
            raise ConfigError("Without compression there is no level.")
        return Plain()
    default, low, high = _LEVELS[algorithm]
    chosen = default if level is None else level
    if not low <= chosen <= high:
        raise ConfigError(f"{algorithm} has levels from {low} to {high}, not {chosen}.")
    match algorithm:
        case "gzip":
            return Gzip(chosen)
        case "zstd":
            return Zstd(chosen)
        case "lz4":
            return Lz4(chosen)


def _seek_table(blocks: list[tuple[int, int]]) -> bytes:
    entries = b"".join(_ENTRY.pack(stored, raw) for stored, raw in blocks)
    footer = _FOOTER.pack(len(blocks), 0, _SEEKABLE)
    return _FRAME.pack(_SKIPPABLE, len(entries) + len(footer)) + entries + footer


# --- reading ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Block:
    """Where a block stands in a stored dump, and which raw bytes it holds (gzip: ``raw_bytes`` read from its tail)."""

    stored_at: int
    stored_bytes: int
    raw_at: int
    raw_bytes: int


def blocks_of(file: BinaryIO, algorithm: Algorithm) -> Iterator[Block]:
    """The blocks of a stored dump, found without unpacking any. ``ValueError`` if it is not one of ours."""
    if algorithm == "gzip":
        yield from _gzip_blocks(file)
    elif algorithm == "none":
        yield Block(0, file.seek(0, 2), 0, file.tell())
    else:
        yield from _table_blocks(file)


def _gzip_blocks(file: BinaryIO) -> Iterator[Block]:
    end = file.seek(0, 2)
    stored_at = raw_at = 0
    while stored_at < end:
        file.seek(stored_at)
        head = file.read(_GZIP_HEADER.size)
        if len(head) < _GZIP_HEADER.size or head[:4] != _GZIP_START or head[12:14] != _SUBFIELD:
            raise ValueError(f"no gzip member with its length at offset {stored_at}")
        length = _GZIP_HEADER.unpack(head)[-1]
        file.seek(stored_at + length - _GZIP_TAIL.size)
        _, raw = _GZIP_TAIL.unpack(file.read(_GZIP_TAIL.size))
        yield Block(stored_at, length, raw_at, raw)
        stored_at, raw_at = stored_at + length, raw_at + raw


def _table_blocks(file: BinaryIO) -> Iterator[Block]:
    end = file.seek(0, 2)
    file.seek(max(0, end - _FOOTER.size))
    tail = file.read(_FOOTER.size)
    if len(tail) < _FOOTER.size or _FOOTER.unpack(tail)[2] != _SEEKABLE:
        raise ValueError("no seek table at the end")
    count = _FOOTER.unpack(tail)[0]
    file.seek(end - _FOOTER.size - count * _ENTRY.size)
    stored_at = raw_at = 0
    for stored, raw in _ENTRY.iter_unpack(file.read(count * _ENTRY.size)):
        yield Block(stored_at, stored, raw_at, raw)
        stored_at, raw_at = stored_at + stored, raw_at + raw


def unpack(stored: bytes, algorithm: Algorithm) -> bytes:
    """The raw bytes of one stored block."""
    match algorithm:
        case "gzip":
            return isal_zlib.decompress(stored, wbits=31)
        case "zstd":
            return zstandard.ZstdDecompressor().decompress(stored)
        case "lz4":
            return bytes(lz4.frame.decompress(stored))
        case "none":
            return stored


def read_raw(file: BinaryIO, algorithm: Algorithm, offset: int, length: int) -> bytes:
    """``length`` raw bytes from ``offset`` of a stored dump, unpacking only the blocks that hold them.

    Shorter at the end of the image, as a read from a file is.
    """
    if algorithm == "none":
        file.seek(offset)
        return file.read(length)
    found = bytearray()
    for block in blocks_of(file, algorithm):
        if block.raw_at + block.raw_bytes <= offset:
            continue
        if block.raw_at >= offset + length:
            break
        file.seek(block.stored_at)
        raw = unpack(file.read(block.stored_bytes), algorithm)
        found += raw[max(0, offset - block.raw_at) : offset + length - block.raw_at]
    return bytes(found)
