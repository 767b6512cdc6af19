"""The registers of each virtual CPU, as the two ELF notes that QEMU writes for it.

Layouts: QEMU, ``target/i386/arch_dump.c``. ``NT_PRSTATUS`` is what Linux writes for a thread of a program, so that gdb,
crash and drgn read it; its process id is the CPU's number from 1 on. QEMU's own note adds the segments, the control
registers and the kernel's GS base. Numbers in the stream are big-endian, in the notes little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from app.capture.machine import Machine, Section, State
from app.errors import StreamMalformed

_LONG_MODE = 1 << 14  # HF_LMA_MASK in env.hflags
_GENERAL = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{number}" for number in range(8, 16)))
_SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs")
_CONTROL = (0, 2, 3, 4)  # CR1 does not exist; QEMU's note has room for it

_PRSTATUS_64 = (
    *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8"),
    *("rax", "rcx", "rdx", "rsi", "rdi", "orig_rax", "rip", "cs", "rflags", "rsp", "ss"),
    *("fs_base", "gs_base", "ds", "es", "fs", "gs"),
)
_PRSTATUS_32 = (
    *("rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rax", "ds", "es", "fs", "gs"),
    *("orig_rax", "rip", "cs", "rflags", "rsp", "ss"),
)
_QEMU_GENERAL = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp", *(f"r{number}" for number in range(8, 16)))
_QEMU_SEGMENTS = ("cs", "ds", "es", "fs", "gs", "ss", "ldt", "tr", "gdt", "idt")
_QEMU_VERSION, _QEMU_BYTES = 1, 440


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One segment register, with what the CPU has cached of its descriptor."""

    selector: int
    base: int
    limit: int
    flags: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Vcpu:
    """One virtual CPU. ``numbers``: the general registers, ``rip``, ``rflags`` and ``kernel_gs_base``, by name."""

    number: int
    long_mode: bool
    numbers: dict[str, int]
    segments: dict[str, Segment]
    control: dict[int, int]

    def prstatus(self, *, wide: bool) -> bytes:
        """The content of ``NT_PRSTATUS``: 336 bytes if ``wide``, for the 64-bit format, else 144."""
        known = {**self.numbers, "orig_rax": 0}
        known |= {name: segment.selector for name, segment in self.segments.items()}
        known |= {f"{name}_base": self.segments[name].base for name in ("fs", "gs")}
        if wide:
            return struct.pack("<32xI76x27Q8x", self.number + 1, *(known[name] for name in _PRSTATUS_64))
        return struct.pack("<24xI44x17I4x", self.number + 1, *(known[name] & 0xFFFFFFFF for name in _PRSTATUS_32))

    def qemu_note(self) -> bytes:
        """The content of QEMU's own note, 440 bytes, whatever the format is."""
        packed = struct.pack("<II", _QEMU_VERSION, _QEMU_BYTES)
        packed += struct.pack("<18Q", *(self.numbers[name] for name in (*_QEMU_GENERAL, "rip", "rflags")))
        for name in _QEMU_SEGMENTS:
            segment = self.segments[name]
            packed += struct.pack("<IIIIQ", segment.selector, segment.limit, segment.flags, 0, segment.base)
        control = (self.control.get(number, 0) for number in range(5))
        return packed + struct.pack("<6Q", *control, self.numbers["kernel_gs_base"])


def registers(machine: Machine) -> tuple[Vcpu, ...]:
    """Every virtual CPU, in QEMU's order. Raises ``StreamMalformed`` if there is none, or it is not an x86 CPU."""
    try:
        vcpus = tuple(_vcpu(section) for section in machine.sections if section.name == "cpu")
    except (KeyError, ValueError) as error:
        raise StreamMalformed(f"The migration stream's virtual CPUs are not as x86 CPUs are: {error}.") from error
    if not vcpus:
        raise StreamMalformed("The migration stream holds no virtual CPU.")
    return vcpus


def wide_notes(vcpus: Sequence[Vcpu]) -> bool:
    """Whether QEMU writes the 64-bit format: it asks the first CPU for its mode, and takes the answer for all."""
    return vcpus[0].long_mode


def _vcpu(section: Section) -> Vcpu:
    general = dict(zip(_GENERAL, section.integers("env.regs"), strict=True))
    segments = dict(zip(_SEGMENTS, _segments(section, "env.segs"), strict=True))
    for name in ("ldt", "tr", "gdt", "idt"):
        (segments[name],) = _segments(section, f"env.{name}")
    return Vcpu(
        number=section.instance,
        long_mode=bool(section.integer("env.hflags") & _LONG_MODE),
        numbers={
            **general,
            "rip": section.integer("env.eip"),
            "rflags": section.integer("env.eflags"),
            "kernel_gs_base": section.integer("env.kernelgsbase"),
        },
        segments=segments,
        control={number: section.integer(f"env.cr[{number}]") for number in _CONTROL},
    )


def _segments(section: State, name: str) -> list[Segment]:
    parts = (section.integers(name, part) for part in ("selector", "base", "limit", "flags"))
    return [Segment(selector=s, base=b, limit=limit, flags=f) for s, b, limit, f in zip(*parts, strict=True)]
