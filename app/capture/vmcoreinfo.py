"""The guest kernel's VMCOREINFO: an ELF note in its memory that tells crash and drgn where its structures are.

Linux makes it at boot (``kernel/vmcore_info.c``) and lets it begin a page. If the domain has QEMU's vmcoreinfo device and
the guest's driver, QEMU knows its address (``docs/specs/vmcoreinfo.rst``). Else it is found by its name, and believed
only if a virtual CPU's own page tables confirm it: after a reset the note of the kernel before may still lie about.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Sequence
from typing import Protocol

from app.capture.machine import Machine, Section
from app.capture.registers import Vcpu

_HEADER = struct.Struct("<III")
_NAME = b"VMCOREINFO\0"
_FORMAT_ELF = 1
_MOST_BYTES = 1 << 20

_SYMBOL = re.compile(rb"^SYMBOL\(init_uts_ns\)=([0-9a-f]{1,16})$", re.MULTILINE)
_PHYS_BASE = re.compile(rb"^NUMBER\(phys_base\)=(-?\d{1,19})$", re.MULTILINE)
_KERNEL_MAP = 0xFFFF_FFFF_8000_0000  # __START_KERNEL_map of x86-64

_CR0_PAGING, _CR4_FIVE_LEVELS = 1 << 31, 1 << 12
_PRESENT, _LARGE = 0x01, 0x80
_ADDRESS = 0x000F_FFFF_FFFF_F000
_USER_TABLES = 0x1000  # with page-table isolation a CPU in user mode uses the next page's, which lack most of the kernel


class Memory(Protocol):
    """The guest's memory by physical address."""

    def read(self, physical: int, size_bytes: int) -> bytes:
        """Raises ``KeyError`` where there is none."""


def guest_note(machine: Machine, vcpus: Sequence[Vcpu], memory: Memory, candidates: Iterable[bytes]) -> bytes:
    """The whole note, or nothing. What QEMU's device knows comes first, then the first candidate that is confirmed.

    A candidate is what stands at the beginning of a page and behind it.
    """
    for section in machine.named("vmcoreinfo"):
        note = _known_to_qemu(section, memory)
        if note:
            return note
    for candidate in candidates:
        note = _whole(candidate)
        if note.startswith(_NAME, _HEADER.size) and confirmed(note, vcpus, memory):
            return note
    return b""


def confirmed(note: bytes, vcpus: Sequence[Vcpu], memory: Memory) -> bool:
    """Whether a CPU's page tables have a symbol of the note where the note says the kernel lies (x86-64 only)."""
    text = note[_HEADER.size + _padded(len(_NAME)) :]
    symbol, phys_base = _SYMBOL.search(text), _PHYS_BASE.search(text)
    if symbol is None or phys_base is None:
        return False
    address = int(symbol[1], 16)
    expected = address - _KERNEL_MAP + int(phys_base[1])
    tables = {(vcpu.control[3] & ~bit, vcpu.control[4]) for vcpu in vcpus if _pages(vcpu) for bit in (0, _USER_TABLES)}
    return any(translated(address, cr3, cr4, memory) == expected for cr3, cr4 in tables)


def translated(address: int, cr3: int, cr4: int, memory: Memory) -> int | None:
    """The physical address of a virtual one in long mode, or None (Intel SDM volume 3, 4.5)."""
    table = cr3 & _ADDRESS
    top = 48 if cr4 & _CR4_FIVE_LEVELS else 39
    for shift in range(top, 3, -9):
        try:
            entry = int.from_bytes(memory.read(table + (address >> shift & 0x1FF) * 8, 8), "little")
        except KeyError:
            return None
        if not entry & _PRESENT:
            return None
        if shift == 12 or (entry & _LARGE and shift in (21, 30)):
            within = (1 << shift) - 1
            return (entry & _ADDRESS & ~within) | (address & within)
        table = entry & _ADDRESS
    return None


def _pages(vcpu: Vcpu) -> bool:
    return vcpu.long_mode and bool(vcpu.control[0] & _CR0_PAGING)


def _known_to_qemu(section: Section, memory: Memory) -> bytes:
    """The note that QEMU's own dump would have, by the same checks as QEMU's."""
    size = section.integer("vmcoreinfo.size")
    if not section.integer("has_vmcoreinfo") or section.integer("vmcoreinfo.guest_format") != _FORMAT_ELF:
        return b""
    if not _HEADER.size <= size <= _MOST_BYTES:
        return b""
    try:
        return _whole(memory.read(section.integer("vmcoreinfo.paddr"), size))
    except KeyError:
        return b""


def _whole(content: bytes) -> bytes:
    """The note that ``content`` begins with; nothing if it is not all there."""
    name_bytes, text_bytes, _ = _HEADER.unpack_from(content)
    size = int(_HEADER.size + _padded(name_bytes) + _padded(text_bytes))
    return content[:size] if size <= len(content) else b""


def _padded(size_bytes: int) -> int:
    return -(-size_bytes // 4) * 4
