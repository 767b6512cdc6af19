"""What reading a guest's memory takes of its host's."""

from __future__ import annotations

import pytest

from app.capture.hostmemory import available_here, available_there, reading_allocates

SOME_NODES = "<hugepages><page size='2048' unit='KiB' nodeset='1'/></hugepages>"
ALL_NODES = "<hugepages><page size='1048576' unit='KiB'/></hugepages>"


@pytest.mark.parametrize(
    ("backing", "allocates"),
    [
        ("", False),
        ("<memoryBacking><locked/></memoryBacking>", False),
        ("<memoryBacking><source type='anonymous'/><access mode='private'/></memoryBacking>", False),
        ("<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>", True),
        ("<memoryBacking><source type='memfd'/></memoryBacking>", True),
        ("<memoryBacking><source type='file'/></memoryBacking>", True),
        ("<memoryBacking><access mode='shared'/></memoryBacking>", True),
        ("<cpu><numa><cell id='0' cpus='0' memory='1' unit='KiB' memAccess='shared'/></numa></cpu>", True),
        ("<memoryBacking><hugepages/></memoryBacking>", False),
        ("<memoryBacking><hugepages/><source type='memfd'/><access mode='shared'/></memoryBacking>", False),
        (f"<memoryBacking>{ALL_NODES}<access mode='shared'/></memoryBacking>", False),
        (f"<memoryBacking>{SOME_NODES}<source type='memfd'/><access mode='shared'/></memoryBacking>", True),
        (f"<memoryBacking>{SOME_NODES}</memoryBacking>", False),
        ("<devices><disk><source type='file'/></disk></devices>", False),
        ("<unfinished", True),
    ],
)
def test_only_shared_memory_that_is_not_in_huge_pages_is_allocated_when_it_is_read(backing: str, allocates: bool) -> None:
    assert reading_allocates(f"<domain>{backing}</domain>") is allocates


def test_what_a_host_has_is_what_its_kernel_says() -> None:
    meminfo = "MemTotal:  8000 kB\nMemFree:   100 kB\nMemAvailable:  2500 kB\nCached:  7000 kB\nShmem:  4600 kB\n"
    assert available_here(meminfo) == 2500 * 1024
    assert available_here("MemTotal: 8000 kB\n") is None


@pytest.mark.parametrize(
    ("shared_kib", "expected_kib"),
    [(0, 100 + 20 + 7000), (4600, 100 + 20 + 2400), (9000, 100 + 20)],
)
def test_shared_memory_of_guests_on_another_host_is_not_taken_for_cache(shared_kib: int, expected_kib: int) -> None:
    node = {"total": 8000, "free": 100, "buffers": 20, "cached": 7000}
    assert available_there(node, shared_kib) == expected_kib * 1024
    assert available_there({}, shared_kib) == 0
