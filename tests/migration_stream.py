"""A tiny writer of QEMU migration streams, for tests: what QEMU would write for given records, byte for byte."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

PAGE = 4096
RAM_ID = 2
FILL, MEM_SIZE, DATA, END, CONTINUE = 0x02, 0x04, 0x08, 0x10, 0x20

CPU: dict[str, Any] = {
    "name": "cpu",
    "instance_id": 0,
    "vmsd_name": "cpu",
    "version": 12,
    "fields": [
        {"name": "env.regs", "array_len": 2, "type": "uint64", "size": 8},
        {
            "name": "env.segs",
            "array_len": 2,
            "type": "struct",
            "struct": {"vmsd_name": "segment", "version": 1, "fields": [{"name": "selector", "type": "uint32", "size": 4}]},
            "size": 4,
        },
        {"name": "offset", "type": "int64", "size": 8},
        {"name": "own", "type": "qtailq", "vmsd_name": "x", "version": 1, "fields": [], "size": 3},
    ],
    "subsections": [{"vmsd_name": "cpu/tsc", "version": 3, "fields": [{"name": "tsc", "type": "uint32", "size": 4}]}],
}
CPU_STATE = struct.pack(">QQIIq", 7, 2**63, 16, 24, -5) + b"own" + b"\x05\x07cpu/tsc" + struct.pack(">II", 3, 99)
"""The bytes that ``CPU`` describes."""


@dataclass(frozen=True, slots=True)
class Page:
    """One record: the page's number in its block, and its 4096 bytes, or one byte that fills it."""

    block: int
    number: int
    content: bytes = field(repr=False)

    def apply(self, image: list[bytearray]) -> None:
        """Write it where it belongs."""
        content = self.content * (PAGE // len(self.content))
        image[self.block][self.number * PAGE : (self.number + 1) * PAGE] = content


def counted(name: str) -> bytes:
    return bytes([len(name)]) + name.encode()


def header(machine: str = "pc-q35-7.2") -> bytes:
    return b"QEVM" + struct.pack(">I", 3) + b"\x07" + struct.pack(">I", len(machine)) + machine.encode()


def block_list(blocks: Sequence[tuple[str, int]]) -> bytes:
    out = struct.pack(">Q", sum(pages * PAGE for _, pages in blocks) | MEM_SIZE)
    return out + b"".join(counted(name) + struct.pack(">Q", pages * PAGE) for name, pages in blocks)


def section(kind: int, body: bytes, number: int = RAM_ID) -> bytes:
    """A part (2) or the end (3) of memory, from its kind to its footer."""
    return bytes([kind]) + struct.pack(">I", number) + body + struct.pack(">Q", END) + b"\x7e" + struct.pack(">I", number)


def start(blocks: Sequence[tuple[str, int]]) -> bytes:
    return section(1, counted("ram") + struct.pack(">II", 0, 4) + block_list(blocks))


def records(pages: Iterable[Page], blocks: Sequence[tuple[str, int]]) -> bytes:
    """As QEMU does, the block is named only when it changes."""
    out, last = bytearray(), -1
    for page in pages:
        flags = FILL if len(page.content) == 1 else DATA
        out += struct.pack(">Q", page.number * PAGE | flags | (CONTINUE if page.block == last else 0))
        if page.block != last:
            out += counted(blocks[page.block][0])
        out += page.content
        last = page.block
    return bytes(out)


def device(described: dict[str, Any], state: bytes, number: int = 40) -> bytes:
    head = b"\x04" + struct.pack(">I", number) + counted(described["name"])
    return head + struct.pack(">II", described["instance_id"], described["version"]) + state + b"\x7e" + struct.pack(">I", number)


def description(devices: Sequence[dict[str, Any]]) -> bytes:
    text = json.dumps({"page_size": PAGE, "devices": devices}, indent=1).encode()
    return b"\0\x06" + struct.pack(">I", len(text)) + text


def stream(blocks: Sequence[tuple[str, int]], parts: Sequence[Sequence[Page]]) -> bytes:
    """A whole one: every part but the last while the guest runs, the last when it stands still."""
    out = [header(), start(blocks)]
    for number, pages in enumerate(parts):
        out.append(section(3 if number == len(parts) - 1 else 2, records(pages, blocks)))
    return b"".join([*out, device(CPU, CPU_STATE), description([CPU])])


def image(blocks: Sequence[tuple[str, int]], parts: Iterable[Iterable[Page]]) -> list[bytes]:
    """What each block holds in the end: the last copy of each page, and zero where none came."""
    out = [bytearray(pages * PAGE) for _, pages in blocks]
    for pages in parts:
        for page in pages:
            page.apply(out)
    return [bytes(block) for block in out]
