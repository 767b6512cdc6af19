"""QEMU's migration stream → runs of pages, as its bytes arrive. No I/O, nothing of libvirt.

Read off the stream of QEMU 7.2 and its source: ``migration/savevm.c`` (sections), ``migration/ram.c`` (memory). Big-endian
throughout::

    "QEVM" u32 3                                            magic, version
    07  u32 length, machine type  [05 subsections]          configuration
    01  u32 id, name, u32 instance, u32 version  …  footer  start of the section "ram", with the list of blocks
    02  u32 id  …  footer                                   a part of it, many times
    03  u32 id  …  footer                                   its end, written while the guest stands still
    04  …                                                   devices: machine.py
    00  06  u32 length, JSON                                their description, and the exact end

A footer is ``7e`` and the id; a name is a byte and as many letters. In "ram" there are records: a u64 whose low 12 bits
are flags and whose rest is an offset in a block. A page may come several times, and its last copy counts.

A capture is believed because of what is *not* taken here: an unknown flag, section, command, capability or name is an
error that says what and at which offset. A guess would be a wrong image.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn, Protocol

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from app.capture.machine import Field, Machine, Section, State, malformed, read_machine
from app.errors import StreamMalformed, StreamTruncated

PAGE_BYTES: Final = 4096

_HEADER_BYTES: Final = 8
_DATA_BYTES: Final = _HEADER_BYTES + PAGE_BYTES
_FILL_BYTES: Final = _HEADER_BYTES + 1
_NAME_BYTES: Final = 256

REST_BYTES: Final = _HEADER_BYTES + _NAME_BYTES + PAGE_BYTES
"""The longest that one piece of the stream is, so the most that ``feed`` leaves."""

_MAGIC: Final = b"QEVM\0\0\0\x03"
_STATE_MOST_BYTES: Final = 64 << 20
_NAME_MOST_BYTES: Final = 1024

_START, _PART, _END, _FULL, _SUBSECTION, _CONFIGURATION, _COMMAND, _FOOTER = 0x01, 0x02, 0x03, 0x04, 0x05, 0x07, 0x08, 0x7E
_SWITCHOVER_START: Final = struct.pack(">HH", 11, 0)  # QEMU 10 says so, it carries nothing

_FILL, _MEM_SIZE, _PAGE, _END_OF_PART, _CONTINUE = 0x02, 0x04, 0x08, 0x10, 0x20
_FLAGS: Final = PAGE_BYTES - 1
_REFUSED: Final = {
    0x01: "the flag 'full', which no QEMU of today writes",
    0x40: "pages packed by XBZRLE",
    0x80: "a hook of RDMA",
    0x100: "compressed pages",
    0x200: "a sign that its pages went through other channels (multifd)",
}
_COMPRESSED: Final = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x5d\0\0": "lzma",
    b"\x89LZO": "lzop",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"LibvirtQemudSave": "libvirt's save format",
    b"\x7fELF": "ELF",
}

_RUN: Final = 24
"""So many records of one kind in a row are taken as a run; fewer one by one, for NumPy has a price a call."""

_WINDOW, _WINDOW_GROWS = 64, 8

_u64 = struct.Struct(">Q").unpack_from
_u32 = struct.Struct(">I").unpack_from


@dataclass(frozen=True, slots=True)
class Block:
    """One of QEMU's RAM blocks, as the stream lists it."""

    name: str
    size_bytes: int


class Sink(Protocol):
    """Where the pages go. Arrays are views of the chunk that was fed: they are good until the call returns."""

    def blocks(self, blocks: tuple[Block, ...]) -> None:
        """All blocks, in the stream's order, once, before the first page."""

    def pages(self, block: int, numbers: NDArray[np.int64], content: NDArray[np.uint8]) -> None:
        """Pages of the block with this index: page numbers within it, ascending, and (n, 4096) bytes, rows apart."""

    def filled(self, block: int, numbers: NDArray[np.int64], fill: NDArray[np.uint8]) -> None:
        """Pages of one repeated byte, nearly always 0: ascending page numbers, and that byte of each."""


