"""RAM blocks → guest-physical ranges, exactly as QEMU maps them.

``layout`` knows it from the stream and the domain's XML alone. ``layout_from_header`` is told it by the program headers
of one of QEMU's own dumps, for guests that the rules do not cover. Both would rather raise ``LayoutUnknown`` than guess:
a wrong layout is a vmcore that looks right and is not.

Known and left out: in some of a VGA device's modes a part of its video memory is *also* seen at 0xa0000.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from app.capture.chipset import FOUR_GIB, WINDOW, Chipset, chipset_of, low_bytes
from app.capture.domainmemory import DomainMemory, domain_memory, refuse_other_modules, refuse_passthrough
from app.capture.elfcore import PT_LOAD, CoreHeader
from app.capture.machine import Machine
from app.capture.migration import Block
from app.capture.pci import bar_address, config_space, device_path, on_root_bus, rom_address
from app.capture.ranges import Range, covered, joined, unknown, without

# Machine types before 4.0 put "/objects/" before the names of some.
_PLAIN = re.compile(r"(?:/objects/)?pc\.ram")
_NODE = re.compile(r"(?:/objects/)?ram-node(\d+)")
_DIMM = re.compile(r"(?:/objects/)?(mem.*dimm\d+|memua-.*)")
_FIRMWARE = ("pc.bios", "pc.rom", "isa-bios")
_TPM = ("tpm-crb-cmd", "tpm-ppi")  # the second is for firmware and in no dump of QEMU's
_TPM_COMMANDS = Range(0xFED40080, 0xF80, "tpm-crb-cmd", 0)
_VIDEO = {
    "vga": {"vga.vram": 0},
    "virtio-vga": {"vga.vram": 0},
    "bochs-display": {"bochs-display-vram": 0},
    "qxl": {"vga.vram": 0, "qxl.vgavram": 0, "qxl.vram": 1, "qxl.vrom": 2},
}
"""By the name of the device's section: its blocks, and the number of the PCI region through which each is seen whole."""

_QXL_WIDE_BAR = slice(0x20, 0x24)
_MOST_BYTES = 512 << 30  # close to 1 TiB QEMU moves memory away from what AMD's IOMMU needs there
_SMBASE = (0x30000, 0x50000)
_TSEG_MOST_BYTES = 64 << 20


def layout(machine: Machine, blocks: Sequence[Block], domain_xml: str) -> tuple[Range, ...]:
    """Where the blocks lie, by the rules. Raises ``LayoutUnknown``."""
    chipset, memory, sizes = chipset_of(machine), domain_memory(domain_xml), _sizes(blocks)
    main = _main(sizes)
    _agree(main, memory)
    if chipset.smm_takes_memory:
        raise unknown("a part of its memory is kept for system management mode")
    others = _others(machine, sizes, memory)
    total = sum(block.size_bytes for block in main)
    return _complete(chipset, _placed(main, low_bytes(machine, total)), others, sizes)


def layout_from_header(header: CoreHeader, machine: Machine, blocks: Sequence[Block], domain_xml: str) -> tuple[Range, ...]:
    """Where the blocks lie, by the program headers of a dump that QEMU wrote of this run of the guest, and the stream.

    The headers decide what the rules cannot; what changes while a guest runs is taken from the stream, whose instant is
    the image's: the window below 1 MiB. Raises ``LayoutUnknown`` unless each range can be in one block only, and
    everything that must be there is there.
    """
    chipset, memory, sizes = chipset_of(machine), domain_memory(domain_xml), _sizes(blocks)
    main = _main(sizes)
    loads = [Range(each.physical, each.size_bytes, "", 0) for each in header.segments if each.kind == PT_LOAD]
    told = without(loads, *WINDOW)
    dimms = list(_dimms(sizes, memory))
    placed = _placed(main, _low_told(main, loads, dimms))
    possible = [*placed, *dimms, *_fixed(sizes), *_regions(machine, sizes)]
    found = [_in_one(each, possible) for each in told]
    _nothing_is_missing(found, placed, dimms, chipset)
    seen = [each for each in placed if each.physical < WINDOW[1]]
    window = chipset.window(seen, _firmware(sizes), vga=_has_vga(sizes))
    return joined([*found, *window])


def _sizes(blocks: Sequence[Block]) -> dict[str, int]:
    return {block.name: block.size_bytes for block in blocks}


