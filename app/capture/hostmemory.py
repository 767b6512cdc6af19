"""What reading a guest's memory takes of its host's: pure functions.

A page of a memfd or of a file that the guest never touched is allocated when it is read. Anonymous memory is not, for it
reads as the kernel's one page of zeros; huge pages are not, for libvirt has them allocated from their pool when the guest
starts, and they are no part of the memory that is meant here.
"""

from __future__ import annotations

from collections.abc import Mapping
from xml.etree import ElementTree


def reading_allocates(domain_xml: str) -> bool:
    """Whether the guest's memory is shared (libvirt.org/formatdomain.html, "Memory Backing") and not all in huge pages."""
    try:
        root = ElementTree.fromstring(domain_xml)  # noqa: S314 - libvirt's own words
    except ElementTree.ParseError:
        return True  # the worst is believed
    pages = root.find("./memoryBacking/hugepages")
    if pages is not None and all(page.get("nodeset") is None for page in pages.iterfind("./page")):
        return False
    source, access = root.find("./memoryBacking/source"), root.find("./memoryBacking/access")
    return (
        (source is not None and source.get("type") in ("memfd", "file"))
        or (access is not None and access.get("mode") == "shared")
        or root.find("./cpu/numa//cell[@memAccess='shared']") is not None
    )


def available_here(meminfo: str) -> int | None:
    """Bytes that can be taken on this host, by its ``/proc/meminfo`` (``proc(5)``); None if it does not say.

    Page cache that the kernel can drop counts, shared memory, which is also "cached", does not.
    """
    for line in meminfo.splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return None


def available_there(node: Mapping[str, int], shared_kib: int) -> int:
    """The same for a host of which only libvirt's ``getMemoryStats`` is known: "cached" has all shared memory in it, of which
    ``shared_kib`` is known, that of the host's guests."""
    cached_kib = max(0, node.get("cached", 0) - shared_kib)
    return 1024 * (node.get("free", 0) + node.get("buffers", 0) + cached_kib)
