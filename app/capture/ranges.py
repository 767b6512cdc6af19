"""Ranges of a guest's physical memory: what stands behind which address, and how such ranges are cut and joined."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from app.errors import LayoutUnknown


@dataclass(frozen=True, slots=True)
class Range:
    """``size_bytes`` from the guest-physical address ``physical`` on are those of a RAM block, from ``offset`` on."""

    physical: int
    size_bytes: int
    block: str
    offset: int

    @property
    def end(self) -> int:
        """The first physical address behind it."""
        return self.physical + self.size_bytes

    def part(self, start: int, end: int) -> Range:
        """What of it lies at the physical addresses from ``start`` to ``end``, which must be within it."""
        return replace(self, physical=start, size_bytes=end - start, offset=self.offset + start - self.physical)

    def continues(self, other: Range) -> bool:
        """Whether it is the same block's next piece at the next address, so that QEMU makes one range of both."""
        return (self.block, self.physical, self.offset) == (other.block, other.end, other.offset + other.size_bytes)


def without(ranges: Iterable[Range], start: int, end: int) -> list[Range]:
    """The ranges with a hole cut into them."""
    left = []
    for each in ranges:
        if each.physical < start:
            left.append(each.part(each.physical, min(each.end, start)))
        if each.end > end:
            left.append(each.part(max(each.physical, end), each.end))
    return [each for each in left if each.size_bytes > 0]


def joined(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """The ranges by address, those that continue each other joined. Raises ``LayoutUnknown`` if two overlap."""
    ordered = sorted(ranges, key=lambda each: each.physical)
    for one, next_one in pairwise(ordered):
        if next_one.physical < one.end:
            raise unknown(f"{one.block} and {next_one.block} both seem to lie at {next_one.physical:#x}")
    result: list[Range] = []
    for each in ordered:
        if result and each.continues(result[-1]):
            result[-1] = replace(result[-1], size_bytes=result[-1].size_bytes + each.size_bytes)
        else:
            result.append(each)
    return tuple(result)


def covered(ranges: Sequence[Range], start: int, end: int) -> int:
    """How many of the bytes from ``start`` to ``end`` are in the ranges, which do not overlap."""
    return sum(max(0, min(each.end, end) - max(each.physical, start)) for each in ranges)


def unknown(why: str) -> LayoutUnknown:
    """The error for a layout that is not certain."""
    return LayoutUnknown(f"Where this guest's memory lies in its physical address space is not certain: {why}.")
