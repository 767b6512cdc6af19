"""What a domain's XML says about memory, as libvirt reports it for a running domain."""

from __future__ import annotations

import re
from dataclasses import dataclass
from xml.etree import ElementTree

from app.capture.ranges import Range, unknown
from app.errors import LayoutUnknown, LiveNotPossible

_QEMU = "{http://libvirt.org/schemas/domain/qemu/1.0}"
_COPIED_BY_QEMU = "usb"  # the one <hostdev> with which libvirt migrates: QEMU writes what comes from it, and notes the page
_NETWORK_OF_THE_HOST = ("hostdev", "vdpa")
_DECIDES = re.compile(r"-m|-M|-machine|-numa|.*max-ram-below-4g.*", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainMemory:
    """Sizes in bytes. ``plain_bytes``: without the DIMMs; ``most_bytes``: what may ever be plugged in, PCI's hole included.

    ``nodes``: each NUMA node's size, without DIMMs; ``strange``: what is there that no rule covers, or "".
    """

    plain_bytes: int
    most_bytes: int
    nodes: tuple[int, ...]
    dimms: tuple[Range, ...]
    strange: str


def domain_memory(domain_xml: str) -> DomainMemory:
    """Read it. Raises ``LayoutUnknown`` if it cannot be understood."""
    try:
        root = ElementTree.fromstring(domain_xml)  # noqa: S314 - libvirt's own words
        modules = root.findall("./devices/memory")
        dimms = tuple(_dimm(module) for module in modules if module.get("model") == "dimm")
        total = _bytes(root.find("./memory"))
        most = max(total, _bytes(root.find("./maxMemory"), absent=0))
        hole = sum(_bytes(each) for each in root.findall("./devices/controller/pcihole64"))
        nodes = tuple(_node_bytes(cell) for cell in root.findall("./cpu/numa/cell"))
    except (ElementTree.ParseError, ValueError) as error:
        raise unknown(f"its XML is not understood ({error})") from error
    return DomainMemory(
        plain_bytes=total - sum(dimm.size_bytes for dimm in dimms),
        most_bytes=most + hole,
        nodes=nodes,
        dimms=dimms,
        strange=_strange(root),
    )


def refuse_passthrough(name: str, domain_xml: str) -> None:
    """Raises ``LiveNotPossible`` if the domain has a device of the host, which writes memory behind QEMU's back."""
    try:
        root = ElementTree.fromstring(domain_xml)  # noqa: S314 - libvirt's own words
    except ElementTree.ParseError as error:
        raise LiveNotPossible(f"The XML of {name} is not understood ({error}).") from error
    for device in root.iterfind("./devices/*"):
        if _writes_by_itself(device):
            raise LiveNotPossible(
                f"{name} has a device of the host ({device.tag} of the type {device.get('type')}), so it cannot be captured "
                "while it runs.",
                "Use the mode 'paused'. The guest was not touched.",
            )


def refuse_other_modules(name: str, domain_xml: str) -> None:
    """Raises ``LayoutUnknown`` if the domain has memory modules that are no DIMMs.

    Neither the rules nor QEMU's headers tell without doubt where these lie, or what of them is plugged in: nothing is tried.
    """
    try:
        root = ElementTree.fromstring(domain_xml)  # noqa: S314 - libvirt's own words
    except ElementTree.ParseError as error:
        raise unknown(f"its XML is not understood ({error})") from error
    if model := _other_model(root):
        raise LayoutUnknown(
            f"{name} has memory of the model {model}, and where that lies is not certain.", "Use the mode 'paused'."
        )


def _writes_by_itself(device: ElementTree.Element) -> bool:
    """Whether hardware or the host's kernel writes into the guest's memory for it, where QEMU need not hear of it.

    What libvirt can hand over: libvirt.org/formatdomain.html, "Host device assignment", "vDPA devices", ``nvme`` disks. Of a
    ``<hostdev>`` that is not known yet the worst is believed.
    """
    if device.tag == "hostdev":
        return device.get("type") != _COPIED_BY_QEMU
    if device.tag == "interface":
        return device.get("type") in _NETWORK_OF_THE_HOST
    return device.tag == "disk" and any(each.get("type") == "nvme" for each in device.iter())  # its backing files, too


def _dimm(module: ElementTree.Element) -> Range:
    alias, address = module.find("./alias"), module.find("./address")
    if alias is None or address is None or address.get("type") != "dimm":
        raise ValueError("a DIMM without alias or address")
    size = _bytes(module.find("./target/size"))
    return Range(int(address.get("base", ""), 0), size, f"mem{alias.get('name', '')}", 0)


def _bytes(element: ElementTree.Element | None, *, absent: int | None = None) -> int:
    if element is None:
        if absent is None:
            raise ValueError("a size is missing")
        return absent
    if element.get("unit") != "KiB":
        raise ValueError(f"{element.tag} is given in {element.get('unit')}")
    return int(element.text or "") << 10


def _node_bytes(cell: ElementTree.Element) -> int:
    if cell.get("unit") != "KiB":
        raise ValueError(f"a NUMA node's memory is given in {cell.get('unit')}")
    return int(cell.get("memory", "")) << 10


def _other_model(root: ElementTree.Element) -> str:
    """The model of a memory module that is no DIMM, or ""."""
    models = (module.get("model", "unknown") for module in root.iterfind("./devices/memory"))
    return next((model for model in models if model != "dimm"), "")


def _strange(root: ElementTree.Element) -> str:
    if model := _other_model(root):
        return f"it has memory of the model {model}"
    for argument in root.findall(f"./{_QEMU}commandline/{_QEMU}arg"):
        if _DECIDES.fullmatch(argument.get("value", "")):
            return f"its XML hands QEMU the argument {argument.get('value')!r}"
    return ""
