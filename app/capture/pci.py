"""Where PCI devices have their memory: their configuration space, as it stands in the machine's state.

Rules: PCI Local Bus Specification 3.0, 6.2.5, as QEMU applies them (``hw/pci/pci.c``, ``pci_bar_address``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from app.capture.machine import Machine, State

_COMMAND, _COMMAND_MEMORY = 0x04, 0x02
_BARS, _ROM = 0x10, 0x30
_IO, _WIDE = 0x01, 0x04
_ROM_ENABLED = 0x01
_HEADER_TYPE = 0x0E
_ON_ROOT_BUS: Final = re.compile(r"0000:00:[0-9a-f]{2}\.[0-7]")


def device_path(block: str) -> str | None:
    """The path of the device that owns a RAM block, e.g. ``0000:00:01.0`` for ``0000:00:01.0/vga.vram``."""
    path, slash, _ = block.partition("/")
    return path if slash and path.startswith("0000:") else None


def on_root_bus(path: str) -> bool:
    """Whether no bridge is between the device and the CPU, whose windows would have a say in where its memory is."""
    return _ON_ROOT_BUS.fullmatch(path) is not None


def config_space(machine: Machine, path: str) -> bytes | None:
    """The configuration space of the device at ``path``; None if it is not found."""
    for section in machine.sections:
        if section.name.startswith(path + "/"):
            for found in _configs(section):
                return found
    return None


def _configs(state: State) -> Iterator[bytes]:
    for field in state.fields:
        if field.kind == "pci config":
            yield field.content
        elif field.kind == "virtio" and field.content.startswith(b"\0\0\0\x02\xf4\x1a"):
            # Virtio devices write their PCI part by a function: version 2, then the space (Red Hat's vendor id is 1af4).
            yield field.content[4 : 4 + 256]
        for element in field.elements:
            yield from _configs(element)


def bar_address(config: bytes, number: int, size_bytes: int) -> int | None:
    """The physical address of a device's memory region with this number, or None if it is not mapped."""
    low = _u32(config, _BARS + 4 * number)
    if low & _IO or not _memory_enabled(config):
        return None
    high = _u32(config, _BARS + 4 * number + 4) << 32 if low & _WIDE else 0
    return _mapped(high | low, size_bytes, wide=bool(low & _WIDE))


def rom_address(config: bytes, size_bytes: int) -> int | None:
    """The physical address of a device's option ROM, or None if it is not mapped."""
    value = _u32(config, _ROM)
    if config[_HEADER_TYPE] & 0x7F or not value & _ROM_ENABLED or not _memory_enabled(config):
        return None
    return _mapped(value, size_bytes, wide=False)


def _memory_enabled(config: bytes) -> bool:
    return bool(config[_COMMAND] & _COMMAND_MEMORY)


def _mapped(value: int, size_bytes: int, *, wide: bool) -> int | None:
    """QEMU ignores the bits that the size makes meaningless, and takes 0 and all ones for "nowhere"."""
    address = value & ~(size_bytes - 1)
    last = address + size_bytes - 1
    if address == 0 or last >= (1 << 64 if wide else 1 << 32) - 1:
        return None
    return address


def _u32(config: bytes, at: int) -> int:
    return int.from_bytes(config[at : at + 4], "little")
