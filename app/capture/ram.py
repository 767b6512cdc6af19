"""Section "ram" of a migration stream → runs of pages. Layout: QEMU, ``migration/ram.c``, 2.4 to 10; see ``migration``.

Records of one kind lie a fixed stride apart, so a run of them is found by NumPy, over a view of their headers whose
window grows, and handed on as views of the chunk. What changes from page to page is gathered one by one instead: a call
of NumPy costs as much as ten records.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

PAGE_BYTES: Final = 4096

_HEADER_BYTES: Final = 8
_DATA_BYTES: Final = _HEADER_BYTES + PAGE_BYTES
_FILL_BYTES: Final = _HEADER_BYTES + 1
_NAME_BYTES: Final = 256

REST_BYTES: Final = _HEADER_BYTES + _NAME_BYTES + PAGE_BYTES
"""The longest that one piece of memory is, so the most that is left of a chunk."""

_FILL, _MEM_SIZE, _PAGE, _END_OF_PART, _CONTINUE = 0x02, 0x04, 0x08, 0x10, 0x20
_FLAGS: Final = PAGE_BYTES - 1
_REFUSED: Final = {
    0x01: "the flag 'full', which no QEMU of today writes",
    0x40: "pages packed by XBZRLE",
    0x80: "a hook of RDMA",
    0x100: "compressed pages",
    0x200: "a sign that its pages went through other channels (multifd)",
}

_RUN: Final = 24
"""So many records of one kind in a row are taken as a run."""

_WINDOW, _WINDOW_GROWS = 64, 8

_u64 = struct.Struct(">Q").unpack_from


class More(Exception):
    """The next piece is not whole in this chunk."""


class Wrong(Exception):
    """The piece at ``at`` of this chunk is ``what``."""

    def __init__(self, at: int, what: str) -> None:
        super().__init__(at, what)
        self.at = at
        self.what = what


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


class Ram:
    """The section while it is read. ``take`` raises ``More`` or ``Wrong``, with nothing taken."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._step: Callable[[memoryview, int], int] = self._records
        self._list_left = 0
        self._blocks: list[Block] = []
        self._index: dict[bytes, int] = {}
        self._block = -1
        self._last = (-1, -1)
        self.part_ended = False
        self.iteration = 1
        self.total_bytes = 0
        self.read_bytes = 0

    def take(self, chunk: memoryview, at: int) -> int:
        """One piece, or the run of pages, at ``at``; where it ends. ``part_ended`` then tells whether the part has."""
        self.part_ended = False
        return self._step(chunk, at)

    @property
    def pass_bytes_done(self) -> int:
        """How far the present pass is, of ``total_bytes``."""
        block, number = self._last
        return sum(each.size_bytes for each in self._blocks[: max(block, 0)]) + (number + 1) * PAGE_BYTES

    def _records(self, chunk: memoryview, at: int) -> int:
        """One record, or as many pages of the same block as follow each other."""
        need(chunk, at, _HEADER_BYTES)
        header = _u64(chunk, at)[0]
        flags, rest = header & _FLAGS, header & ~_FLAGS
        if flags & ~_CONTINUE in (_PAGE, _FILL):
            return self._pages(chunk, at, named=not flags & _CONTINUE)
        if flags == _END_OF_PART and not rest and self._blocks:
            self.part_ended = True
        elif flags == _MEM_SIZE and rest and not self._blocks:
            self._list_left = rest
            self._step = self._list
        else:
            known = next((what for flag, what in _REFUSED.items() if flags & flag), "a record that is not understood")
            raise Wrong(at, f"{known} (flags 0x{flags:03x}, offset 0x{rest:x} in its memory)")
        return at + _HEADER_BYTES

    def _list(self, chunk: memoryview, at: int) -> int:
        """One block of the list, whose end is told only by the sum of the sizes."""
        name, end = counted(chunk, at)
        need(chunk, at, end + 8 - at)
        size = _u64(chunk, end)[0]
        if not name or size == 0 or size % PAGE_BYTES or size > self._list_left:
            raise Wrong(at, f"the block {name!r} of {size} bytes, with {self._list_left} left of all memory")
        if name in self._index:
            raise Wrong(at, f"a second block {name!r}")
        self._index[name] = len(self._blocks)
        self._blocks.append(Block(text(chunk, at + 1, len(name)), size))
        self._list_left -= size
        if not self._list_left:
            self.total_bytes = sum(block.size_bytes for block in self._blocks)
            self._sink.blocks(tuple(self._blocks))
            self._step = self._records
        return end + 8

    def _pages(self, chunk: memoryview, at: int, *, named: bool) -> int:
        if not self._blocks or (not named and self._block < 0):
            raise Wrong(at, "a page that is of no block")
        if named:
            return self._first_page(chunk, at)
        end, run = self._few(chunk, at)
        if run:
            return self._run(chunk, end, run)
        if end == at:
            raise More
        return end

    def _first_page(self, chunk: memoryview, at: int) -> int:
        """A page that names its block; those that follow say "as before"."""
        header = _u64(chunk, at)[0]
        name, body = counted(chunk, at + _HEADER_BYTES)
        count = PAGE_BYTES if header & _PAGE else 1
        need(chunk, at, body + count - at)
        if name not in self._index:
            raise Wrong(at, f"a page of the block {name!r}, which is not in its list")
        self._block = self._index[name]
        self._within(at, header >> 12)
        numbers = np.array([header >> 12], np.int64)
        self._went(numbers, 1)
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
        self._went((min(data[:1] + filled[:1]), max(data[-1:] + filled[-1:])), len(data) + len(filled))
        content = np.frombuffer(chunk, np.uint8)
        if data:
            pages = np.ndarray((len(chunk) - PAGE_BYTES + 1, PAGE_BYTES), np.uint8, chunk, 0, (1, 1))  # one at every byte
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
        self._went(numbers, count)
        if flags & _PAGE:
            content = np.ndarray((count, PAGE_BYTES), np.uint8, chunk, at + _HEADER_BYTES, (stride, 1))
            self._sink.pages(self._block, numbers, content)
        else:
            self._sink.filled(self._block, numbers, np.ndarray((count,), np.uint8, chunk, at + _HEADER_BYTES, (stride,)))
        return at + count * stride

    def _within(self, at: int, number: int) -> None:
        block = self._blocks[self._block]
        if number * PAGE_BYTES >= block.size_bytes:
            raise Wrong(at, f"the page {number} of the block {block.name!r}, which has {block.size_bytes // PAGE_BYTES}")

    def _went(self, numbers: Sequence[int] | NDArray[np.int64], count: int) -> None:
        """Where memory is gone through, and how many pages came: always upwards, and back to the beginning for what was
        written meanwhile."""
        self.read_bytes += count * PAGE_BYTES
        if (self._block, int(numbers[0])) <= self._last:
            self.iteration += 1
        self._last = (self._block, int(numbers[-1]))


def need(chunk: memoryview, at: int, count: int) -> None:
    """Raises ``More`` unless there are so many bytes."""
    if len(chunk) - at < count:
        raise More


def counted(chunk: memoryview, at: int) -> tuple[bytes, int]:
    """A name behind its length of one byte, and where it ends. Raises ``More``."""
    need(chunk, at, 1)
    need(chunk, at, 1 + chunk[at])
    return bytes(chunk[at + 1 : at + 1 + chunk[at]]), at + 1 + chunk[at]


def text(chunk: memoryview, at: int, length: int) -> str:
    """A name. Raises ``Wrong`` if it is none that a person could read."""
    try:
        found = str(chunk[at : at + length], "ascii")
    except UnicodeDecodeError:
        found = ""
    if not found.isprintable() or not found:
        raise Wrong(at, f"the name {bytes(chunk[at : at + length])!r}")
    return found


def _headers(chunk: memoryview, at: int, count: int, stride: int) -> NDArray[np.uint64]:
    return np.ndarray((count,), ">u8", chunk, at, (stride,))
