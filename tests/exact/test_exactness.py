"""The vmcore made from a live stream is QEMU's own ELF dump of the same instant, byte for byte.

Guests that are suspended with Linux in them, and guests that were never started: these have nothing but the marker in
their memory, which lies where a wrong layout would show it: half on each side of a border.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from app.errors import LayoutUnknown
from demo import Guest, PrivateLibvirt, Shape
from tests.exact.comparison import subject
from tests.exact.conftest import Stand, huge_pages
from tests.root import needs_root
from tests.thorough import once

GIB = 1 << 30
HALF = 32 << 10  # of a marker


def booted(name: str, *, memory_mib: int = 192, vcpus: int = 1, shape: Shape) -> Guest:
    return Guest(name=name, memory_mib=memory_mib, vcpus=vcpus, shape=shape, text_mib=4, random_mib=4)


def never_started(name: str, memory_mib: int, shape: Shape, *, marker_at: int, vcpus: int = 1) -> Guest:
    return Guest(name=name, memory_mib=memory_mib, vcpus=vcpus, boots=False, shape=shape, marker_at=marker_at)


SAME = [
    booted("q35-1024", memory_mib=1024, vcpus=2, shape=Shape()),
    booted("vmcoreinfo", vcpus=2, shape=Shape(vmcoreinfo=True)),
    booted("q35-virtio", shape=Shape(video="virtio")),
    booted("pc-vga", shape=Shape(machine="pc", video="vga")),
    never_started("q35-3584", 3584, Shape(), marker_at=4 * GIB + GIB, vcpus=2),
    never_started("q35-2815", 2815, Shape(), marker_at=2 * GIB - HALF),
    never_started("pc-4608", 4608, Shape(machine="pc"), marker_at=4 * GIB + GIB),
    never_started("pc-vga-cold", 128, Shape(machine="pc", video="vga"), marker_at=1 << 20),
    never_started("memfd", 128, Shape(backing="memfd"), marker_at=64 << 20),
    never_started("file", 128, Shape(backing="file"), marker_at=64 << 20),
    never_started("private-file", 128, Shape(backing="private file"), marker_at=64 << 20),
    never_started("nodes-of-files", 256, Shape(node_mib=(64, 192), backing="file"), marker_at=(64 << 20) - HALF),
    never_started("nodes-3072-768", 3840, Shape(node_mib=(3072, 768)), marker_at=5 * GIB - HALF),
    never_started("nodes-768-3072", 3840, Shape(node_mib=(768, 3072)), marker_at=3 * GIB // 4 - HALF),
]

LIKE_OTHERS = {"vmcoreinfo", "nodes-of-files", "q35-virtio", "q35-2815", "pc-vga-cold", "private-file", "nodes-768-3072"}

OTHER_VIDEO = [booted(f"q35-{model}", shape=Shape(video=model)) for model in ("vga", "qxl", "bochs")]


@pytest.mark.parametrize(
    "guest", once(SAME, *(guest for guest in SAME if guest.name not in LIKE_OTHERS)), ids=lambda guest: guest.name
)
def test_the_whole_file_is_qemus(guest: Guest, stand: Stand, shapes: PrivateLibvirt, tmp_path: Path) -> None:
    stand(guest)
    with subject(shapes, guest.name, tmp_path) as captured:
        ranges = captured.by_rules()
        assert captured.difference(ranges) == ""
        assert captured.marker(ranges, guest) == guest.marker
        # Without QEMU's device a kernel's note is found all the same (docs/decisions/0007).
        assert captured.image(ranges).has_vmcoreinfo == guest.boots
        assert captured.image(ranges, as_qemu=True).has_vmcoreinfo == guest.shape.vmcoreinfo


@needs_root
def test_the_whole_file_is_qemus_with_huge_pages(stand: Stand, shapes: PrivateLibvirt, tmp_path: Path) -> None:
    guests = [
        never_started(backing.replace(" ", "-"), 128, Shape(backing=backing), marker_at=64 << 20)
        for backing in ("huge pages", "huge pages of a memfd")
    ]
    with huge_pages(shapes, sum(guest.memory_mib for guest in guests)):
        for guest in guests:
            stand(guest)
            with subject(shapes, guest.name, tmp_path) as captured:
                ranges = captured.by_rules()
                assert captured.difference(ranges) == ""
                assert captured.marker(ranges, guest) == guest.marker


@pytest.mark.deep
@pytest.mark.parametrize("guest", OTHER_VIDEO, ids=lambda guest: guest.name)
def test_the_whole_file_is_qemus_with_other_video(guest: Guest, stand: Stand, shapes: PrivateLibvirt, tmp_path: Path) -> None:
    stand(guest)
    with subject(shapes, guest.name, tmp_path) as captured:
        assert captured.difference(captured.by_rules()) == ""


def test_the_whole_file_is_qemus_with_hot_plugged_dimms(stand: Stand, shapes: PrivateLibvirt, tmp_path: Path) -> None:
    guest = never_started("dimms", 128, Shape(room_mib=512), marker_at=4 * GIB + (128 << 20) - HALF)
    stand(guest)
    with shapes.connection() as connection:
        domain = connection.lookupByName(guest.name)
        for size in (128, 256):
            domain.attachDevice(f"<memory model='dimm'><target><size unit='MiB'>{size}</size><node>0</node></target></memory>")
        domain.reset()  # QEMU's loader writes the marker again, this time half into each DIMM
    with subject(shapes, guest.name, tmp_path) as captured:
        ranges = captured.by_rules()
        assert captured.difference(ranges) == ""
        assert captured.marker(ranges, guest) == guest.marker


@pytest.mark.parametrize(
    "guest",
    [
        booted("ovmf", memory_mib=256, shape=Shape(ovmf=True)),
        pytest.param(booted("pc-cirrus", shape=Shape(machine="pc", video="cirrus")), marks=pytest.mark.deep),
    ],
    ids=lambda guest: guest.name,
)
def test_what_the_rules_do_not_cover_qemus_headers_tell(guest: Guest, stand: Stand, shapes: PrivateLibvirt, tmp_path: Path) -> None:
    stand(guest)
    with subject(shapes, guest.name, tmp_path) as captured:
        with pytest.raises(LayoutUnknown):
            captured.by_rules()
        ranges = captured.by_header()
        assert captured.difference(ranges) == ""
        assert captured.marker(ranges, guest) == guest.marker


def test_rules_and_headers_agree(stand: Stand, shapes: PrivateLibvirt, tmp_path: Path) -> None:
    shape = Shape(machine="pc", node_mib=(3072, 768), video="vga")
    guest = never_started("both", 3840, shape, marker_at=1 << 20)
    stand(guest)
    with subject(shapes, guest.name, tmp_path) as captured:
        assert captured.by_header() == captured.by_rules()
