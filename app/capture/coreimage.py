"""The vmcore of a live capture, byte by byte in its order: head, the memory of each range, tail."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Protocol

from app.capture.elfcore import core_head, core_tail
from app.capture.machine import Machine
from app.capture.migration import Block
from app.capture.ranges import Range
from app.capture.registers import registers
from app.capture.vmcoreinfo import guest_note

_BLANK = bytes(1 << 20)
_NOTE_BYTES = 64 << 10  # Linux gives the note's text a page of 4 KiB (VMCOREINFO_BYTES)


class Pages(Protocol):
    """Where the blocks' bytes are; ``spool.Spool`` is one."""

    @property
    def block_list(self) -> Sequence[Block]:
        """The blocks, in the stream's order."""

    def read(self, block: int, offset: int, into: memoryview) -> None:
        """Copy the bytes of the block with this index from ``offset`` on."""

    def blank(self, block: int, offset: int, size_bytes: int) -> bool:
        """Whether all of these bytes are known to be zero without reading them."""

    def vmcoreinfo(self) -> Sequence[tuple[int, int]]:
        """Pages that begin like a VMCOREINFO note: block and page number."""


class PhysicalMemory:
    """The guest's memory by physical address."""

    def __init__(self, pages: Pages, ranges: Sequence[Range]) -> None:
        """``ranges`` ascend and do not overlap."""
        self._pages = pages
        self._ranges = ranges
        self._starts = [each.physical for each in ranges]
        self._blocks = {block.name: index for index, block in enumerate(pages.block_list)}

    def read(self, physical: int, size_bytes: int) -> bytes:
        """Bytes that lie in one range. Raises ``KeyError`` if they do not."""
        number = bisect_right(self._starts, physical) - 1
        if number < 0 or physical + size_bytes > self._ranges[number].end:
            raise KeyError(hex(physical))
        into = bytearray(size_bytes)
        self.copy(number, physical - self._starts[number], memoryview(into))
        return bytes(into)

    def copy(self, number: int, offset: int, into: memoryview) -> None:
        """Copy from a range, by its number, and an offset in it."""
        each = self._ranges[number]
        block, offset = self._blocks[each.block], each.offset + offset
        if len(into) <= len(_BLANK) and self._pages.blank(block, offset, len(into)):
            into[:] = _BLANK[: len(into)]
        else:
            self._pages.read(block, offset, into)


class CoreImage:
    """An ELF file that is never anywhere as a whole: ``fill`` gives its next bytes. ``size_bytes`` is known at once."""

    def __init__(self, pages: Pages, ranges: Sequence[Range], machine: Machine, *, as_qemu: bool = False) -> None:
        """The capture is over: ``pages`` hold the instant that ``machine`` shows.

        The kernel's VMCOREINFO is a note of it if it is found and is certainly that of the kernel that runs. ``as_qemu``:
        only if QEMU's own dump would have it, so that the file is QEMU's byte for byte (docs/decisions/0007). Raises
        ``StreamMalformed``.
        """
        vcpus = registers(machine)
        self._memory = PhysicalMemory(pages, ranges)
        note = guest_note(machine, vcpus, self._memory, [] if as_qemu else _candidates(pages))
        self.has_vmcoreinfo = bool(note)
        """Whether the note is in the file. drgn and crash need it."""
        self._head, self._tail = core_head(ranges, vcpus, note), core_tail()
        lengths = [len(self._head), *(each.size_bytes for each in ranges), len(self._tail)]
        self._starts = [0, *accumulate(lengths)]
        self.size_bytes = self._starts[-1]
        self._at = 0

    def fill(self, buffer: bytearray | memoryview) -> int:
        """Copy the next bytes of the file into ``buffer``; how many that were: fewer than it takes only at the end."""
        view, done = memoryview(buffer), 0
        while done < len(view) and self._at < self.size_bytes:
            part = bisect_right(self._starts, self._at) - 1
            offset = self._at - self._starts[part]
            count = min(len(view) - done, self._starts[part + 1] - self._at)
            self._copy(part, offset, view[done : done + count])
            done += count
            self._at += count
        return done

    def _copy(self, part: int, offset: int, into: memoryview) -> None:
        if part == 0:
            into[:] = self._head[offset : offset + len(into)]
        elif part == len(self._starts) - 2:
            into[:] = self._tail[offset : offset + len(into)]
        else:
            self._memory.copy(part - 1, offset, into)


def _candidates(pages: Pages) -> Iterator[bytes]:
    """Every VMCOREINFO note that may be the kernel's, read when its turn comes: the guest says how many there are."""
    for block, number in pages.vmcoreinfo():
        offset = number << 12
        into = bytearray(min(_NOTE_BYTES, pages.block_list[block].size_bytes - offset))
        pages.read(block, offset, memoryview(into))
        yield bytes(into)
