"""ELF headers as QEMU writes them, and as it does not."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.capture.elfcore import ET_CORE, PT_LOAD, PT_NOTE, core_head, core_tail, read_header
from app.capture.migration import Machine
from app.capture.ranges import Range
from app.capture.registers import Vcpu, registers
from app.errors import StreamMalformed
from tests.machines import vcpu_section


def core(segments: list[tuple[int, int, int, int]], *, kind: int = ET_CORE, shnum: int = 0) -> bytes:
    """A 64-bit little-endian core whose program headers are (type, offset, physical, size)."""
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", kind, 62, 1, 0, 64, 0, 0, 64, 56, len(segments), 64, shnum, 0)
    return head + b"".join(struct.pack("<IIQQQQQQ", t, 0, off, 0, phys, size, size, 0) for t, off, phys, size in segments)


SEGMENTS = [(PT_NOTE, 500, 0, 100), (PT_LOAD, 600, 0, 0xA0000), (PT_LOAD, 600 + 0xA0000, 0x100000000, 4096)]


def test_the_promised_length_is_the_end_of_the_last_segment() -> None:
    assert read_header(core(SEGMENTS) + bytes(4096)).size_bytes == 600 + 0xA0000 + 4096


def test_a_physical_address_is_found_in_the_file() -> None:
    header = read_header(core(SEGMENTS))
    assert header.offset_of(0x100000010) == 600 + 0xA0000 + 16
    with pytest.raises(KeyError):
        header.offset_of(0xA0000)


def test_notes_hold_no_guest_memory() -> None:
    with pytest.raises(KeyError):
        read_header(core([(PT_NOTE, 500, 0, 100)])).offset_of(0)


def test_an_executable_is_no_vmcore() -> None:
    with pytest.raises(StreamMalformed, match="no core"):
        read_header(core(SEGMENTS, kind=2))


@given(keep=st.integers(0, 64 + 3 * 56 - 1))
def test_headers_that_are_cut_short_are_an_error(keep: int) -> None:
    with pytest.raises(StreamMalformed):
        read_header(core(SEGMENTS)[:keep])


@given(st.binary(max_size=400))
def test_garbage_is_an_error_and_nothing_else(garbage: bytes) -> None:
    with pytest.raises(StreamMalformed):
        read_header(garbage)


def test_more_program_headers_than_fit_the_field_are_counted_in_section_zero() -> None:
    many = core([(PT_LOAD, 10_000, number << 12, 4096) for number in range(3)])
    shoff = len(many)
    head = bytearray(many + struct.pack("<IIQQQQIIQQ", 0, 0, 0, 0, 0, 0, 0, 3, 0, 0))
    struct.pack_into("<Q", head, 40, shoff)
    struct.pack_into("<HHH", head, 56, 0xFFFF, 64, 0)
    assert len(read_header(head).segments) == 3


RANGES = (Range(0, 0xA0000, "ram", 0), Range(0x100000000, 4096, "ram", 0xA0000))
GUEST_NOTE = struct.pack("<III", 11, 4, 0) + b"VMCOREINFO\0\0text"


def vcpus(*, long_mode: bool = True) -> tuple[Vcpu, ...]:
    return registers(Machine("pc-q35-7.2", (vcpu_section(0, long_mode=long_mode), vcpu_section(1))))


def test_what_is_written_is_what_is_read() -> None:
    head = core_head(RANGES, vcpus(), GUEST_NOTE)
    header = read_header(head)
    assert header.size_bytes == len(head) + 0xA0000 + 4096 + len(core_tail())
    assert [(each.physical, each.size_bytes) for each in header.segments[1:]] == [(0, 0xA0000), (0x100000000, 4096)]
    assert header.offset_of(0) == len(head)
    assert head.endswith(GUEST_NOTE)


def test_the_headers_have_qemus_oddities() -> None:
    head = core_head(RANGES, vcpus())
    assert struct.unpack_from("<HHIQQQIHHHHHH", head, 16) == (ET_CORE, 62, 1, 0, 192, 64, 0, 8, 56, 3, 64, 2, 1)
    names_at = len(head) + 0xA0000 + 4096
    assert struct.unpack_from("<IIQQQQIIQQ", head, 128) == (1, 3, 0, 0, names_at, 11, 0, 0, 0, 0)


def test_notes_and_machine_are_those_of_the_first_cpus_mode() -> None:
    wide, short = core_head(RANGES, vcpus()), core_head(RANGES, vcpus(long_mode=False))
    assert struct.unpack_from("<H", short, 18) == (3,)  # EM_386
    assert len(wide) - len(short) == 2 * (336 - 144)


def test_more_ranges_than_a_header_can_count_are_an_error() -> None:
    with pytest.raises(StreamMalformed, match="65534 ranges"):
        core_head([Range(number << 12, 4096, "ram", 0) for number in range(0xFFFE)], vcpus())
