"""Which VMCOREINFO note is believed."""

from __future__ import annotations

import struct

import pytest

from app.capture.migration import Field, Machine, Section
from app.capture.registers import registers
from app.capture.vmcoreinfo import confirmed, guest_note, translated
from tests.machines import numbers, section, vcpu_section

PAGING, FIVE_LEVELS = 1 << 31, 1 << 12
TABLES = 0x2000
SYMBOL = 0xFFFFFFFF82A15F40
PHYS_BASE = 0x3C00000
LIES_AT = SYMBOL - 0xFFFFFFFF80000000 + PHYS_BASE


class Memory:
    """64 MiB, by physical address."""

    def __init__(self) -> None:
        self.content = bytearray(64 << 20)

    def read(self, physical: int, size_bytes: int) -> bytes:
        if not 0 <= physical <= len(self.content) - size_bytes:
            raise KeyError(hex(physical))
        return bytes(self.content[physical : physical + size_bytes])

    def map(self, address: int, physical: int, *, at: int = TABLES, levels: int = 4, page_bits: int = 21) -> None:
        """Page tables from ``at`` on, one page a level, that map ``address`` by a page of ``page_bits``."""
        for shift in range(12 + 9 * (levels - 1), page_bits, -9):
            self.entry(at, address >> shift, (at + 0x1000) | 1)
            at += 0x1000
        large = 0x80 if page_bits > 12 else 0
        self.entry(at, address >> page_bits, (physical >> page_bits << page_bits) | large | 1)

    def entry(self, table: int, index: int, value: int) -> None:
        struct.pack_into("<Q", self.content, table + (index & 0x1FF) * 8, value | 1 << 63)  # never to be executed


def note(text: str = f"SYMBOL(init_uts_ns)={SYMBOL:x}\nNUMBER(phys_base)={PHYS_BASE}\n") -> bytes:
    padded = text.encode().ljust(-(-len(text) // 4) * 4, b"\0")
    return struct.pack("<III", 11, len(text), 0) + b"VMCOREINFO\0\0" + padded


def machine(*more: Section, cr3: int = TABLES, cr0: int = PAGING, cr4: int = 0, long_mode: bool = True) -> Machine:
    return Machine("pc-q35-7.2", (vcpu_section(0, cr0=cr0, cr3=cr3, cr4=cr4, long_mode=long_mode), *more))


def device(paddr: int, size: int, *, has: bool = True, kind: int = 1) -> Section:
    return section(
        "vmcoreinfo",
        "vmcoreinfo",
        Field(name="has_vmcoreinfo", kind="bool", count=1, content=bytes([has]), elements=()),
        numbers("vmcoreinfo.guest_format", kind, size=2),
        numbers("vmcoreinfo.size", size, size=4),
        numbers("vmcoreinfo.paddr", paddr),
    )


@pytest.mark.parametrize(("levels", "cr4"), [(4, 0), (5, FIVE_LEVELS)])
@pytest.mark.parametrize("page_bits", [12, 21, 30])
def test_addresses_are_translated_as_a_cpu_does(levels: int, cr4: int, page_bits: int) -> None:
    memory, physical = Memory(), 0x7_C000_0000
    memory.map(SYMBOL, physical, levels=levels, page_bits=page_bits)
    assert translated(SYMBOL, TABLES, cr4, memory) == physical | SYMBOL & ((1 << page_bits) - 1)
    assert translated(SYMBOL ^ 1 << 38, TABLES, cr4, memory) is None


def test_tables_beyond_memory_translate_nothing() -> None:
    assert translated(SYMBOL, 1 << 40, 0, Memory()) is None


def test_a_note_that_the_page_tables_confirm_is_taken() -> None:
    memory = Memory()
    memory.map(SYMBOL, LIES_AT)
    stale = note(f"SYMBOL(init_uts_ns)={SYMBOL:x}\nNUMBER(phys_base)={PHYS_BASE + (2 << 20)}\n")
    vm = machine()
    assert guest_note(vm, registers(vm), memory, [stale, note() + b"what follows"]) == note()


@pytest.mark.parametrize(
    "vm",
    [machine(cr0=0), machine(long_mode=False), machine(cr3=0x8000)],
    ids=["paging is off", "no long mode", "other page tables"],
)
def test_a_note_that_nothing_confirms_is_not_taken(vm: Machine) -> None:
    memory = Memory()
    memory.map(SYMBOL, LIES_AT)
    assert guest_note(vm, registers(vm), memory, [note()]) == b""


def test_a_cpu_in_user_mode_under_page_table_isolation_confirms_too() -> None:
    memory = Memory()
    memory.map(SYMBOL, LIES_AT, at=0x4000)
    assert confirmed(note(), registers(machine(cr3=0x5000)), memory)


@pytest.mark.parametrize(
    "text",
    ["", f"SYMBOL(init_uts_ns)={SYMBOL:x}\n", f"NUMBER(phys_base)={PHYS_BASE}\n", "SYMBOL(init_uts_ns)=x\nNUMBER(phys_base)=1\n"],
)
def test_a_note_that_does_not_say_where_its_kernel_lies_is_not_taken(text: str) -> None:
    memory = Memory()
    memory.map(SYMBOL, LIES_AT)
    assert not confirmed(note(text), registers(machine()), memory)


def test_a_note_that_is_cut_short_is_not_taken() -> None:
    memory = Memory()
    memory.map(SYMBOL, LIES_AT)
    assert guest_note(machine(), registers(machine()), memory, [note()[:-4]]) == b""


def test_what_qemus_device_knows_needs_no_proof_and_comes_first() -> None:
    memory, known = Memory(), note("OSRELEASE=6.1\n")
    memory.content[0x9000 : 0x9000 + len(known)] = known
    vm = machine(device(0x9000, 4096))
    assert guest_note(vm, registers(vm), memory, []) == known


@pytest.mark.parametrize(
    "known",
    [
        device(0x9000, 4096, has=False),
        device(0x9000, 4096, kind=2),
        device(0x9000, 8),
        device(0x9000, 2 << 20),
        device(1 << 40, 4096),
    ],
    ids=["no note", "another format", "too short", "too long", "outside memory"],
)
def test_what_qemu_would_not_take_from_its_device_is_searched(known: Section) -> None:
    memory = Memory()
    memory.content[0x9000 : 0x9000 + len(note())] = note()
    memory.map(SYMBOL, LIES_AT)
    vm = machine(known)
    assert guest_note(vm, registers(vm), memory, []) == b""
    assert guest_note(vm, registers(vm), memory, [note()]) == note()
