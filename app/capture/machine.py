"""The state of a machine's devices, as it stands behind the memory in a QEMU migration stream.

The sections say their names but not their lengths; those are in a JSON description at the very end of the stream. So
the bytes are walked by the description, and whatever the two do not agree on to the byte is an error: ids, names,
versions, footers, the end. Format: QEMU, ``migration/savevm.c`` (``save_section_header``, ``save_section_footer``) and
``migration/vmstate.c`` (``vmstate_save_state_v``, ``vmstate_subsection_save``), versions 2.4 to 10.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.errors import StreamMalformed, StreamTruncated

_EOF, _SECTION, _SUBSECTION, _DESCRIPTION, _FOOTER = 0x00, 0x04, 0x05, 0x06, 0x7E
_NOT_SIGNED = ("uint", "unused", "buffer", "bool")


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field, or an array of ``count`` equal ones. ``content`` is all its bytes; numbers in it are big-endian.

    A struct has ``elements``, one a copy. What QEMU writes by a function of its own is bytes, whatever is in it.
    """

    name: str
    kind: str
    count: int
    content: bytes
    elements: tuple[State, ...]

    def integers(self) -> tuple[int, ...]:
        """The array's numbers; one if it is no array. Raises ``ValueError`` if these are no numbers."""
        size = len(self.content) // self.count if self.count else 0
        if self.elements or size not in (1, 2, 4, 8):
            raise ValueError(f"{self.name} is {self.kind} of {size} bytes, and no number")
        signed = not self.kind.startswith(_NOT_SIGNED)
        return tuple(int.from_bytes(self.content[at : at + size], "big", signed=signed) for at in range(0, len(self.content), size))


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A named group of fields, and the groups that hang below it because they were needed."""

    name: str
    version: int
    fields: tuple[Field, ...]
    subsections: tuple[State, ...]

    def find(self, *path: str) -> tuple[Field, ...]:
        """The fields called ``path[-1]`` in the structs ``path[:-1]``, of all elements of an array. Raises ``KeyError``.

        ``find("env.regs")`` is one field; ``find("env.segs", "selector")`` one for each segment.
        """
        found = tuple(field for field in self.fields if field.name == path[0])
        if len(path) > 1:
            found = tuple(deeper for field in found for element in field.elements for deeper in element.find(*path[1:]))
        if not found:
            raise KeyError(f"{self.name} has no field {'/'.join(path)}")
        return found

    def integers(self, *path: str) -> tuple[int, ...]:
        """The numbers of all fields that ``find`` finds, in their order. Raises ``KeyError`` or ``ValueError``."""
        return tuple(number for field in self.find(*path) for number in field.integers())

    def integer(self, *path: str) -> int:
        """The one number there. Raises ``KeyError``, or ``ValueError`` if there are more."""
        (number,) = self.integers(*path)
        return number

    def content(self, *path: str) -> bytes:
        """The bytes of all fields that ``find`` finds, one behind the other. Raises ``KeyError``."""
        return b"".join(field.content for field in self.find(*path))

    def subsection(self, name: str) -> State | None:
        """The subsection of that name, e.g. ``cpu/tsc_khz``, or None if it was not needed."""
        return next((state for state in self.subsections if state.name == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Section(State):
    """One device's state. ``name`` is the section's, with the device's path, e.g. ``0000:00:02.0/vga``.

    ``device`` is the name of what QEMU describes it by, e.g. ``vga``; ``instance`` tells equal names apart.
    """

    instance: int
    device: str


@dataclass(frozen=True, slots=True)
class Machine:
    """What the stream tells about the machine: its type (``pc-q35-7.2``) and its devices' state, in the stream's order."""

    name: str
    sections: tuple[Section, ...]

    def named(self, name: str) -> tuple[Section, ...]:
        """Every section whose own name or whose device's name is that: ``cpu`` gives one for each vCPU."""
        return tuple(section for section in self.sections if name in (section.name, section.device))


def read_machine(name: str, state: bytes, offset: int) -> Machine:
    """The devices in ``state``: all of the stream from ``offset`` on, behind the memory.

    Raises ``StreamTruncated`` if no description ends it, ``StreamMalformed`` if anything does not match.
    """
    end, description = _description(state, offset)
    walk = _Walk(state[:end], offset)
    sections = tuple(walk.section(device) for device in description)
    walk.expect_end()
    return Machine(name, sections)


