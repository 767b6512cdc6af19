"""ELF vmcores: what their headers promise, and headers like those that QEMU writes.

QEMU's ``dump-guest-memory`` writes ELF64 (ELF32 for guests without long mode), ET_CORE, program headers first, then the
notes, then memory. Layout of the headers: System V ABI, generic chapter 4 (ELF header) and 5 (program header);
``PN_XNUM`` for more than 65,534 program headers: Linux' ``elf(5)``. What is written here is the layout of QEMU 7.2
(``dump/dump.c``), oddities included: it says that its own header has 8 bytes, and puts two section headers behind it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from app.capture.ranges import Range
from app.capture.registers import Vcpu, wide_notes
from app.errors import StreamMalformed

ET_CORE = 4
PT_LOAD = 1
PT_NOTE = 4
_PN_XNUM = 0xFFFF
_IDENT_BYTES = 16
_HEADER_BYTES, _SECTION_BYTES, _SEGMENT_BYTES = 64, 64, 56
_EHSIZE_OF_QEMU = 8
_EM_386, _EM_X86_64 = 3, 62
_NT_PRSTATUS = 1
_SHT_STRTAB = 3
_TAIL = b"\0.shstrtab\0"

_HEADER = {1: "HHIIIIIHHHHHH", 2: "HHIQQQIHHHHHH"}
_SEGMENT = {1: "IIIIIIII", 2: "IIQQQQQQ"}
_SECTION = {1: "IIIIIIIIII", 2: "IIQQQQIIQQ"}
_ORDER = {1: "<", 2: ">"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One program header: ``size_bytes`` of the file at ``offset`` lie at guest-physical ``physical``."""

    kind: int
    offset: int
    physical: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreHeader:
    """A vmcore's map. ``size_bytes`` is the length that the file must have to hold everything it promises."""

    segments: tuple[Segment, ...]
    size_bytes: int

    def offset_of(self, physical: int) -> int:
        """Where in the file the byte at a guest-physical address stands. Raises ``KeyError`` if nowhere."""
        for segment in self.segments:
            if segment.kind == PT_LOAD and 0 <= physical - segment.physical < segment.size_bytes:
                return segment.offset + physical - segment.physical
        raise KeyError(hex(physical))


def is_elf(start: bytes | bytearray | memoryview) -> bool:
    """Whether this is how an ELF file starts."""
    return bytes(start[:4]) == b"\x7fELF"


def read_header(start: bytes | bytearray | memoryview) -> CoreHeader:
    """The map in the first bytes of a vmcore; a program header is 56 bytes, so 1 MiB holds some 18,000.

    Raises ``StreamMalformed`` if it is not an ELF core or its headers do not lie within ``start``.
    """
    view = memoryview(start)
    try:
        elf_class, order = view[4], _ORDER[view[5]]
        fields = struct.unpack_from(order + _HEADER[elf_class], view, _IDENT_BYTES)
    except (IndexError, KeyError, struct.error) as error:
        raise StreamMalformed("What libvirt sent is not an ELF core: its header is cut short or unknown.") from error
    kind, _, _, _, phoff, shoff, _, _, phentsize, phnum, shentsize, shnum, _ = fields
    if not is_elf(view) or kind != ET_CORE:
        raise StreamMalformed("What libvirt sent is an ELF file, but no core dump.")
    try:
        if phnum == _PN_XNUM:
            phnum = struct.unpack_from(order + _SECTION[elf_class], view, shoff)[7]  # sh_info of section 0
        segments = tuple(
            _segment(elf_class, struct.unpack_from(order + _SEGMENT[elf_class], view, phoff + number * phentsize))
            for number in range(phnum)
        )
        sections = [struct.unpack_from(order + _SECTION[elf_class], view, shoff + number * shentsize) for number in range(shnum)]
    except struct.error as error:
        raise StreamMalformed(f"The vmcore's {phnum} program headers do not lie at its beginning.") from error
    ends = [segment.offset + segment.size_bytes for segment in segments]
    ends += [section[4] + section[5] for section in sections if section[1] not in (0, 8)]  # SHT_NULL, SHT_NOBITS
    ends.append(phoff + phnum * phentsize)
    return CoreHeader(segments=segments, size_bytes=max(ends))


def _segment(elf_class: int, fields: tuple[int, ...]) -> Segment:
    if elf_class == 2:
        kind, _, offset, _, physical, size, _, _ = fields
    else:
        kind, offset, _, physical, size, _, _, _ = fields
    return Segment(kind=kind, offset=offset, physical=physical, size_bytes=size)


def core_head(ranges: Sequence[Range], vcpus: Sequence[Vcpu], guest_note: bytes = b"") -> bytes:
    """Everything before the memory: ELF header, section headers, program headers, notes. Always 64-bit.

    The memory of ``ranges`` follows in their order, then ``core_tail()``. ``guest_note`` is a whole ELF note, its own
    header included, such as the guest kernel's VMCOREINFO.
    """
    notes = _notes(vcpus) + guest_note
    count = 1 + len(ranges)
    if count >= _PN_XNUM:
        raise StreamMalformed(f"The guest's memory has {len(ranges)} ranges, which is more than an ELF header can count.")
    notes_at = _HEADER_BYTES + 2 * _SECTION_BYTES + count * _SEGMENT_BYTES
    at = notes_at + len(notes)
    loads = b""
    for each in ranges:
        loads += struct.pack("<IIQQQQQQ", PT_LOAD, 0, at, each.physical, each.physical, each.size_bytes, each.size_bytes, 0)
        at += each.size_bytes
    note = struct.pack("<IIQQQQQQ", PT_NOTE, 0, notes_at, 0, 0, len(notes), len(notes), 0)
    return _elf_header(count, wide=wide_notes(vcpus)) + _sections(at) + note + loads + notes


def core_tail() -> bytes:
    """What stands behind the memory: the names of the sections."""
    return _TAIL


def _elf_header(segments: int, *, wide: bool) -> bytes:
    fields = (ET_CORE, _EM_X86_64 if wide else _EM_386, 1, 0, _HEADER_BYTES + 2 * _SECTION_BYTES, _HEADER_BYTES, 0)
    sizes = (_EHSIZE_OF_QEMU, _SEGMENT_BYTES, segments, _SECTION_BYTES, 2, 1)
    return b"\x7fELF\x02\x01\x01".ljust(_IDENT_BYTES, b"\0") + struct.pack("<" + _HEADER[2], *fields, *sizes)


def _sections(names_at: int) -> bytes:
    """An empty section header, as the first has to be, and one for the names."""
    return bytes(_SECTION_BYTES) + struct.pack("<" + _SECTION[2], 1, _SHT_STRTAB, 0, 0, names_at, len(_TAIL), 0, 0, 0, 0)


def _notes(vcpus: Sequence[Vcpu]) -> bytes:
    """First one kind for all CPUs, then the other."""
    wide = wide_notes(vcpus)
    standard = [_note(b"CORE", _NT_PRSTATUS, vcpu.prstatus(wide=wide)) for vcpu in vcpus]
    return b"".join(standard + [_note(b"QEMU", 0, vcpu.qemu_note()) for vcpu in vcpus])


def _note(name: bytes, kind: int, content: bytes) -> bytes:
    return struct.pack("<III8s", len(name) + 1, len(content), kind, name) + content
