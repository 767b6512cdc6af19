"""ELF headers as QEMU writes them, and as it does not."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.capture.elfcore import ET_CORE, PT_LOAD, PT_NOTE, read_header
from app.errors import StreamMalformed


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
