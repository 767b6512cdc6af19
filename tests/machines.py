"""Machines, blocks and domains for tests, as QEMU and libvirt describe them."""

from __future__ import annotations

from collections.abc import Sequence

from app.capture.migration import Block, Field, Machine, Section

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

FIRMWARE = (
    Block("/rom@etc/acpi/tables", 128 * KIB),
    Block("pc.bios", 256 * KIB),
    Block("pc.rom", 128 * KIB),
    Block("/rom@etc/table-loader", 4 * KIB),
    Block("/rom@etc/acpi/rsdp", 4 * KIB),
)
SHADOWED = bytes.fromhex("10111111111133")
"""The chipset's PAM registers as SeaBIOS leaves them: memory is read in the whole window."""

RESET = bytes(7)


def section(name: str, device: str, *fields: Field) -> Section:
    return Section(name=name, version=1, fields=fields, subsections=(), instance=0, device=device)


def pci(path: str, device: str, config: bytes | bytearray) -> Section:
    """A PCI device of which only the configuration space is of interest."""
    space = Field(name="config[0]", kind="pci config", count=1, content=bytes(config), elements=())
    return section(f"{path}/{device}", device, space)


def config(*, bars: Sequence[int] = (), rom: int = 0, memory: bool = True) -> bytearray:
    """A device's configuration space: its regions' addresses, with QEMU's flags, and whether it answers to them."""
    space = bytearray(256)
    space[4] = 2 if memory else 0
    for number, value in enumerate(bars):
        space[0x10 + 4 * number : 0x14 + 4 * number] = value.to_bytes(4, "little")
    space[0x30:0x34] = rom.to_bytes(4, "little")
    return space


def q35(*devices: Section, pam: bytes = SHADOWED, smm: bytes = b"\0\x0a\x38", name: str = "pc-q35-7.2") -> Machine:
    space = bytearray(256)
    space[0x90:0x97], space[0x9C:0x9F] = pam, smm
    return Machine(name, (pci("0000:00:00.0", "mch", space), *devices))


def i440fx(*devices: Section, pam: bytes = SHADOWED, smram: int = 0x0A, name: str = "pc-i440fx-7.2") -> Machine:
    space = bytearray(256)
    space[0x59:0x60], space[0x72] = pam, smram
    return Machine(name, (pci("0000:00:00.0", "I440FX", space), *devices))


def blocks(*plain: Block | int) -> tuple[Block, ...]:
    """The blocks of a BIOS machine; a number is the size of ``pc.ram``."""
    return (*(Block("pc.ram", each) if isinstance(each, int) else each for each in plain), *FIRMWARE)


def domain(
    memory: int, *, nodes: Sequence[int] = (), dimms: str = "", most: int = 0, devices: str = "", arguments: str = ""
) -> str:
    """A running domain's XML. ``memory``: all of it, DIMMs included."""
    cells = "".join(f"<cell id='{number}' memory='{size >> 10}' unit='KiB'/>" for number, size in enumerate(nodes))
    room = f"<maxMemory slots='4' unit='KiB'>{most >> 10}</maxMemory>" if most else ""
    extra = f"<q:commandline>{arguments}</q:commandline>" if arguments else ""
    return (
        f"<domain xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'>{room}<memory unit='KiB'>{memory >> 10}</memory>"
        f"<cpu><numa>{cells}</numa></cpu><devices>{dimms}{devices}</devices>{extra}</domain>"
    )


def dimm(slot: int, size: int, base: int, *, alias: str = "", model: str = "dimm") -> str:
    return (
        f"<memory model='{model}'><target><size unit='KiB'>{size >> 10}</size><node>0</node></target>"
        f"<alias name='{alias or f'{model}{slot}'}'/><address type='dimm' slot='{slot}' base='{base:#x}'/></memory>"
    )