def _description(state: bytes, offset: int) -> tuple[int, Sequence[Mapping[str, Any]]]:
    """Where the sections end in ``state``, and the description of each.

    The description is JSON and so has no zero byte; its length reaches exactly to the end. That tells it from device state.
    """
    at = state.rfind(bytes((_EOF, _DESCRIPTION)))
    while at >= 0:
        if at + 6 <= len(state) and at + 6 + struct.unpack_from(">I", state, at + 2)[0] == len(state):
            break
        at = state.rfind(bytes((_EOF, _DESCRIPTION)), 0, at + 1)
    if at < 0:
        raise StreamTruncated(
            f"The migration stream ended after {offset + len(state)} bytes, without the description of its device state. "
            "libvirtd or QEMU may have died, or the machine type is too old (before 2.4). Try again, or use the mode 'paused'."
        )
    try:
        document = json.loads(state[at + 6 :])
        page_bytes, devices = document["page_size"], document["devices"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise malformed(offset + at, f"a description of the devices that is not one ({error})") from error
    if page_bytes != 4096 or not isinstance(devices, list):
        raise malformed(offset + at, f"a description of the devices with pages of {page_bytes!r} bytes")
    return at, devices


def malformed(offset: int, what: str) -> StreamMalformed:
    """The error for ``what`` was found at ``offset`` of the stream."""
    return StreamMalformed(f"The migration stream has {what}, at offset {offset} (0x{offset:x}).", "Use the mode 'paused'.")


class _Walk:
    """The sections' bytes, walked by their description."""

    def __init__(self, state: bytes, offset: int) -> None:
        self._state = state
        self._offset = offset
        self._at = 0
        self._seen: set[int] = set()

    def section(self, described: Mapping[str, Any]) -> Section:
        """The next section, header to footer."""
        began = self._at
        try:
            self._byte(_SECTION, "a device section")
            number = self._u32()
            name, instance, version = self._text(), self._u32(), self._u32()
            told = (described["name"], described["instance_id"] & 0xFFFFFFFF, described.get("version", version))
            if (name, instance, version) != told:
                raise self._wrong(began, f"the section {name!r} ({instance}, version {version}) where {told} is described")
            if number in self._seen:
                raise self._wrong(began, f"the section {name!r} with the id {number}, which another one has")
            self._seen.add(number)
            fields, subsections = self._content(described)
            self._byte(_FOOTER, f"the footer of {name!r}")
            if (footer := self._u32()) != number:
                raise self._wrong(self._at - 4, f"the footer {footer} for the section {name!r}, whose id is {number}")
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise self._wrong(began, f"a device section whose description makes no sense ({error!r})") from error
        return Section(
            name=name,
            instance=instance,
            version=version,
            device=str(described.get("vmsd_name", "")),
            fields=fields,
            subsections=subsections,
        )

    def expect_end(self) -> None:
        """Nothing may be left."""
        if self._at != len(self._state):
            raise self._wrong(self._at, f"{len(self._state) - self._at} bytes of device state that nothing describes")

    def _content(self, described: Mapping[str, Any]) -> tuple[tuple[Field, ...], tuple[State, ...]]:
        fields = tuple(self._field(field) for field in described["fields"])
        return fields, tuple(self._subsection(each) for each in described.get("subsections", ()))

    def _field(self, described: Mapping[str, Any]) -> Field:
        name, kind, size = described["name"], described["type"], _whole(described["size"])
        count = _whole(described.get("array_len", 1))
        began, end = self._at, self._at + size * count
        if end > len(self._state):
            raise self._wrong(began, f"a field {name!r} of {size * count} bytes, which is more than there are")
        elements: tuple[State, ...] = ()
        if "struct" in described:
            # Only structs of a fixed layout are described once for a whole array; the length below holds them to it.
            elements = tuple(self._elements(described["struct"], count if size else 0))
            if self._at != end:
                raise self._wrong(began, f"a struct {name!r} of {self._at - began} bytes where {size * count} are described")
        self._at = end
        return Field(name=name, kind=kind, count=count, content=self._state[began:end], elements=elements)

    def _elements(self, described: Mapping[str, Any], count: int) -> Iterator[State]:
        for _ in range(count):
            fields, subsections = self._content(described)
            yield State(name=described["vmsd_name"], version=described["version"], fields=fields, subsections=subsections)

    def _subsection(self, described: Mapping[str, Any]) -> State:
        began = self._at
        self._byte(_SUBSECTION, f"the subsection {described['vmsd_name']!r}")
        name, version = self._text(), self._u32()
        if (name, version) != (described["vmsd_name"], described["version"]):
            raise self._wrong(began, f"the subsection {name!r} where {described['vmsd_name']!r} is described")
        fields, subsections = self._content(described)
        return State(name=name, version=version, fields=fields, subsections=subsections)

    def _byte(self, expected: int, what: str) -> None:
        found = self._take(1)[0]
        if found != expected:
            raise self._wrong(self._at - 1, f"the byte 0x{found:02x} where {what} should begin (0x{expected:02x})")

    def _u32(self) -> int:
        return int.from_bytes(self._take(4), "big")

    def _text(self) -> str:
        return self._take(self._take(1)[0]).decode("ascii", "backslashreplace")

    def _take(self, count: int) -> bytes:
        if self._at + count > len(self._state):
            raise self._wrong(self._at, "an end of its device state where more is described")
        self._at += count
        return self._state[self._at - count : self._at]

    def _wrong(self, at: int, what: str) -> StreamMalformed:
        return malformed(self._offset + at, what)


def _whole(value: object) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is not a number of bytes or elements")
    return value
