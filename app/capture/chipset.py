"""What the two chipsets of QEMU's PCs do to memory: the 4 GiB hole, and the window below 1 MiB.

Rules: QEMU, ``hw/i386/pc_q35.c``, ``hw/i386/pc_piix.c`` (the hole), ``hw/pci-host/pam.c``, ``q35.c``, ``i440fx.c`` (the
window), ``hw/i386/pc.c`` and ``x86.c`` (what lies behind it); versions 2.4 to 7.2.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from app.capture.machine import Machine
from app.capture.pci import config_space
from app.capture.ranges import Range, unknown

FOUR_GIB = 1 << 32
VGA_WINDOW = (0xA0000, 0xC0000)
WINDOW = (0xA0000, 0x100000)
"""Where the chipset decides whether memory, a VGA device or firmware is seen."""

_ROM_AT, _FIRMWARE_AT = 0xC0000, 0xE0000
_HALF_BYTES = 0x20000
_MODE, _READS_MEMORY = 0x03, 0x01
_VERSION = re.compile(r"pc-i440fx-(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """One chipset's registers: offsets in its configuration space, and the bits that take memory away for SMM."""

    name: str
    pam: int
    smm: tuple[tuple[int, int], ...]


_KINDS = {
    "mch": _Kind(name="q35", pam=0x90, smm=((0x9C, 0xFF), (0x9D, 0x40), (0x9E, 0x81))),
    "I440FX": _Kind(name="i440fx", pam=0x59, smm=((0x72, 0x40),)),
}


@dataclass(frozen=True, slots=True)
class Chipset:
    """The chipset of one machine, and its state."""

    kind: _Kind
    config: bytes

    @property
    def smm_takes_memory(self) -> bool:
        """Whether some memory may be seen in system management mode only, or is about to be."""
        return any(self.config[at] & bits for at, bits in self.kind.smm)

    def window(self, low: list[Range], firmware: dict[str, int], *, vga: bool) -> list[Range]:
        """What is seen in ``WINDOW``. ``low`` is what memory has there, ``firmware`` the size of each such block.

        Memory may be hidden, area by area: by a VGA device, and by firmware as long as the chipset reads from PCI.
        """
        ranges = []
        for start, end, shown in [(*VGA_WINDOW, not vga), *self._areas()]:
            parts = (each.part(max(each.physical, start), min(each.end, end)) for each in low)
            if shown:
                ranges += [each for each in parts if each.size_bytes > 0]
            elif start >= _ROM_AT:
                ranges.append(_behind(start, end, firmware))
        return ranges

    def _areas(self) -> list[tuple[int, int, bool]]:
        """Start, end, and whether memory is read there: half a register for each area, the last one's comes first."""
        halves = [half for register in self.config[self.kind.pam :][:7] for half in (register & _MODE, register >> 4 & _MODE)]
        starts = [0xF0000, *range(0xC0000, 0xF0000, 0x4000)]
        ends = [0x100000, *range(0xC4000, 0xF4000, 0x4000)]
        return [(start, end, bool(half & _READS_MEMORY)) for start, end, half in zip(starts, ends, halves[1:], strict=True)]


def chipset_of(machine: Machine) -> Chipset:
    """The machine's chipset. Raises ``LayoutUnknown`` if it is none of the two."""
    for device, kind in _KINDS.items():
        for section in machine.named(device):
            config = config_space(machine, section.name.partition("/")[0])
            if config is not None:
                return Chipset(kind, config)
    raise unknown(f"the machine {machine.name} is neither a q35 nor an i440fx")


def low_bytes(machine: Machine, total_bytes: int) -> int:
    """How much of ``total_bytes`` of memory lies below 4 GiB. Raises ``LayoutUnknown`` for other machines' rules."""
    if re.match(r"pc-q35-", machine.name):
        return 0x8000_0000 if total_bytes >= 0xB000_0000 else total_bytes
    version = _VERSION.match(machine.name)
    if machine.name.startswith("pc-i440fx-") and not (version and (int(version[1]), int(version[2])) < (2, 0)):
        return 0xC000_0000 if total_bytes >= 0xE000_0000 else total_bytes
    raise unknown(f"how the machine {machine.name} divides its memory at 4 GiB is not known")


def _behind(start: int, end: int, firmware: dict[str, int]) -> Range:
    """The firmware in the window: option ROMs, then the BIOS's last 128 KiB, of which UEFI has a copy."""
    if start < _FIRMWARE_AT:
        name, offset = "pc.rom", start - _ROM_AT
    elif "isa-bios" in firmware:
        name, offset = "isa-bios", start - _FIRMWARE_AT
    else:
        name, offset = "pc.bios", firmware.get("pc.bios", 0) - _HALF_BYTES + start - _FIRMWARE_AT
    if offset < 0 or offset + end - start > firmware.get(name, 0):
        raise unknown(f"{name}, which should be seen at {start:#x}, is not there or too small")
    return Range(start, end - start, name, offset)