def _main(sizes: dict[str, int]) -> list[Block]:
    """The guest's plain memory: one block, or one for each NUMA node, by its number. (The stream orders them by size.)"""
    nodes = sorted((int(found[1]), name) for name in sizes if (found := _NODE.fullmatch(name)))
    plain = [Block(name, size) for name, size in sizes.items() if _PLAIN.fullmatch(name)]
    if len(plain) == 1 and not nodes:
        return plain
    if not nodes or plain or [number for number, _ in nodes] != list(range(len(nodes))):
        raise unknown(f"its memory is not in blocks as is known ({', '.join(sizes)})")
    return [Block(name, sizes[name]) for _, name in nodes]


def _is_main(name: str) -> bool:
    return _PLAIN.fullmatch(name) is not None or _NODE.fullmatch(name) is not None


def _agree(main: list[Block], memory: DomainMemory) -> None:
    """Stream and XML have to say the same."""
    total = sum(block.size_bytes for block in main)
    if memory.strange:
        raise unknown(memory.strange)
    if total != memory.plain_bytes:
        raise unknown(f"the stream has {total} bytes of memory, and its XML says {memory.plain_bytes}")
    if _NODE.fullmatch(main[0].name) and tuple(block.size_bytes for block in main) != memory.nodes:
        raise unknown("the sizes of its NUMA nodes are not those in its XML")
    if total > _MOST_BYTES or memory.most_bytes > _MOST_BYTES:
        raise unknown(f"it may have more than {_MOST_BYTES >> 30} GiB")


def _placed(main: list[Block], low: int) -> list[Range]:
    """One behind the other, the first ``low`` bytes from 0 on, the rest from 4 GiB on."""
    ranges, at = [], 0
    for block in main:
        for start, end, base in ((0, low, 0), (low, max(low, at + block.size_bytes), FOUR_GIB)):
            first, last = max(start, at), min(end, at + block.size_bytes)
            if first < last:
                ranges.append(Range(base + first - start, last - first, block.name, first - at))
        at += block.size_bytes
    return ranges


def _others(machine: Machine, sizes: dict[str, int], memory: DomainMemory) -> list[Range]:
    """Everything that is mapped beside the plain memory and the window. Raises ``LayoutUnknown`` for what no rule covers."""
    video = {name: _video(machine, name, size) for name, size in sizes.items() if _video_region(machine, name) is not None}
    for name in sizes:
        if name.startswith("system.flash") or name == "isa-bios":
            raise unknown("it has UEFI firmware, which may take some of its memory away")
        if not (_is_main(name) or name in (*_FIRMWARE, *_TPM) or _DIMM.fullmatch(name) or _is_rom(name) or name in video):
            raise unknown(f"it has a RAM block {name!r} of {sizes[name]} bytes, which no rule covers")
    for name in filter(_is_rom, sizes):
        config = config_space(machine, _owner(machine, name))
        if config is not None and rom_address(config, sizes[name]) is not None:
            raise unknown(f"the option ROM {name} is switched on")
    return [*_dimms(sizes, memory), *_fixed(sizes), *(each for each in video.values() if each)]


def _complete(chipset: Chipset, placed: list[Range], others: list[Range], sizes: dict[str, int]) -> tuple[Range, ...]:
    low = [each for each in placed if each.physical < WINDOW[1]]
    window = chipset.window(low, _firmware(sizes), vga=_has_vga(sizes))
    return joined([*without(placed, *WINDOW), *window, *others])


def _firmware(sizes: dict[str, int]) -> dict[str, int]:
    return {name: sizes[name] for name in _FIRMWARE if name in sizes}


def _fixed(sizes: dict[str, int]) -> Iterator[Range]:
    """What always lies at one place: a BIOS ends where 4 GiB end, and a TPM's commands follow its registers."""
    if "pc.bios" in sizes:
        yield Range(FOUR_GIB - sizes["pc.bios"], sizes["pc.bios"], "pc.bios", 0)
    if "tpm-crb-cmd" in sizes:
        yield _TPM_COMMANDS


def _dimms(sizes: dict[str, int], memory: DomainMemory) -> Iterator[Range]:
    """Those in the stream. The XML may know of one more, or still of one that is being pulled out: then they do not agree."""
    blocks = {found[1]: name for name in sizes if (found := _DIMM.fullmatch(name))}
    if {dimm.block for dimm in memory.dimms} != set(blocks):
        raise unknown("the DIMMs in the stream are not those in its XML")
    for dimm in memory.dimms:
        if sizes[blocks[dimm.block]] != dimm.size_bytes:
            raise unknown(f"the size of {dimm.block} is not the one in its XML")
        yield replace(dimm, block=blocks[dimm.block])


