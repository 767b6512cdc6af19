"""The vmcore as a file that is read in pieces."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

import pytest

from app.capture import coreimage
from app.capture.coreimage import CoreImage, PhysicalMemory
from app.capture.elfcore import PT_LOAD, PT_NOTE, read_header
from app.capture.migration import PAGE_BYTES, Block, Machine
from app.capture.ranges import Range
from tests.machines import vcpu_section

LOW, HIGH = Range(0, 3 * PAGE_BYTES, "ram", PAGE_BYTES), Range(1 << 32, 2 * PAGE_BYTES, "bios", 0)
MACHINE = Machine("pc-q35-7.2", (vcpu_section(0), vcpu_section(1)))


class Pages:
    """Two blocks of known bytes; the second page of the first was never written."""

    def __init__(self) -> None:
        self.block_list = (Block("ram", 4 * PAGE_BYTES), Block("bios", 2 * PAGE_BYTES))
        self.content = [b"".join(bytes([1 + page]) * PAGE_BYTES for page in range(4)), b"B" * (2 * PAGE_BYTES)]
        self.content[0] = self.content[0][:PAGE_BYTES] + bytes(PAGE_BYTES) + self.content[0][2 * PAGE_BYTES :]
        self.reads: list[tuple[int, int, int]] = []
        self.notes: list[tuple[int, int]] = []

    def read(self, block: int, offset: int, into: memoryview) -> None:
        self.reads.append((block, offset, len(into)))
        into[:] = self.content[block][offset : offset + len(into)]

    def blank(self, block: int, offset: int, size_bytes: int) -> bool:
        return not self.content[block][offset : offset + size_bytes].strip(b"\0")

    def vmcoreinfo(self) -> Sequence[tuple[int, int]]:
        return self.notes


def whole(image: CoreImage, step: int) -> bytes:
    out = bytearray()
    buffer = bytearray(step)
    while count := image.fill(buffer):
        out += buffer[:count]
    return bytes(out)


@pytest.mark.parametrize("step", [1, 100, 4096, 1 << 20])
def test_the_file_is_the_same_in_pieces_of_any_size(step: int) -> None:
    pages = Pages()
    image = CoreImage(pages, (LOW, HIGH), MACHINE)
    content = whole(image, step)
    memory = pages.content[0][PAGE_BYTES:] + pages.content[1]
    assert len(content) == image.size_bytes
    assert content.endswith(memory + b"\0.shstrtab\0")


def test_its_headers_lead_to_each_range() -> None:
    image = CoreImage(Pages(), (LOW, HIGH), MACHINE)
    content = whole(image, 4096)
    header = read_header(content)
    assert header.size_bytes == len(content)
    assert [(each.physical, each.size_bytes) for each in header.segments if each.kind == PT_LOAD] == [
        (LOW.physical, LOW.size_bytes),
        (HIGH.physical, HIGH.size_bytes),
    ]
    assert content[header.offset_of(2 * PAGE_BYTES)] == 4
    assert content[header.offset_of(1 << 32)] == ord("B")


def test_its_notes_are_one_kind_after_the_other() -> None:
    content = whole(CoreImage(Pages(), (LOW,), MACHINE), 4096)
    (notes,) = (each for each in read_header(content).segments if each.kind == PT_NOTE)
    at, found = notes.offset, []
    while at < notes.offset + notes.size_bytes:
        name, size, kind = struct.unpack_from("<III", content, at)
        found.append((content[at + 12 : at + 12 + name], size, kind))
        at += 12 + 8 + size
    assert found == [(b"CORE\0", 336, 1), (b"CORE\0", 336, 1), (b"QEMU\0", 440, 0), (b"QEMU\0", 440, 0)]


def test_a_short_count_means_the_end() -> None:
    image = CoreImage(Pages(), (LOW,), MACHINE)
    buffer = bytearray(image.size_bytes + 1)
    assert image.fill(buffer) == image.size_bytes
    assert image.fill(buffer) == 0


def test_pages_that_were_never_written_are_not_read() -> None:
    pages = Pages()
    image = CoreImage(pages, (Range(0, PAGE_BYTES, "ram", PAGE_BYTES),), MACHINE)
    content = whole(image, 1 << 20)
    assert content.endswith(bytes(PAGE_BYTES) + b"\0.shstrtab\0")
    assert pages.reads == []


def test_what_may_be_the_kernels_note_is_read_one_after_the_other_and_never_as_far_as_it_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pages = Pages()
    held: list[tuple[int, int]] = []

    def note_of(_machine: object, _vcpus: object, _memory: object, candidates: Iterator[bytes]) -> bytes:
        held.extend((len(candidate), len(pages.reads)) for candidate in candidates)
        return b""

    monkeypatch.setattr(coreimage, "guest_note", note_of)
    pages.block_list = (Block("ram", 1 << 30), Block("bios", 2 * PAGE_BYTES))
    pages.content[0] = bytes(1 << 20)
    pages.notes = [(0, 1), (0, 2), (1, 1)]
    CoreImage(pages, (HIGH,), MACHINE)
    assert held == [(64 << 10, 1), (64 << 10, 2), (PAGE_BYTES, 3)]


def test_physical_memory_ends_where_its_ranges_end() -> None:
    memory = PhysicalMemory(Pages(), (LOW, HIGH))
    assert memory.read(PAGE_BYTES, 2) == b"\3\3"
    assert memory.read((1 << 32) + 2 * PAGE_BYTES - 1, 1) == b"B"
    for physical, size in ((3 * PAGE_BYTES - 1, 2), (3 * PAGE_BYTES, 1), ((1 << 32) - 1, 1), (1 << 40, 1)):
        with pytest.raises(KeyError):
            memory.read(physical, size)
