"""Where RAM blocks lie, by the rules and by QEMU's headers. (That the rules are QEMU's is proven in tests/exact.)"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from app.capture.elfcore import PT_LOAD, PT_NOTE, CoreHeader, Segment
from app.capture.layout import Range, layout, layout_from_header, refuse_other_modules, refuse_passthrough
from app.capture.live import laid_out_by_rules
from app.capture.migration import Block, Field, Machine
from app.errors import LayoutUnknown, LiveNotPossible
from tests.machines import GIB, KIB, MIB, RESET, blocks, config, dimm, domain, i440fx, pci, q35, section

Ranges = tuple[Range, ...]
BIOS = Range(4 * GIB - 256 * KIB, 256 * KIB, "pc.bios", 0)
VGA = Block("0000:00:01.0/vga.vram", 16 * MIB)


def plain(total: int, low: int) -> Ranges:
    """One block, of which ``low`` lie below 4 GiB."""
    above = (Range(4 * GIB, total - low, "pc.ram", low),) if total > low else ()
    return (Range(0, low, "pc.ram", 0), BIOS, *above)


@pytest.mark.parametrize(
    ("machine", "total", "low"),
    [
        (q35(), 128 * MIB, 128 * MIB),
        (q35(), 2815 * MIB, 2815 * MIB),
        (q35(), 2816 * MIB, 2 * GIB),
        (q35(), 3584 * MIB, 2 * GIB),
        (q35(name="pc-q35-rhel9.2.0"), 300 * GIB, 2 * GIB),
        (i440fx(), 3583 * MIB, 3583 * MIB),
        (i440fx(), 3584 * MIB, 3 * GIB),
        (i440fx(), 4608 * MIB, 3 * GIB),
        (i440fx(name="pc-i440fx-jammy"), 3 * GIB, 3 * GIB),
        (i440fx(name="pc-i440fx-2.0"), 4 * GIB, 3 * GIB),
    ],
    ids=lambda value: value.name if isinstance(value, Machine) else str(value >> 20),
)
def test_plain_memory_leaves_a_hole_below_4_gib(machine: Machine, total: int, low: int) -> None:
    assert layout(machine, blocks(total), domain(total)) == plain(total, low)


def test_numa_nodes_follow_each_other_by_number_not_in_the_streams_order() -> None:
    nodes = (Block("ram-node1", 3 * GIB), Block("ram-node0", 768 * MIB))
    found = layout(q35(), blocks(*nodes), domain(3840 * MIB, nodes=(768 * MIB, 3 * GIB)))
    assert found == (
        Range(0, 768 * MIB, "ram-node0", 0),
        Range(768 * MIB, 1280 * MIB, "ram-node1", 0),
        BIOS,
        Range(4 * GIB, 1792 * MIB, "ram-node1", 1280 * MIB),
    )


def test_ten_nodes_are_ordered_as_numbers() -> None:
    nodes = [Block(f"ram-node{number}", 128 * MIB) for number in range(11)]
    found = layout(q35(), blocks(*reversed(nodes)), domain(1408 * MIB, nodes=[128 * MIB] * 11))
    assert [each.block for each in found[:11]] == [node.name for node in nodes]


def test_dimms_lie_where_the_xml_says() -> None:
    modules = dimm(0, 128 * MIB, 4 * GIB) + dimm(1, 256 * MIB, 4 * GIB + 128 * MIB, alias="ua-mine")
    plugged = (Block("memdimm0", 128 * MIB), Block("memua-mine", 256 * MIB))
    found = layout(q35(), blocks(GIB, *plugged), domain(1408 * MIB, dimms=modules, most=4 * GIB))
    assert found[2:] == (Range(4 * GIB, 128 * MIB, "memdimm0", 0), Range(4 * GIB + 128 * MIB, 256 * MIB, "memua-mine", 0))


@pytest.mark.parametrize("machine", [q35(pam=RESET), i440fx(pam=RESET)], ids=lambda machine: machine.name)
def test_before_firmware_has_copied_itself_the_window_shows_its_roms(machine: Machine) -> None:
    assert layout(machine, blocks(GIB), domain(GIB)) == (
        Range(0, 0xC0000, "pc.ram", 0),
        Range(0xC0000, 0x20000, "pc.rom", 0),
        Range(0xE0000, 0x20000, "pc.bios", 0x20000),
        Range(0x100000, GIB - 0x100000, "pc.ram", 0x100000),
        BIOS,
    )


def test_each_area_of_the_window_has_its_own_switch() -> None:
    # PAM0: F0000 reads memory; PAM1: C0000 memory, C4000 PCI; PAM6: E8000 PCI, EC000 memory; all others PCI
    found = layout(q35(pam=bytes.fromhex("30010000000010")), blocks(GIB), domain(GIB))
    assert (
        found[:6]
        == (
            Range(0, 0xC4000, "pc.ram", 0),
            Range(0xC4000, 0x1C000, "pc.rom", 0x4000),
            Range(0xE0000, 0xC000, "pc.bios", 0x20000),
            Range(0xEC000, GIB - 0xEC000, "pc.ram", 0xEC000),
            BIOS,
        )[:6]
    )


def test_a_vga_device_hides_the_window_and_shows_its_memory_through_its_region() -> None:
    machine = q35(pci("0000:00:01.0", "vga", config(bars=(0xFD000008,))))
    assert layout(machine, blocks(GIB, VGA), domain(GIB)) == (
        Range(0, 0xA0000, "pc.ram", 0),
        Range(0xC0000, GIB - 0xC0000, "pc.ram", 0xC0000),
        Range(0xFD000000, 16 * MIB, VGA.name, 0),
        BIOS,
    )


@pytest.mark.parametrize(
    "space",
    [config(bars=(0xFD000008,), memory=False), config(bars=(0x8,)), config(bars=(0xFF000008,))],
    ids=["memory is off", "no address yet", "its size is being asked"],
)
def test_video_memory_that_is_not_mapped_has_no_range(space: bytearray) -> None:
    found = layout(q35(pci("0000:00:01.0", "vga", space)), blocks(GIB, VGA), domain(GIB))
    assert {each.block for each in found} == {"pc.ram", "pc.bios"}


def test_a_wide_region_may_lie_above_4_gib() -> None:
    machine = q35(pci("0000:00:01.0", "bochs-display", config(bars=(0x0000000C, 0x8))))
    block = Block("0000:00:01.0/bochs-display-vram", 16 * MIB)
    assert layout(machine, blocks(GIB, block), domain(GIB))[-1] == Range(32 * GIB, 16 * MIB, block.name, 0)


def test_a_virtio_device_writes_its_configuration_space_in_its_own_way() -> None:
    space = config(bars=(0xFE000008,))
    space[:4] = bytes.fromhex("f41a5010")
    state = Field(name="virtio", kind="virtio", count=1, content=b"\0\0\0\2" + bytes(space) + bytes(100), elements=())
    machine = q35(section("0000:00:01.0/virtio-gpu", "virtio-gpu", state), section("0000:00:01.0/virtio-vga", "virtio-vga"))
    assert Range(0xFE000000, 16 * MIB, VGA.name, 0) in layout(machine, blocks(GIB, VGA), domain(GIB))


NIC = Block("0000:00:02.0/e1000.rom", 256 * KIB)


def test_option_roms_and_tables_have_no_range() -> None:
    machine = q35(pci("0000:00:02.0", "e1000", config(rom=0xFEB00000)))
    behind_a_port = Block("0000:00:02.1:00.0/virtio-net-pci.rom", 256 * KIB)
    assert layout(machine, blocks(GIB, NIC, behind_a_port), domain(GIB)) == plain(GIB, GIB)


def test_a_tpms_commands_have_a_range_at_their_fixed_place() -> None:
    tpm = (Block("tpm-crb-cmd", 4 * KIB), Block("tpm-ppi", 4 * KIB))
    assert Range(0xFED40080, 0xF80, "tpm-crb-cmd", 0) in layout(q35(), blocks(GIB, *tpm), domain(GIB))


def test_old_machine_types_say_that_backends_are_objects() -> None:
    nodes = (Block("/objects/ram-node1", GIB), Block("/objects/ram-node0", GIB), Block("/objects/memdimm0", GIB))
    xml = domain(3 * GIB, nodes=(GIB, GIB), dimms=dimm(0, GIB, 4 * GIB))
    found = layout(i440fx(), blocks(*nodes), xml)
    assert [(each.block, each.physical) for each in found if each.block.startswith("/objects/")] == [
        ("/objects/ram-node0", 0),
        ("/objects/ram-node1", GIB),
        ("/objects/memdimm0", 4 * GIB),
    ]


def test_old_machine_types_call_video_memory_by_no_path() -> None:
    machine = q35(pci("0000:00:01.0", "vga", config(bars=(0xFD000008,))), name="pc-q35-2.12")
    found = layout(machine, blocks(GIB, Block("vga.vram", 16 * MIB)), domain(GIB))
    assert Range(0xFD000000, 16 * MIB, "vga.vram", 0) in found
    assert Range(0, 0xA0000, "pc.ram", 0) in found


BEHIND_A_BRIDGE = "0000:00:02.0:00.0:01.0"
SECOND_VIDEO = Block(f"{BEHIND_A_BRIDGE}/qxl.vgavram", 64 * MIB)

MYSTERY = Block("ivshmem", 64 * MIB)
NVDIMM = dimm(0, GIB, 4 * GIB, model="nvdimm")


@pytest.mark.parametrize(
    ("machine", "stream", "xml", "why"),
    [
        (Machine("microvm", ()), blocks(GIB), domain(GIB), "microvm is neither a q35 nor an i440fx"),
        (i440fx(name="pc-i440fx-1.7"), blocks(GIB), domain(GIB), "pc-i440fx-1.7 divides"),
        (i440fx(name="rhel6.6.0"), blocks(GIB), domain(GIB), "rhel6.6.0 divides"),
        (q35(smm=b"\0\x0a\x39"), blocks(GIB), domain(GIB), "system management mode"),
        (q35(smm=b"\1\x0a\x38"), blocks(GIB), domain(GIB), "system management mode"),
        (q35(smm=b"\0\x4a\x38"), blocks(GIB), domain(GIB), "system management mode"),
        (i440fx(smram=0x4A), blocks(GIB), domain(GIB), "system management mode"),
        (q35(), blocks(GIB, Block("system.flash0", 4 * MIB)), domain(GIB), "UEFI"),
        (q35(), blocks(GIB, Block("isa-bios", 128 * KIB)), domain(GIB), "UEFI"),
        (q35(), blocks(GIB, MYSTERY), domain(GIB), "'ivshmem' of 67108864 bytes"),
        (q35(), blocks(GIB, VGA), domain(GIB), "vga.vram"),
        (q35(pci("0000:00:01.0", "cirrus_vga", config())), blocks(GIB, VGA), domain(GIB), "vga.vram"),
        (q35(pci(BEHIND_A_BRIDGE, "qxl", config())), blocks(GIB, SECOND_VIDEO), domain(GIB), "is mapped is not known"),
        (q35(section("0000:00:01.0/vga", "vga")), blocks(GIB, VGA), domain(GIB), "is mapped is not known"),
        (
            q35(pci("0000:00:01.0", "vga", config(bars=(0x10000008,)))),
            blocks(GIB, VGA),
            domain(GIB),
            "both seem to lie at 0x10000000",
        ),
        (q35(pci("0000:00:02.0", "e1000", config(rom=0xFEB00001))), blocks(GIB, NIC), domain(GIB), "e1000.rom is switched on"),
        (q35(pam=RESET), (Block("pc.ram", GIB),), domain(GIB), "pc.bios, which should be seen at 0xf0000, is not there"),
        (q35(), blocks(), domain(GIB), "not in blocks as is known"),
        (q35(), blocks(Block("ram-node1", GIB)), domain(GIB, nodes=(GIB,)), "not in blocks as is known"),
        (q35(), blocks(GIB, Block("ram-node0", GIB)), domain(2 * GIB), "not in blocks as is known"),
        (q35(), blocks(GIB), domain(2 * GIB), "the stream has 1073741824 bytes of memory"),
        (q35(), blocks(Block("ram-node0", GIB)), domain(GIB, nodes=(GIB // 2, GIB // 2)), "NUMA nodes"),
        (q35(), blocks(GIB), domain(GIB, most=900 * GIB), "more than 512 GiB"),
        (q35(), blocks(600 * GIB), domain(600 * GIB), "more than 512 GiB"),
        (q35(), blocks(GIB), domain(2 * GIB, dimms=dimm(0, GIB, 4 * GIB)), "the DIMMs in the stream"),
        (q35(), blocks(GIB, Block("memdimm0", MIB)), domain(GIB), "the DIMMs in the stream"),
        (q35(), blocks(GIB, Block("memdimm0", MIB)), domain(2 * GIB, dimms=dimm(0, GIB, 4 * GIB)), "the size of memdimm0"),
        (q35(), blocks(GIB, Block("memnvdimm0", GIB)), domain(2 * GIB, dimms=NVDIMM), "the model nvdimm"),
        (q35(), blocks(GIB), domain(GIB, dimms="<memory model='virtio-mem'/>"), "the model virtio-mem"),
        (q35(), blocks(GIB), domain(GIB, dimms="<memory model='dimm'/>"), "a DIMM without"),
        (q35(), blocks(GIB), domain(GIB, arguments="<q:arg value='pc,max-ram-below-4g=1G'/>"), "max-ram-below-4g"),
        (q35(), blocks(GIB), domain(GIB, arguments="<q:arg value='-numa'/>"), "'-numa'"),
        (q35(), blocks(GIB), "<domain><memory unit='b'>1</memory></domain>", "given in b"),
        (q35(), blocks(GIB), "<domain/>", "a size is missing"),
        (q35(), blocks(GIB), "<domain>", "not understood"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) and not value.startswith("<") else "",
)
def test_what_is_not_certain_is_refused(machine: Machine, stream: Sequence[Block], xml: str, why: str) -> None:
    with pytest.raises(LayoutUnknown, match=why):
        layout(machine, stream, xml)


# -- by QEMU's headers

OVMF = (
    Block("system.flash0", 2 * MIB),
    Block("isa-bios", 128 * KIB),
    Block("system.flash1", 128 * KIB),
    Block("pc.rom", 128 * KIB),
)
WINDOW = (Range(0xC0000, 0x20000, "pc.rom", 0), Range(0xE0000, 0x20000, "isa-bios", 0))


def header(*loads: tuple[int, int]) -> CoreHeader:
    """Program headers for these (physical address, end)."""
    segments = [Segment(kind=PT_NOTE, offset=64, physical=0, size_bytes=100)]
    segments += [Segment(kind=PT_LOAD, offset=0, physical=start, size_bytes=end - start) for start, end in loads]
    return CoreHeader(segments=tuple(segments), size_bytes=0)


def uefi(memory: int) -> tuple[Block, ...]:
    return (Block("pc.ram", memory), *OVMF)


def test_uefi_without_system_management_mode() -> None:
    told = header((0, 0xC0000), (0xC0000, 0xE0000), (0xE0000, 0x100000), (0x100000, GIB))
    assert layout_from_header(told, q35(pam=RESET), uefi(GIB), domain(GIB)) == (
        Range(0, 0xC0000, "pc.ram", 0),
        *WINDOW,
        Range(0x100000, GIB - 0x100000, "pc.ram", 0x100000),
    )


def test_what_system_management_mode_keeps_is_left_out() -> None:
    end = 2 * GIB - 16 * MIB
    told = header((0, 0x30000), (0x50000, 0xC0000), (0xC0000, 0xE0000), (0xE0000, 0x100000), (0x100000, end), (4 * GIB, 6 * GIB))
    assert layout_from_header(told, q35(pam=RESET, smm=b"\2\x1a\x3f"), uefi(4 * GIB), domain(4 * GIB)) == (
        Range(0, 0x30000, "pc.ram", 0),
        Range(0x50000, 0x70000, "pc.ram", 0x50000),
        *WINDOW,
        Range(0x100000, end - 0x100000, "pc.ram", 0x100000),
        Range(4 * GIB, 2 * GIB, "pc.ram", 2 * GIB),
    )


def test_the_window_is_shown_as_at_the_streams_instant() -> None:
    told = header((0, 0xC0000), (0xC0000, 0xE0000), (0xE0000, 0x100000), (0x100000, GIB))
    assert layout_from_header(told, q35(), uefi(GIB), domain(GIB)) == (Range(0, GIB, "pc.ram", 0),)


def test_another_division_at_4_gib_is_learned() -> None:
    told = header((0, 3584 * MIB), (BIOS.physical, 4 * GIB), (4 * GIB, 4 * GIB + 512 * MIB))
    found = layout_from_header(told, i440fx(name="pc-i440fx-1.7"), blocks(4 * GIB), domain(4 * GIB))
    assert found == plain(4 * GIB, 3584 * MIB)


def test_a_dimm_at_4_gib_is_no_plain_memory() -> None:
    xml = domain(2 * GIB, dimms=dimm(0, GIB, 4 * GIB), most=4 * GIB)
    told = header((0, GIB), (BIOS.physical, 4 * GIB), (4 * GIB, 5 * GIB))
    found = layout_from_header(told, q35(), blocks(GIB, Block("memdimm0", GIB)), xml)
    assert found == (*plain(GIB, GIB), Range(4 * GIB, GIB, "memdimm0", 0))


def test_a_devices_memory_is_found_at_its_region() -> None:
    machine = i440fx(pci("0000:00:01.0", "cirrus_vga", config(bars=(0xFC000008, 0xFEBD0000))))
    told = header((0, 0xA0000), (0xC0000, GIB), (0xFC000000, 0xFD000000), (BIOS.physical, 4 * GIB))
    assert Range(0xFC000000, 16 * MIB, VGA.name, 0) in layout_from_header(told, machine, blocks(GIB, VGA), domain(GIB))


def test_a_device_behind_a_bridge_is_found_if_qemu_shows_its_region() -> None:
    machine = q35(pci(BEHIND_A_BRIDGE, "qxl", config(bars=(0xEC000008,))))
    told = header((0, GIB), (0xEC000000, 0xF0000000), (BIOS.physical, 4 * GIB))
    found = layout_from_header(told, machine, blocks(GIB, SECOND_VIDEO), domain(GIB))
    assert found == (Range(0, GIB, "pc.ram", 0), Range(0xEC000000, 64 * MIB, SECOND_VIDEO.name, 0), BIOS)


@pytest.mark.parametrize(
    ("loads", "why"),
    [
        ([(0, GIB)], "leave out memory of pc.ram"),
        ([(0, GIB), (2 * GIB, 3 * GIB)], "at 0x80000000 of .* none that is known"),
        ([(0, 3 * GIB), (4 * GIB, 5 * GIB)], "none that is known"),
        ([(0, 2 * GIB), (4 * GIB, 5 * GIB)], "none that is known"),
        ([(0, 0x200000), (0x300000, 2 * GIB)], "leave out memory of pc.ram"),
        ([(4 * GIB, 6 * GIB)], "not a part of its memory"),
    ],
)
def test_headers_that_leave_a_doubt_are_refused(loads: list[tuple[int, int]], why: str) -> None:
    with pytest.raises(LayoutUnknown, match=why):
        layout_from_header(header(*loads), q35(), blocks(2 * GIB), domain(2 * GIB))


def test_two_blocks_for_one_range_are_a_doubt() -> None:
    devices = [pci(f"0000:00:0{number}.0", "vga", config(bars=(0xFC000008,))) for number in (1, 2)]
    stream = blocks(GIB, VGA, Block("0000:00:02.0/vga.vram", 16 * MIB))
    with pytest.raises(LayoutUnknown, match=r"may be of the blocks: 0000:00:01\.0/vga\.vram, 0000:00:02\.0/vga\.vram"):
        layout_from_header(header((0, GIB), (0xFC000000, 0xFD000000)), q35(*devices), stream, domain(GIB))


@pytest.mark.parametrize(
    "device", ["<hostdev mode='subsystem' type='pci'/>", "<hostdev type='mdev'/>", "<interface type='hostdev'/>"]
)
def test_devices_of_the_host_are_refused_before_anything_is_read(device: str) -> None:
    with pytest.raises(LiveNotPossible, match="a device of the host"):
        refuse_passthrough("vm", domain(GIB, devices=device))


def test_usb_devices_of_the_host_and_plain_networks_are_none_that_matter() -> None:
    refuse_passthrough("vm", domain(GIB, devices="<hostdev type='usb'/><interface type='network'/>"))


@pytest.mark.parametrize("model", ["nvdimm", "virtio-mem", "virtio-pmem", "sgx-epc"])
def test_memory_of_other_models_is_refused_before_anything_is_read(model: str) -> None:
    both = dimm(0, GIB, 4 * GIB) + f"<memory model='{model}'/>"
    with pytest.raises(LayoutUnknown, match=f"vm has memory of the model {model}") as caught:
        refuse_other_modules("vm", domain(2 * GIB, dimms=both))
    assert "mode 'paused'" in str(caught.value)


def test_dimms_are_not_refused() -> None:
    refuse_other_modules("vm", domain(2 * GIB, dimms=dimm(0, GIB, 4 * GIB)))


# -- by XML that is read again

BEFORE = domain(GIB, most=4 * GIB)
PLUGGED = domain(GIB + 128 * MIB, dimms=dimm(0, 128 * MIB, 4 * GIB), most=4 * GIB)
STREAM = blocks(GIB, Block("memdimm0", 128 * MIB))


def test_dimm_that_was_plugged_in_before_the_dump_is_found_in_the_xml_of_now() -> None:
    ranges, xml = laid_out_by_rules(q35(), STREAM, BEFORE, lambda: PLUGGED)
    assert ranges == layout(q35(), STREAM, PLUGGED)
    assert xml == PLUGGED


def test_xml_that_agrees_is_not_read_again() -> None:
    ranges, xml = laid_out_by_rules(q35(), STREAM, PLUGGED, lambda: pytest.fail("read again"))
    assert (ranges, xml) == (layout(q35(), STREAM, PLUGGED), PLUGGED)


@pytest.mark.parametrize("now", [BEFORE, domain(GIB + MIB, dimms=dimm(0, MIB, 4 * GIB))], ids=["the same", "another"])
def test_xml_of_now_that_does_not_agree_either_is_refused(now: str) -> None:
    with pytest.raises(LayoutUnknown):
        laid_out_by_rules(q35(), STREAM, BEFORE, lambda: now)