def _is_rom(name: str) -> bool:
    """Tables and option ROMs that QEMU keeps in blocks, and that are not mapped, or only while firmware reads them."""
    return name.startswith("/rom@") or (name.endswith(".rom") and device_path(name) is not None)


def _has_vga(sizes: dict[str, int]) -> bool:
    return any(name.rpartition("/")[2] == "vga.vram" for name in sizes)


def _owner(machine: Machine, name: str) -> str:
    """The path of the device that owns a block. Machine types before 3.0 call video memory by no path: it has one owner."""
    if name == "vga.vram":
        owners = {section.name.rpartition("/")[0] for section in machine.sections if section.name.rpartition("/")[2] in _VIDEO}
        return owners.pop() if len(owners) == 1 else ""
    return device_path(name) or ""


def _video_region(machine: Machine, name: str) -> int | None:
    """The number of the PCI region through which a block of video memory is seen."""
    path, block = _owner(machine, name), name.rpartition("/")[2]
    for device, regions in _VIDEO.items():
        if block in regions and any(section.name == f"{path}/{device}" for section in machine.sections):
            return regions[block]
    return None


def _video(machine: Machine, name: str, size_bytes: int) -> Range | None:
    """Where a block of video memory is seen now; None if nowhere, as before firmware has set the device up."""
    path, region = _owner(machine, name), _video_region(machine, name)
    config = config_space(machine, path)
    if config is None or region is None or not on_root_bus(path):
        raise unknown(f"where the device of {name} is mapped is not known")
    if name.endswith("/qxl.vram") and any(config[_QXL_WIDE_BAR]):
        raise unknown(f"{name} is seen at two places")
    address = bar_address(config, region, size_bytes)
    return None if address is None else Range(address, size_bytes, name, 0)


# -- by the headers


def _low_told(main: list[Block], loads: list[Range], dimms: Iterable[Range]) -> int:
    """How much of the plain memory lies below 4 GiB: what does not lie above it, in one run from there to the first DIMM."""
    end = FOUR_GIB
    stop = min((dimm.physical for dimm in dimms), default=1 << 64)
    for each in sorted(loads, key=lambda load: load.physical):
        if each.physical == end and end < stop:
            end = each.end
    low = sum(block.size_bytes for block in main) - (end - FOUR_GIB)
    if not WINDOW[1] <= low <= FOUR_GIB:
        raise unknown(f"QEMU's headers have {end - FOUR_GIB} bytes from 4 GiB on, which is not a part of its memory")
    return low


def _regions(machine: Machine, sizes: dict[str, int]) -> Iterator[Range]:
    """Each PCI region through which a block of the device may be seen: that it is, QEMU's headers tell."""
    for name, size in sizes.items():
        config = config_space(machine, _owner(machine, name))
        if config is None:
            continue
        known = _video_region(machine, name)
        numbers = range(6) if known is None else (known,)
        places = [rom_address(config, size)] if _is_rom(name) else [bar_address(config, number, size) for number in numbers]
        yield from (Range(place, size, name, 0) for place in places if place is not None)


def _in_one(load: Range, possible: list[Range]) -> Range:
    """The part of a block that a range of QEMU's is. Raises ``LayoutUnknown`` unless there is just one."""
    around = [each for each in possible if each.physical <= load.physical and load.end <= each.end]
    if len(around) != 1:
        names = ", ".join(each.block for each in around) or "none that is known"
        raise unknown(f"QEMU's range at {load.physical:#x} of {load.size_bytes} bytes may be of the blocks: {names}")
    return around[0].part(load.physical, load.end)


def _nothing_is_missing(found: list[Range], placed: list[Range], dimms: list[Range], chipset: Chipset) -> None:
    """All memory is in the headers, except for the window and what a q35 keeps for system management mode."""
    top = max(each.end for each in placed if each.end <= FOUR_GIB)
    excused = [WINDOW]
    if chipset.kind.name == "q35":
        excused += [_SMBASE, (top - _TSEG_MOST_BYTES, top)]
    expected: list[Range] = [*placed, *dimms]
    for start, end in excused:
        expected = without(expected, start, end)
    for each in expected:
        if covered(found, each.physical, each.end) != each.size_bytes:
            raise unknown(f"QEMU's headers leave out memory of {each.block} that should lie at {each.physical:#x}")


__all__ = ["Range", "layout", "layout_from_header", "refuse_other_modules", "refuse_passthrough"]
