"""QEMU's migration stream → runs of pages, as its bytes arrive. No I/O, nothing of libvirt.

Read off the stream of QEMU 7.2 and its source: ``migration/savevm.c`` (sections), ``migration/ram.c`` (memory). Big-endian
throughout::

    "QEVM" u32 3                                            magic, version
    07  u32 length, machine type  [05 subsections]          configuration
    01  u32 id, name, u32 instance, u32 version  …  footer  start of the section "ram", with the list of blocks
    02  u32 id  …  footer                                   a part of it, many times
    03  u32 id  …  footer                                   its end, written while the guest stands still
    04  …                                                   devices: machine.py
    00  06  u32 length, JSON                                their description, and the exact end

A footer is ``7e`` and the id; a name is a byte and as many letters. In "ram" there are records: a u64 whose low 12 bits
are flags and whose rest is an offset in a block. A page may come several times, and its last copy counts.

A capture is believed because of what is *not* taken here: an unknown flag, section, command, capability or name is an
error that says what and at which offset. A guess would be a wrong image.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from app.capture.machine import Field, Machine, Section, State, malformed, read_machine
from app.capture.ram import PAGE_BYTES, REST_BYTES, Block, More, Ram, Sink, Wrong, counted, need, text
from app.errors import StreamMalformed, StreamTruncated

_MAGIC: Final = b"QEVM\0\0\0\x03"
_OTHER_MAGICS: Final = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x5d\0\0": "lzma",
    b"\x89LZO": "lzop",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"LibvirtQemudSave": "libvirt's save format",
    b"\x7fELF": "ELF",
}
_STATE_MOST_BYTES: Final = 64 << 20
_NAME_MOST_BYTES: Final = 1024

_START, _PART, _END, _FULL, _SUBSECTION, _CONFIGURATION, _COMMAND, _FOOTER = 0x01, 0x02, 0x03, 0x04, 0x05, 0x07, 0x08, 0x7E
_SWITCHOVER_START: Final = struct.pack(">HH", 11, 0)  # QEMU 10 says so, it carries nothing

_u32 = struct.Struct(">I").unpack_from


class Migration:
    """One stream while it is read."""

    def __init__(self, sink: Sink) -> None:
        """``sink`` gets the pages in the order in which the stream has them."""
        self._ram = Ram(sink)
        self._step: Callable[[memoryview, int], int] = self._magic
        self._machine = ""
        self._section = -1
        self._ending = False
        self._state = bytearray()
        self._state_at = 0
        self.bytes_fed = 0
        """How much of the stream was taken."""

    @property
    def iteration(self) -> int:
        """How often memory was gone through, as far as the order of the pages shows; the present time counts."""
        return self._ram.iteration

    @property
    def ram_bytes_total(self) -> int:
        """The size of all blocks together; 0 until the stream has told it."""
        return self._ram.total_bytes

    @property
    def pass_bytes_done(self) -> int:
        """How far the present pass is, of ``ram_bytes_total``."""
        return self._ram.pass_bytes_done

    @property
    def read_bytes(self) -> int:
        """How much memory was read, each page as often as it came."""
        return self._ram.read_bytes

    def feed(self, chunk: memoryview) -> int:
        """Take every whole piece at the beginning of ``chunk``; how many bytes that were.

        Feed what was left again, in front of more; while memory comes it is less than ``REST_BYTES``. Raises
        ``StreamMalformed``, after which this must not be used any more.
        """
        at = 0
        try:
            while at < len(chunk):
                at = self._step(chunk, at)
        except More:
            pass
        except Wrong as wrong:
            raise malformed(self.bytes_fed + wrong.at, wrong.what) from None
        self.bytes_fed += at
        return at

    def finish(self) -> Machine:
        """The machine, once the stream has ended and all of it was fed. Raises ``StreamTruncated``, ``StreamMalformed``."""
        if self._step != self._devices:
            raise StreamTruncated(
                f"The migration stream ended in the middle, after {self.bytes_fed} bytes. "
                "libvirtd or QEMU may have died. Try again."
            )
        return read_machine(self._machine, bytes(self._state), self._state_at)

    # -- pieces: each takes one (or a run of them) at ``at`` and returns where it ends

    def _magic(self, chunk: memoryview, at: int) -> int:
        need(chunk, at, 16)
        began = bytes(chunk[:16])
        for magic, what in _OTHER_MAGICS.items():
            if began.startswith(magic):
                raise StreamMalformed(
                    f"The stream is {what} and not a migration stream, at offset 0. The host may compress dumps "
                    "(dump_image_format in qemu.conf).",
                    "Use the mode 'paused'.",
                )
        if began[:8] != _MAGIC:
            raise Wrong(at, f"{began[:8]!r} in place of its magic and version 3")
        self._step = self._configuration
        return at + len(_MAGIC)

    def _configuration(self, chunk: memoryview, at: int) -> int:
        if chunk[at] != _CONFIGURATION:
            raise Wrong(at, f"the section 0x{chunk[at]:02x} in place of its configuration (0x07)")
        need(chunk, at, 5)
        length = _u32(chunk, at + 1)[0]
        if not 0 < length <= _NAME_MOST_BYTES:
            raise Wrong(at, f"a machine type of {length} letters")
        need(chunk, at, 5 + length)
        self._machine = text(chunk, at + 5, length)
        self._step = self._sections
        return at + 5 + int(length)

    def _sections(self, chunk: memoryview, at: int) -> int:
        """One section's header, until memory has ended."""
        kind = chunk[at]
        if kind == _SUBSECTION and self._section < 0:
            return self._subsection(chunk, at)
        if kind == _START:
            return self._start(chunk, at)
        if kind == _COMMAND:
            need(chunk, at, 5)
            if chunk[at + 1 : at + 5] != _SWITCHOVER_START:
                raise Wrong(at, f"the command {bytes(chunk[at + 1 : at + 5]).hex()} (postcopy or a return path)")
            return at + 5
        if kind not in (_PART, _END):
            name = self._name_of_full(chunk, at) if kind == _FULL else ""
            raise Wrong(at, f"the section 0x{kind:02x}{name} before the end of its memory")
        need(chunk, at, 5)
        if (number := _u32(chunk, at + 1)[0]) != self._section:
            raise Wrong(at, f"a part of the section {number}, which is not the one of its memory ({self._section})")
        self._ending = kind == _END
        self._step = self._records
        return at + 5

    def _subsection(self, chunk: memoryview, at: int) -> int:
        """What hangs below the configuration: a uuid says nothing here; capabilities change the format."""
        name, end = counted(chunk, at + 1)
        if name != b"configuration/uuid":
            raise Wrong(at, f"the configuration {name!r}, which may change what its memory means")
        need(chunk, at, end + 4 + 16 - at)
        if _u32(chunk, end)[0] != 1:
            raise Wrong(at, f"an unknown version of {name!r}")
        return end + 4 + 16

    def _start(self, chunk: memoryview, at: int) -> int:
        need(chunk, at, 5)
        name, end = counted(chunk, at + 5)
        need(chunk, at, end + 8 - at)
        instance, version = struct.unpack_from(">II", chunk, end)
        if (name, instance, version) != (b"ram", 0, 4):
            raise Wrong(at, f"the start of the section {name!r} ({instance}, version {version}), and only 'ram' (0, 4) is known")
        if self._section >= 0:
            raise Wrong(at, "a second start of its memory")
        self._section = _u32(chunk, at + 1)[0]
        self._step = self._records
        return end + 8

    def _name_of_full(self, chunk: memoryview, at: int) -> str:
        return f" ({counted(chunk, at + 5)[0]!r})"

    def _records(self, chunk: memoryview, at: int) -> int:
        end = self._ram.take(chunk, at)
        if self._ram.part_ended:
            self._step = self._footer
        return end

    def _footer(self, chunk: memoryview, at: int) -> int:
        if chunk[at] != _FOOTER:
            raise Wrong(at, f"the byte 0x{chunk[at]:02x} in place of a footer (0x7e)")
        need(chunk, at, 5)
        if (number := _u32(chunk, at + 1)[0]) != self._section:
            raise Wrong(at, f"the footer {number} for the section {self._section}")
        self._step = self._devices if self._ending else self._sections
        self._state_at = self.bytes_fed + at + 5
        return at + 5

    def _devices(self, chunk: memoryview, at: int) -> int:
        """All that is behind the memory; its lengths are known only at its end."""
        if len(self._state) + len(chunk) - at > _STATE_MOST_BYTES:
            raise Wrong(at, f"more than {_STATE_MOST_BYTES >> 20} MiB of device state")
        self._state += chunk[at:]
        return len(chunk)


__all__ = ["PAGE_BYTES", "REST_BYTES", "Block", "Field", "Machine", "Migration", "Section", "Sink", "State"]
