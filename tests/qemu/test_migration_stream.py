"""The parser and the spool against QEMU itself: of one instant, its migration stream and its own ELF hold the same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest

from app.capture.elfcore import PT_LOAD, CoreHeader, read_header
from app.capture.migration import REST_BYTES, Machine, Migration
from app.capture.spool import Spool, open_spool
from app.errors import StreamTruncated
from app.fifo import Rendezvous
from tests.lab import WEB, add_ready, running_lab
from tests.thorough import once

CHUNK_BYTES = 1 << 20
ROM_AT_4_GIB = 1 << 32


@pytest.fixture(scope="module")
def dumps() -> Iterator[tuple[Path, Path]]:
    """A suspended guest's migration stream and QEMU's own ELF of it, as files. It is good for nothing else afterwards."""
    with running_lab() as own_lab:
        add_ready(own_lab, WEB)
        folder = own_lab.folder / "guests"
        stream, elf = folder / "stream", folder / "elf"
        with own_lab.connection() as connection:
            guest = connection.lookupByName(WEB.name)
            guest.suspend()
            guest.coreDumpWithFormat(str(elf), libvirt.VIR_DOMAIN_CORE_DUMP_FORMAT_RAW, libvirt.VIR_DUMP_MEMORY_ONLY)
            guest.coreDump(str(stream), libvirt.VIR_DUMP_LIVE)
        yield stream, elf


def parse(stream: Path, spool: Spool, limit: int | None = None) -> Machine:
    migration = Migration(spool)
    content = memoryview(stream.read_bytes())[:limit]
    at = 0
    while at < len(content):
        taken = migration.feed(content[at : at + CHUNK_BYTES])
        at += taken
        if not taken:
            break
    assert len(content) - at < REST_BYTES
    return migration.finish()


@pytest.mark.parametrize("memory_bytes", once([1 << 30, 0], 1 << 30), ids=["memory", "disk"])
def test_pages_and_registers_are_those_of_qemus_own_elf(dumps: tuple[Path, Path], tmp_path: Path, memory_bytes: int) -> None:
    stream, elf = dumps
    with open_spool(WEB.memory_mib << 20, tmp_path, Rendezvous(tmp_path, None), memory_bytes) as spool:
        assert spool.in_memory == bool(memory_bytes)
        machine = parse(stream, spool)
        content = elf.read_bytes()
        header = read_header(content)
        blocks = {block.name: number for number, block in enumerate(spool.block_list)}
        ram, bios = spool.block_list[blocks["pc.ram"]], spool.block_list[blocks["pc.bios"]]
        assert ram.size_bytes == WEB.memory_mib << 20
        assert loaded(header) == ram.size_bytes + bios.size_bytes
        assert read(spool, blocks["pc.ram"]) == at(content, header, 0, ram.size_bytes)
        assert read(spool, blocks["pc.bios"]) == at(content, header, ROM_AT_4_GIB - bios.size_bytes, bios.size_bytes)
        for block, number in spool.vmcoreinfo():
            assert b"OSRELEASE=" in read(spool, block)[number * 4096 : (number + 1) * 4096]
        assert spool.vmcoreinfo(), "Linux wrote one"
    assert machine.name.startswith("pc-q35-")
    (cpu,) = machine.named("cpu")
    assert cpu.integer("env.eip") in registers(content, header)
    assert cpu.integers("env.regs")[4] in registers(content, header)


def test_the_recorded_stream_cut_short_is_truncated(dumps: tuple[Path, Path], tmp_path: Path) -> None:
    stream, _ = dumps
    size = stream.stat().st_size
    for limit in (size // 3, size - 100_000, size - 1):
        with (
            open_spool(WEB.memory_mib << 20, tmp_path, Rendezvous(tmp_path, None), 1 << 30) as spool,
            pytest.raises(StreamTruncated),
        ):
            parse(stream, spool, limit)


def loaded(header: CoreHeader) -> int:
    return sum(segment.size_bytes for segment in header.segments if segment.kind == PT_LOAD)


def read(spool: Spool, block: int) -> bytes:
    into = bytearray(spool.block_list[block].size_bytes)
    spool.read(block, 0, memoryview(into))
    return bytes(into)


def at(elf: bytes, header: CoreHeader, physical: int, size_bytes: int) -> bytes:
    offset = header.offset_of(physical)
    return elf[offset : offset + size_bytes]


def registers(elf: bytes, header: CoreHeader) -> set[int]:
    """Every 8 bytes of the notes as a number; the registers are among them."""
    (note,) = [segment for segment in header.segments if segment.kind != PT_LOAD]
    notes = elf[note.offset : note.offset + note.size_bytes]
    return {int.from_bytes(notes[offset : offset + 8], "little") for offset in range(0, len(notes) - 7, 4)}
