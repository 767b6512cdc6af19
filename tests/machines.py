"""Machines, blocks and domains for tests, as QEMU and libvirt describe them."""

from __future__ import annotations

from collections.abc import Sequence

from app.capture.migration import Block, Field, Machine, Section, State

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


def numbers(name: str, *values: int, size: int = 8) -> Field:
    """A field of one number or more."""
    content = b"".join(value.to_bytes(size, "big") for value in values)
    return Field(name=name, kind=f"uint{size * 8}", count=len(values), content=content, elements=())


def vcpu_section(number: int, *, long_mode: bool = True, cr0: int = 300, cr3: int = 303, cr4: int = 304) -> Section:
    """A virtual CPU whose every register has a number of its own.

    General registers 100 to 115 in the processor's order; selectors from 10 on, bases from 1000, limits from 2000, flags
    from 3000, in the order es cs ss ds fs gs ldt tr gdt idt; control registers from 300 on.
    """
    segments = [
        State(
            name="segment",
            version=1,
            fields=(
                numbers("selector", 10 + index, size=4),
                numbers("base", 1000 + index),
                numbers("limit", 2000 + index, size=4),
                numbers("flags", 3000 + index, size=4),
            ),
            subsections=(),
        )
        for index in range(10)
    ]
    fields = (
        numbers("env.regs", *range(100, 116)),
        numbers("env.eip", 200),
        numbers("env.eflags", 201),
        numbers("env.hflags", 0x4000 if long_mode else 0, size=4),
        _struct("env.segs", *segments[:6]),
        *(_struct(f"env.{name}", segment) for name, segment in zip(("ldt", "tr", "gdt", "idt"), segments[6:], strict=True)),
        *(numbers(f"env.cr[{index}]", value) for index, value in ((0, cr0), (2, 302), (3, cr3), (4, cr4))),
        numbers("env.kernelgsbase", 999),
    )
    return Section(name="cpu", version=12, fields=fields, subsections=(), instance=number, device="cpu")


def _struct(name: str, *elements: State) -> Field:
    return Field(name=name, kind="struct", count=len(elements), content=b"", elements=elements)
