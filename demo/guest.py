"""What a demo guest is: its size, what its memory holds, and how libvirt is told about it."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

OPENNEBULA_NAMESPACE = "http://opennebula.org/xmlns/libvirt/1.0"
QEMU_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"

MARKER_BYTES = 64 << 10
COUNTER_AT = 64
_YES_NO = ("no", "yes")
_SMALLEST_MIB = 128
_SMALLEST_BOOTED_MIB = 192
_OVMF = Path("/usr/share/OVMF")
_TRANSLATED_CODE_MIB = 64  # QEMU would take up to 1 GiB of the host for code that it translated
_BACKINGS = {
    "": "",
    "memfd": "<source type='memfd'/><access mode='shared'/>",
    "file": "<source type='file'/><access mode='shared'/>",
    "private file": "<source type='file'/>",
    "huge pages": "<hugepages/>",
    "huge pages of a memfd": "<hugepages/><source type='memfd'/>",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What decides where a guest's memory lies in its physical address space. Sizes in MiB.

    ``machine``: ``q35`` or ``pc`` (i440fx). ``node_mib``: the memory of its NUMA nodes, together all of it. ``room_mib``:
    DIMMs may be plugged in up to this size in all. ``backing``: what the host keeps its memory in, one of ``_BACKINGS``; huge
    pages are to be had only where the host has set some aside. ``video``: a model of libvirt's. ``ovmf``: UEFI firmware
    instead of a BIOS (Debian's package ``ovmf``). ``vmcoreinfo``: QEMU's device by which a kernel says where its VMCOREINFO
    note is.
    """

    machine: str = "q35"
    node_mib: tuple[int, ...] = ()
    room_mib: int = 0
    backing: str = ""
    video: str = ""
    ovmf: bool = False
    vmcoreinfo: bool = False

    def memory_xml(self, memory_mib: int, vcpus: int) -> str:
        """Backing, room for DIMMs and NUMA nodes; all vCPUs in the first node."""
        nodes = self.node_mib or ((memory_mib,) if self.room_mib else ())
        cpus = [f" cpus='0-{vcpus - 1}'", *("" for _ in nodes[1:])]
        cells = "".join(f"<cell id='{number}'{cpus[number]} memory='{size}' unit='MiB'/>" for number, size in enumerate(nodes))
        room = f"<maxMemory slots='4' unit='MiB'>{memory_mib + self.room_mib}</maxMemory>" if self.room_mib else ""
        backing = f"<memoryBacking>{_BACKINGS[self.backing]}</memoryBacking>" if self.backing else ""
        return room + backing + (f"<cpu><numa>{cells}</numa></cpu>" if cells else "")

    def firmware_xml(self) -> str:
        """libvirt copies the variables' template for the guest by itself."""
        if not self.ovmf:
            return ""
        return f"<loader readonly='yes' type='pflash'>{_OVMF}/OVMF_CODE.fd</loader><nvram template='{_OVMF}/OVMF_VARS.fd'/>"

    def features_xml(self) -> str:
        """A device without an address of its own is a feature to libvirt."""
        return "<vmcoreinfo state='on'/>" if self.vmcoreinfo else ""

    def video_xml(self) -> str:
        """A model, or none."""
        return f"\n    <video><model type='{self.video}'/></video>" if self.video else ""