class Migration:
    """One stream while it is read."""

    def __init__(self, sink: Sink) -> None:
        """``sink`` gets the pages in the order in which the stream has them."""
        self._sink = sink
        self._step: Callable[[memoryview, int], int] = self._magic
        self._machine = ""
        self._section = -1
        self._ending = False
        self._list_left = 0
        self._blocks: list[Block] = []
        self._index: dict[bytes, int] = {}
        self._block = -1
        self._last = (-1, -1)
        self._state = bytearray()
        self._state_at = 0
        self.bytes_fed = 0
        """How much of the stream was taken."""
        self.iteration = 1
        """How often memory was gone through, as far as the order of the pages shows; the present time counts."""
        self.ram_bytes_total = 0
        """The size of all blocks together; 0 until the stream has told it."""

    def feed(self, chunk: memoryview) -> int:
        """Take every whole piece at the beginning of ``chunk``; how many bytes that were.

        Feed what was left again, in front of more; while memory comes it is less than ``REST_BYTES``. Raises
        ``StreamMalformed``, after which this must not be used any more.
        """
        at = 0
        try:
            while at < len(chunk):
                at = self._step(chunk, at)
        except _More:
            pass
        self.bytes_fed += at
        return at

    @property
    def pass_bytes_done(self) -> int:
        """How far the present pass is, of ``ram_bytes_total``."""
        block, number = self._last
        return sum(each.size_bytes for each in self._blocks[: max(block, 0)]) + (number + 1) * PAGE_BYTES

    def finish(self) -> Machine:
        """The machine, once the stream has ended and all of it was fed. Raises ``StreamTruncated``, ``StreamMalformed``."""
        if self._step != self._devices:
            raise StreamTruncated(
                f"The migration stream ended in the middle, after {self.bytes_fed} bytes. "
                "libvirtd or QEMU may have died. Try again."
            )
        return read_machine(self._machine, bytes(self._state), self._state_at)

    # -- pieces: each takes one (or a run of them) at ``at`` and returns where it ends

    def _magic(self, chunk: memoryview, at: int) -> int:
        _need(chunk, at, 16)
        began = bytes(chunk[:16])
        for magic, what in _COMPRESSED.items():
            if began.startswith(magic):
                raise StreamMalformed(
                    f"The stream is {what} and not a migration stream, at offset 0. The host may compress dumps "
                    "(dump_image_format in qemu.conf). Use the mode 'paused'."
                )
        if began[:8] != _MAGIC:
            self._wrong(at, f"{began[:8]!r} in place of its magic and version 3")
        self._step = self._configuration
        return at + len(_MAGIC)

    def _configuration(self, chunk: memoryview, at: int) -> int:
        if chunk[at] != _CONFIGURATION:
            self._wrong(at, f"the section 0x{chunk[at]:02x} in place of its configuration (0x07)")
        _need(chunk, at, 5)
        length = _u32(chunk, at + 1)[0]
        if not 0 < length <= _NAME_MOST_BYTES:
            self._wrong(at, f"a machine type of {length} letters")
        _need(chunk, at, 5 + length)
        self._machine = self._text(chunk, at + 5, length)
        self._step = self._sections
        return at + 5 + int(length)

    def _sections(self, chunk: memoryview, at: int) -> int:
        """One section's header, until memory has ended."""
        kind = chunk[at]
        if kind == _SUBSECTION and self._section < 0:
            return self._subsection(chunk, at)
        if kind == _START:
            return self._start(chunk, at)
        if kind == _COMMAND:
            _need(chunk, at, 5)
            if chunk[at + 1 : at + 5] != _SWITCHOVER_START:
                self._wrong(at, f"the command {bytes(chunk[at + 1 : at + 5]).hex()} (postcopy or a return path)")
            return at + 5
        if kind not in (_PART, _END):
            name = self._name_of_full(chunk, at) if kind == _FULL else ""
            self._wrong(at, f"a section of the unknown kind 0x{kind:02x}{name} before the end of its memory")
        _need(chunk, at, 5)
        if (number := _u32(chunk, at + 1)[0]) != self._section:
            self._wrong(at, f"a part of the section {number}, which is not the one of its memory ({self._section})")
        self._ending = kind == _END
        self._step = self._records
        return at + 5

    def _subsection(self, chunk: memoryview, at: int) -> int:
        """What hangs below the configuration: a uuid says nothing here; capabilities change the format."""
        name, end = self._counted(chunk, at + 1)
        if name != b"configuration/uuid":
            self._wrong(at, f"the configuration {name!r}, which may change what its memory means")
        _need(chunk, at, end + 4 + 16 - at)
        if _u32(chunk, end)[0] != 1:
            self._wrong(at, f"an unknown version of {name!r}")
        return end + 4 + 16

    def _start(self, chunk: memoryview, at: int) -> int:
        _need(chunk, at, 5)
        name, end = self._counted(chunk, at + 5)
        _need(chunk, at, end + 8 - at)
        instance, version = struct.unpack_from(">II", chunk, end)
        if (name, instance, version) != (b"ram", 0, 4):
            self._wrong(at, f"the start of the section {name!r} ({instance}, version {version}), and only 'ram' (0, 4) is known")
        if self._section >= 0:
            self._wrong(at, "a second start of its memory")
        self._section = _u32(chunk, at + 1)[0]
        self._step = self._records
        return end + 8

    def _name_of_full(self, chunk: memoryview, at: int) -> str:
        return f" ({self._counted(chunk, at + 5)[0]!r})"

    def _footer(self, chunk: memoryview, at: int) -> int:
        if chunk[at] != _FOOTER:
            self._wrong(at, f"the byte 0x{chunk[at]:02x} in place of a footer (0x7e)")
        _need(chunk, at, 5)
        if (number := _u32(chunk, at + 1)[0]) != self._section:
            self._wrong(at, f"the footer {number} for the section {self._section}")
        self._step = self._devices if self._ending else self._sections
        self._state_at = self.bytes_fed + at + 5
        return at + 5

    def _devices(self, chunk: memoryview, at: int) -> int:
        """All that is behind the memory; its lengths are known only at its end."""
        if len(self._state) + len(chunk) - at > _STATE_MOST_BYTES:
            self._wrong(at, f"more than {_STATE_MOST_BYTES >> 20} MiB of device state")
        self._state += chunk[at:]
        return len(chunk)

    # -- memory

    def _records(self, chunk: memoryview, at: int) -> int:
        """One record, or as many pages of the same block as follow each other."""
        _need(chunk, at, _HEADER_BYTES)
        header = _u64(chunk, at)[0]
        flags, rest = header & _FLAGS, header & ~_FLAGS
        if flags & ~_CONTINUE in (_PAGE, _FILL):
            return self._pages(chunk, at, named=not flags & _CONTINUE)
        if flags == _END_OF_PART and not rest:
            self._step = self._footer
        elif flags == _MEM_SIZE and rest and not self._blocks:
            self._list_left = rest
            self._step = self._list
        else:
            known = next((what for flag, what in _REFUSED.items() if flags & flag), "a record that is not understood")
            self._wrong(at, f"{known} (flags 0x{flags:03x}, offset 0x{rest:x} in its memory)")
        return at + _HEADER_BYTES

    def _list(self, chunk: memoryview, at: int) -> int:
        """One block of the list, whose end is told only by the sum of the sizes."""
        name, end = self._counted(chunk, at)
        _need(chunk, at, end + 8 - at)
        size = _u64(chunk, end)[0]
        if not name or size == 0 or size % PAGE_BYTES or size > self._list_left:
            self._wrong(at, f"the block {name!r} of {size} bytes, with {self._list_left} left of all memory")
        if name in self._index:
            self._wrong(at, f"a second block {name!r}")
        self._index[name] = len(self._blocks)
        self._blocks.append(Block(self._text(chunk, at + 1, len(name)), size))
        self._list_left -= size
        if not self._list_left:
            self.ram_bytes_total = sum(block.size_bytes for block in self._blocks)
            self._sink.blocks(tuple(self._blocks))
            self._step = self._records
        return end + 8

    def _pages(self, chunk: memoryview, at: int, *, named: bool) -> int:
        if not self._blocks or (not named and self._block < 0):
            self._wrong(at, "a page that is of no block")
        if named:
            return self._first_page(chunk, at)
        end, run = self._few(chunk, at)
        if run:
            return self._run(chunk, end, run)
        if end == at:
            raise _More
        return end

    def _first_page(self, chunk: memoryview, at: int) -> int:
        """A page that names its block; those that follow say "as before"."""
        header = _u64(chunk, at)[0]
        name, body = self._counted(chunk, at + _HEADER_BYTES)
        count = PAGE_BYTES if header & _PAGE else 1
        _need(chunk, at, body + count - at)
        if name not in self._index:
            self._wrong(at, f"a page of the block {name!r}, which is not in its list")
        self._block = self._index[name]
        self._within(at, header >> 12)
        numbers = np.array([header >> 12], np.int64)
        self._went(numbers)
        content = np.frombuffer(chunk, np.uint8, count, body)
        if header & _PAGE:
            self._sink.pages(self._block, numbers, content.reshape(1, PAGE_BYTES))
        else:
            self._sink.filled(self._block, numbers, content)
        return body + count

    def _few(self, chunk: memoryview, at: int) -> tuple[int, int]:
        """Records one by one, while they ascend; where they end, and the flags of a run that has begun there, or 0.

        Ascending, no page comes twice, so that pages of data and of one byte may be handed on apart.
        """
        data: list[int] = []
        data_at: list[int] = []
        filled: list[int] = []
        fill_at: list[int] = []
        last, kind, row, length = -1, 0, 0, len(chunk)
        while at + _FILL_BYTES <= length and row < _RUN:
            header = _u64(chunk, at)[0]
            flags, number = header & _FLAGS, header >> 12
            if number <= last or flags not in (_PAGE | _CONTINUE, _FILL | _CONTINUE):
                kind = row = 0
                break
            stride = _DATA_BYTES if flags & _PAGE else _FILL_BYTES
            if at + stride > length:
                break
            self._within(at, number)
            row, kind, last = row + 1 if flags == kind else 1, flags, number
            (data if flags & _PAGE else filled).append(number)
            (data_at if flags & _PAGE else fill_at).append(at + _HEADER_BYTES)
            at += stride
        self._hand_on(chunk, data, data_at, filled, fill_at)
        return at, kind if row == _RUN else 0

    def _hand_on(self, chunk: memoryview, data: list[int], data_at: list[int], filled: list[int], fill_at: list[int]) -> None:
        if not data and not filled:
            return
        self._went((min(data[:1] + filled[:1]), max(data[-1:] + filled[-1:])))
        content = np.frombuffer(chunk, np.uint8)
        if data:
            pages = as_strided(content, (len(chunk) - PAGE_BYTES + 1, PAGE_BYTES), (1, 1), writeable=False)
            self._sink.pages(self._block, np.array(data, np.int64), pages[data_at])
        if filled:
            self._sink.filled(self._block, np.array(filled, np.int64), content[fill_at])

    def _run(self, chunk: memoryview, at: int, flags: int) -> int:
        """As many records of the same kind as follow from ``at`` on and ascend: their headers lie a fixed stride apart."""
        stride = _DATA_BYTES if flags & _PAGE else _FILL_BYTES
        most, count, window = (len(chunk) - at) // stride, 0, _WINDOW
        while count < most:
            width = min(window, most - count)
            same = _headers(chunk, at + count * stride, width, stride) & _FLAGS == flags
            good = width if same.all() else int(same.argmin())
            count += good
            if good < width:
                break
            window *= _WINDOW_GROWS
        numbers = (_headers(chunk, at, count, stride) >> 12).astype(np.int64)
        down = numbers[1:] <= numbers[:-1]
        if down.any():
            count = int(down.argmax()) + 1
            numbers = numbers[:count]
        if not count:
            return at
        size = self._blocks[self._block].size_bytes // PAGE_BYTES
        if numbers[-1] >= size:
            bad = int(np.searchsorted(numbers, size))
            self._within(at + bad * stride, int(numbers[bad]))
        self._went(numbers)
        if flags & _PAGE:
            content = np.ndarray((count, PAGE_BYTES), np.uint8, chunk, at + _HEADER_BYTES, (stride, 1))
            self._sink.pages(self._block, numbers, content)
        else:
            self._sink.filled(self._block, numbers, np.ndarray((count,), np.uint8, chunk, at + _HEADER_BYTES, (stride,)))
        return at + count * stride

    def _within(self, at: int, number: int) -> None:
        block = self._blocks[self._block]
        if number * PAGE_BYTES >= block.size_bytes:
            self._wrong(at, f"the page {number} of the block {block.name!r}, which has {block.size_bytes // PAGE_BYTES}")

    def _went(self, numbers: Sequence[int] | NDArray[np.int64]) -> None:
        """Where memory is gone through: always upwards, and back to the beginning for what was written meanwhile."""
        if (self._block, int(numbers[0])) <= self._last:
            self.iteration += 1
        self._last = (self._block, int(numbers[-1]))

    # -- words

    def _counted(self, chunk: memoryview, at: int) -> tuple[bytes, int]:
        """A name behind its length, and where it ends."""
        _need(chunk, at, 1)
        _need(chunk, at, 1 + chunk[at])
        return bytes(chunk[at + 1 : at + 1 + chunk[at]]), at + 1 + chunk[at]

    def _text(self, chunk: memoryview, at: int, length: int) -> str:
        try:
            text = str(chunk[at : at + length], "ascii")
        except UnicodeDecodeError:
            text = ""
        if not text.isprintable() or not text:
            self._wrong(at, f"the name {bytes(chunk[at : at + length])!r}")
        return text

    def _wrong(self, at: int, what: str) -> NoReturn:
        raise malformed(self.bytes_fed + at, what)


class _More(Exception):
    """The piece is not whole in this chunk."""


def _need(chunk: memoryview, at: int, count: int) -> None:
    if len(chunk) - at < count:
        raise _More


def _headers(chunk: memoryview, at: int, count: int, stride: int) -> NDArray[np.uint64]:
    return np.ndarray((count,), ">u8", chunk, at, (stride,))


__all__ = ["PAGE_BYTES", "REST_BYTES", "Block", "Field", "Machine", "Migration", "Section", "Sink", "State"]
