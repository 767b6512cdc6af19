"""The notes of virtual CPUs: field offsets by Linux' elf_prstatus and QEMU's own structure."""

from __future__ import annotations

import struct

import pytest

from app.capture.migration import Field, Machine, Section
from app.capture.registers import registers, wide_notes
from app.errors import StreamMalformed
from tests.machines import vcpu_section


def test_general_registers_stand_where_linux_has_them() -> None:
    (vcpu,) = registers(Machine("pc", (vcpu_section(3),)))
    note = vcpu.prstatus(wide=True)
    assert len(note) == 336
    assert struct.unpack_from("<I", note, 32) == (4,)  # pr_pid: the CPU's number, from 1 on
    place = {name: 112 + 8 * number for number, name in enumerate(("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10"))}
    place |= {"rax": 112 + 80, "rsi": 112 + 104, "rip": 112 + 128, "cs": 112 + 136, "rflags": 112 + 144, "rsp": 112 + 152}
    place |= {"fs_base": 112 + 168, "gs_base": 112 + 176, "ds": 112 + 184, "gs": 112 + 208}
    found = {name: struct.unpack_from("<Q", note, at)[0] for name, at in place.items()}
    expected = {"r15": 115, "r14": 114, "r13": 113, "r12": 112, "rbp": 105, "rbx": 103, "r11": 111, "r10": 110}
    expected |= {"rax": 100, "rsi": 106, "rip": 200, "cs": 11, "rflags": 201, "rsp": 104}
    expected |= {"fs_base": 1004, "gs_base": 1005, "ds": 13, "gs": 15}
    assert found == expected


def test_registers_of_a_cpu_outside_long_mode_are_in_the_short_form() -> None:
    (vcpu,) = registers(Machine("pc", (vcpu_section(0, long_mode=False),)))
    note = vcpu.prstatus(wide=False)
    assert len(note) == 144
    assert struct.unpack_from("<I", note, 24) == (1,)
    assert struct.unpack_from("<17I", note, 72) == (103, 101, 102, 106, 107, 105, 100, 13, 10, 14, 15, 0, 200, 11, 201, 104, 12)


def test_qemus_note_has_segments_and_control_registers() -> None:
    (vcpu,) = registers(Machine("pc", (vcpu_section(0),)))
    note = vcpu.qemu_note()
    assert len(note) == 440
    assert struct.unpack_from("<II", note) == (1, 440)
    assert struct.unpack_from("<4Q", note, 8) == (100, 103, 101, 102)  # rax, rbx, rcx, rdx
    assert struct.unpack_from("<IIIIQ", note, 152) == (11, 2001, 3001, 0, 1001)  # cs
    assert struct.unpack_from("<IIIIQ", note, 152 + 9 * 24) == (19, 2009, 3009, 0, 1009)  # idt
    assert struct.unpack_from("<6Q", note, 392) == (300, 0, 302, 303, 304, 999)  # cr0 to cr4, the kernel's GS base


def test_cpus_keep_the_streams_order_and_the_first_decides_the_form() -> None:
    vcpus = registers(Machine("pc", (vcpu_section(0), vcpu_section(2, long_mode=False), vcpu_section(1))))
    assert [vcpu.number for vcpu in vcpus] == [0, 2, 1]
    assert wide_notes(vcpus)
    assert not wide_notes(vcpus[1:])


def test_a_stream_without_cpus_is_an_error() -> None:
    with pytest.raises(StreamMalformed, match="no virtual CPU"):
        registers(Machine("pc", ()))


def test_another_architectures_cpu_is_an_error() -> None:
    field = Field(name="env.pstate", kind="uint32", count=1, content=bytes(4), elements=())
    cpu = Section(name="cpu", version=22, fields=(field,), subsections=(), instance=0, device="cpu")
    with pytest.raises(StreamMalformed, match=r"env\.regs"):
        registers(Machine("virt-7.2", (cpu,)))