PLAIN = Shape()


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """One guest. Sizes are of its memory, in MiB.

    ``boots``: Linux runs in it, fills ``text_mib`` with text and ``random_mib`` with random bytes, and says READY. Else
    its virtual CPUs are never started: it stays ``paused`` and no byte of its memory changes by itself.
    ``starts``: it is started when it is added; else it is only defined, and shut off.
    ``vmid``: the OpenNebula VM id in its metadata. ``disk``: it has an (empty) virtio disk with an image on the host.
    ``shape``: what its machine is like, where that is not the plain one. ``marker_at``: where the marker is, if not in
    the middle of its memory.
    ``rewrites_mib``: from before READY on, it writes into every page of so much memory again and again, without
    rest, on each of its processors.
    ``counts``: it raises two counters without rest, in pages far apart, always A before B. Each page begins with what
    ``counter_page`` says; the counter, 8 bytes little-endian, is ``COUNTER_AT`` bytes from there (``busy.c``).

    >>> hex(Guest(name="small", memory_mib=128, boots=False).marker_address)
    '0x4000000'
    """

    name: str
    memory_mib: int = 256
    text_mib: int = 32
    random_mib: int = 8
    vcpus: int = 1
    vmid: str | None = None
    disk: bool = False
    boots: bool = True
    starts: bool = True
    shape: Shape = PLAIN
    marker_at: int | None = None
    rewrites_mib: int = 0
    counts: bool = False

    def __post_init__(self) -> None:
        smallest = _SMALLEST_BOOTED_MIB if self.boots else _SMALLEST_MIB
        if self.memory_mib < smallest:
            raise ValueError(f"{self.name}: {self.memory_mib} MiB are too little, {smallest} MiB are needed")

    @property
    def uuid(self) -> str:
        """The same at every start, so that yesterday's dumps of a demo guest still belong to it."""
        return str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{self.name}.demo.invalid"))

    @property
    def marker(self) -> bytes:
        """``MARKER_BYTES`` that occur nowhere else and differ from page to page and from guest to guest."""
        lines = (hashlib.sha256(f"{self.name} {number}".encode()).digest() for number in range(MARKER_BYTES // 32))
        return b"".join(lines)

    @property
    def busy(self) -> bool:
        """Whether it needs the program for that."""
        return self.counts or self.rewrites_mib > 0

    def counter_page(self, letter: str) -> bytes:
        """How the page of counter A or B begins, and no other."""
        return f"memory-dumps counter {letter} of {self.name}\0".encode()

    @property
    def marker_address(self) -> int:
        """The guest-physical address of the marker.

        Above the place where the kernel unpacks itself (16 MiB and some 60 more), below the initrd at the end of memory.
        """
        if self.marker_at is not None:
            return self.marker_at
        return (128 << 20) if self.boots else (self.memory_mib << 19)

    def xml(self, files: GuestFiles) -> str:
        """The domain's description for libvirt.

        QEMU's ``loader`` device writes the marker into the guest's memory before anything runs there; ``memmap=`` keeps
        the kernel from using the place. Software emulation, for there is always some: KVM may be missing, or there and hang.
        """
        return f"""<domain type='qemu' xmlns:qemu='{QEMU_NAMESPACE}'>
  <name>{escape(self.name)}</name>
  <uuid>{self.uuid}</uuid>{self._metadata()}
  <memory unit='MiB'>{self.memory_mib}</memory>
  <vcpu>{self.vcpus}</vcpu>{self.shape.memory_xml(self.memory_mib, self.vcpus)}
  <os><type arch='x86_64' machine='{self.shape.machine}'>hvm</type>{self.shape.firmware_xml()}{self._boot(files)}</os>
  <features><acpi/><apic/>{self.shape.features_xml()}<tcg><tb-cache unit='MiB'>{_TRANSLATED_CODE_MIB}</tb-cache></tcg></features>
  <on_crash>destroy</on_crash>
  <on_reboot>{"destroy" if self.boots else "restart"}</on_reboot>
  <devices>
    <controller type='usb' model='none'/>
    <serial type='file'><source path={quoteattr(str(files.console))}/></serial>{self._disk(files)}{self.shape.video_xml()}
    <memballoon model='none'/>
  </devices>
  <qemu:commandline>
    <qemu:arg value='-device'/>
    <qemu:arg value={quoteattr(f"loader,file={files.marker},addr={self.marker_address:#x},force-raw=on")}/>
  </qemu:commandline>
</domain>"""

    def _metadata(self) -> str:
        if self.vmid is None:
            return ""
        return f"<metadata><one:vm xmlns:one='{OPENNEBULA_NAMESPACE}'><one:vmid>{self.vmid}</one:vmid></one:vm></metadata>"

    def _boot(self, files: GuestFiles) -> str:
        if not self.boots:
            return ""
        line = (
            f"console=ttyS0 quiet panic=-1 memmap={MARKER_BYTES >> 10}K${self.marker_address:#x} "
            f"guest_name={self.name} text_mib={self.text_mib} random_mib={self.random_mib}"
            f"{' fw_cfg=yes' if self.shape.vmcoreinfo else ''}"
            f"{f' pti=on rewrites_mib={self.rewrites_mib} counts={_YES_NO[self.counts]}' if self.busy else ''}"
        )
        return f"<kernel>{files.kernel}</kernel><initrd>{files.initrd}</initrd><cmdline>{escape(line)}</cmdline>"

    def _disk(self, files: GuestFiles) -> str:
        if not self.disk:
            return ""
        return f"""
    <disk type='file'><driver name='qemu' type='raw'/><source file='{files.disk}'/><target dev='vda' bus='virtio'/></disk>"""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestFiles:
    """What QEMU opens for one guest."""

    kernel: Path
    initrd: Path
    marker: Path
    console: Path
    disk: Path


STANDARD_GUESTS = (
    Guest(name="vm-web-01", memory_mib=1024, text_mib=256, random_mib=64, vmid="101"),
    Guest(name="vm-db-01", memory_mib=512, text_mib=96, random_mib=32, vmid="102", disk=True),
    Guest(name="vm-old-01", memory_mib=256, vmid="103", starts=False),
)
"""Two VMs that run and one that is shut off: what ``make demo`` shows."""
