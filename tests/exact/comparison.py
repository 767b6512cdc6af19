"""A live capture's vmcore beside the one that QEMU writes itself, of a guest that stands still.

The product takes the paused way for such a guest. Here its parts are used directly, on guests that are thrown away.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import demo
from app.capture.connection import connect
from app.capture.coreimage import CoreImage, PhysicalMemory
from app.capture.elfcore import CoreHeader, read_header
from app.capture.guest import Guest, look_up
from app.capture.layout import Range, layout, layout_from_header
from app.capture.migration import PAGE_BYTES, Machine, Migration
from app.capture.patience import Patience
from app.capture.pausemeter import PauseMeter
from app.capture.report import Report
from app.capture.source import Stream, dump
from app.capture.spool import Spool, open_spool
from app.fifo import Rendezvous, rendezvous
from app.model import Way
from demo import PrivateLibvirt

_BLOCK_BYTES = 4 << 20
_HEADER_BYTES = 64 << 10


@contextlib.contextmanager
def subject(lab: PrivateLibvirt, name: str, folder: Path) -> Iterator[Subject]:
    """The guest ``name``, captured live while it stands still."""
    connection = connect(lab.uri, Patience(120))
    try:
        guest = look_up(connection, name)
        where = rendezvous(lab.uri, folder)
        with PauseMeter(guest) as meter, open_spool(guest.domain.memory_bytes, folder, where) as spool:
            source = _Source(guest, where, meter)
            machine = source.migrate(spool)
            yield Subject(source, spool, machine, guest.xml())
    finally:
        connection.close()


@dataclass(frozen=True, slots=True)
class Subject:
    """One guest's capture: its blocks, its devices, and the way to QEMU's own dump."""

    source: _Source
    spool: Spool
    machine: Machine
    xml: str

    def by_rules(self) -> tuple[Range, ...]:
        """The layout by the stream and the domain's XML alone."""
        return layout(self.machine, self.spool.block_list, self.xml)

    def by_header(self) -> tuple[Range, ...]:
        """The layout by the headers of a dump of QEMU's."""
        return layout_from_header(self.source.header(), self.machine, self.spool.block_list, self.xml)

    def image(self, ranges: tuple[Range, ...], *, as_qemu: bool = False) -> CoreImage:
        """The vmcore, as the product makes it or as QEMU would."""
        return CoreImage(self.spool, ranges, self.machine, as_qemu=as_qemu)

    def marker(self, ranges: tuple[Range, ...], guest: demo.Guest) -> bytes:
        """What stands in the place of the guest's marker, read by pages: it may lie across a border."""
        memory = PhysicalMemory(self.spool, ranges)
        places = range(guest.marker_address, guest.marker_address + len(guest.marker), PAGE_BYTES)
        return b"".join(memory.read(place, PAGE_BYTES) for place in places)

    def difference(self, ranges: tuple[Range, ...]) -> str:
        """Where the vmcore of these ranges is not QEMU's, byte for byte; "" if they are the same file."""
        image, at = self.image(ranges, as_qemu=True), 0
        ours, theirs = bytearray(_BLOCK_BYTES), bytearray(_BLOCK_BYTES)
        with self.source.dump("paused") as stream:
            while count := stream.fill(theirs, lambda: None):
                length = image.fill(ours)
                if length != count or ours != theirs:  # what is left in them behind the end is the same, too
                    return f"at {at + _first(ours, theirs):#x} of {image.size_bytes:#x} bytes, with the ranges {ranges}"
                at += count
            stream.confirm(lambda: None)
        return "" if at == image.size_bytes else f"QEMU's has {at:#x} bytes, and ours {image.size_bytes:#x}"


@dataclass(frozen=True, slots=True)
class _Source:
    """The guest, and both ways to read it."""

    guest: Guest
    where: Rendezvous
    meter: PauseMeter

    @contextlib.contextmanager
    def dump(self, way: Way) -> Iterator[Stream]:
        report = Report(self.guest.domain.name, lambda _line: None)
        with dump(self.guest, way, self.where, "exact", self.meter, report) as stream:
            yield stream

    def migrate(self, spool: Spool) -> Machine:
        migration, buffer, rest = Migration(spool), memoryview(bytearray(_BLOCK_BYTES)), 0
        with self.dump("live") as stream:
            while count := stream.read(buffer[rest:], lambda: None):
                used = migration.feed(buffer[: rest + count])
                rest += count - used
                buffer[:rest] = bytes(buffer[used : used + rest])
            stream.confirm(lambda: None)
        return migration.finish()

    def header(self) -> CoreHeader:
        start = bytearray(_HEADER_BYTES)
        with self.dump("paused") as stream:
            stream.fill(start, lambda: None)
        return read_header(start)


def _first(ours: bytearray, theirs: bytearray) -> int:
    return next((at for at, (one, other) in enumerate(zip(ours, theirs, strict=True)) if one != other), len(ours))
