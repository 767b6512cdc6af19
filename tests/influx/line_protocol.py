"""Line protocol, read as InfluxDB 3 Core reads it.

The grammar follows the crate ``influxdb_line_protocol`` (repository influxdata/influxdb3_core, ``src/lib.rs``) and uses
its error texts. What surprises there, and is the same here:

* Lines are split before they are parsed. A newline ends a line unless it is escaped by a backslash or stands inside the
  quotes of a field value; a quote anywhere in the field part, after more ``=`` than ``,``, opens such a string.
* A string field may hold newlines, NUL and anything else; only ``\\"`` and ``\\\\`` are escapes in it, any other backslash
  is itself. Its end is the first quote that is not escaped. 64 KiB of UTF-8 is the most.
* In measurement, tags and field keys a backslash escapes ``,`` ``=`` space and backslash (in a measurement not ``=``); before
  anything else it stays, together with that character. **None of them may end with a backslash**, even an escaped one,
  and none may be empty. A measurement ends at NUL, the others may hold it.
* Tab and newline end a name as a space does, but only spaces separate the parts of a line.
* ``1.`` and ``.5`` are no numbers, ``1e5`` is; ``NaN`` and infinity are none.
* After the first field, what does not parse is "trailing content"; a comma after a field may be followed by nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

Value = str | int | float | bool

STRING_BYTES_LIMIT = 65_536
_CONTEXT_CHARS = 10
_FLOAT = re.compile(r"-?[0-9]+\.[0-9]+[eE][-+]?[0-9]+|-?[0-9]+[eE][-+]?[0-9]+|-?[0-9]+\.[0-9]+|-?[0-9]+")
_INTEGER = re.compile(r"(-?[0-9]+)i")
_UNSIGNED = re.compile(r"([0-9]+)u")
# Possessive, for Core does not try again either: an escaped quote never ends the string.
_STRING = re.compile(r'"((?:[^"\\]++|\\["\\]|\\(?!["\\]))*+)"')
_ESCAPED = re.compile(r'\\(["\\])')
_SPLITTING = re.compile(r'\\.|[ "=,\n]', re.DOTALL)
_BOOLEAN = re.compile(r"(true|True|TRUE|t|T)|(false|False|FALSE|f|F)")
_TIMESTAMP = re.compile(r"-?[0-9]+")


class Malformed(Exception):
    """A line that Core refuses, in its words."""


class _NoMatch(Exception):
    """Nothing that fits begins here; the caller may try something else."""


@dataclass(frozen=True, slots=True)
class Unsigned:
    """An unsigned integer is a type of its own; ``1u`` conflicts with ``1i``."""

    value: int


FieldValue = Value | Unsigned


@dataclass(frozen=True, slots=True)
class Line:
    measurement: str
    tags: tuple[tuple[str, str], ...]
    fields: tuple[tuple[str, FieldValue], ...]
    timestamp: int | None

    def __str__(self) -> str:
        """As Core prints a parsed line in its errors: without quotes, numbers written anew."""
        tags = "".join(f",{_escaped(key)}={_escaped(value)}" for key, value in self.tags)
        fields = ",".join(f"{_escaped(key)}={_printed(value)}" for key, value in self.fields)
        time = "" if self.timestamp is None else f" {self.timestamp}"
        return f"{_escaped(self.measurement, ', ')}{tags} {fields}{time}"


def _escaped(text: str, special: str = ",= ") -> str:
    return "".join(f"\\{char}" if char in special else char for char in text)


def _printed(value: FieldValue) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return value.replace('"', '\\"')
        case Unsigned():
            return f"{value.value}u"
        case int():
            return f"{value}i"
        case float():
            return _decimal(value)


def _decimal(value: float) -> str:
    """Shortest digits without an exponent, as Rust prints a float."""
    text = format(Decimal(repr(value)), "f")
    return text[:-2] if text.endswith(".0") else text


def lines(body: str) -> Iterator[Line | Malformed]:
    """One result for each line that is neither empty nor a comment, which are not counted."""
    for raw in split(body):
        text = _without_comments(raw)
        if not text:
            continue
        try:
            yield _Reader(text).line()
        except Malformed as refused:
            yield refused


def split(body: str) -> Iterator[str]:
    quoted = in_fields = False
    equals = commas = start = 0
    for found in _SPLITTING.finditer(body):
        match found[0]:
            case " ":
                in_fields = True
            case "=" if in_fields and not quoted:
                equals += 1
            case "," if in_fields and not quoted:
                commas += 1
            case '"' if in_fields and equals > commas:
                quoted = not quoted
            case "\n" if not quoted:
                yield body[start : found.start()]
                start, in_fields, equals, commas = found.end(), False, 0, 0
    yield body[start:]


def _without_comments(text: str) -> str:
    text = text.lstrip(" \t\n")
    while text.startswith("#"):
        _, _, text = text.partition("\n")
        text = text.lstrip(" \t\n")
    return text


class _Reader:
    """Reads one line from left to right."""

    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0

    def line(self) -> Line:
        measurement = self._measurement()
        tags = tuple(self._tags())
        self._spaces()
        fields = tuple(self._fields())
        timestamp = self._timestamp()
        if self._at < len(self._text):
            raise Malformed(f"Could not parse entire line. Found trailing content: `{_cut(self._rest())}`")
        return Line(measurement, tags, fields, timestamp)

    def _rest(self) -> str:
        return self._text[self._at :]

    def _take(self, token: str) -> bool:
        found = self._text.startswith(token, self._at)
        self._at += len(token) if found else 0
        return found

    def _spaces(self) -> None:
        if not self._take(" "):
            raise Malformed(f"Expected at least one space character, got {_quoted(self._rest())}")
        while self._take(" "):
            pass

    def _name(self, stops: str, escapes: str) -> str:
        """Text up to one of ``stops`` or white space."""
        start, found = self._at, []
        while self._at < len(self._text) and (char := self._text[self._at]) not in stops and char not in " \t\n":
            self._at += 1
            if char == "\\" and (following := self._text[self._at : self._at + 1]):
                self._at += 1
                char = following if following in escapes else char + following
            found.append(char)
        if self._at == start:
            raise _NoMatch
        name = "".join(found)
        if name.endswith("\\"):
            raise Malformed("Measurements, tag keys and values, and field keys may not end with a backslash")
        if len(name.encode()) > STRING_BYTES_LIMIT:
            raise Malformed("String is greater than 64KB")
        return name

    def _measurement(self) -> str:
        try:
            return self._name(",\0", ", \\")
        except _NoMatch:
            raise Malformed("Invalid measurement was provided") from None

    def _tags(self) -> Iterator[tuple[str, str]]:
        first = self._at + 1
        while self._take(","):
            try:
                key = self._name("=", ",= \\")
            except _NoMatch:
                raise Malformed(f"Expected tag key, got {_quoted(_cut(self._rest()))}") from None
            if not self._take("="):
                raise Malformed(f"Tag set malformed: could not find equals sign in `{_cut(self._text[first:])}`")
            try:
                yield key, self._name(",", ",= \\")
            except _NoMatch:
                raise Malformed(f"Expected tag value, got {_quoted(_cut(self._rest()))}") from None

    def _fields(self) -> Iterator[tuple[str, FieldValue]]:
        """What does not parse after the first field is left as trailing content: from its comma on, or, after the very
        first field, from behind the comma."""
        try:
            yield self._field()
        except _NoMatch:
            raise Malformed("No fields were provided") from None
        back = self._at + 1
        while self._take(","):
            try:
                yield self._field()
            except _NoMatch:
                self._at = back
                return
            back = self._at

    def _field(self) -> tuple[str, FieldValue]:
        key = self._name("=", ",= \\")
        if not self._take("="):
            raise _NoMatch
        return key, self._value()

    def _value(self) -> FieldValue:
        if found := self._match(_INTEGER):
            return _bounded(found[1], -(2**63), 2**63 - 1, "integer")
        if found := self._match(_UNSIGNED):
            return Unsigned(_bounded(found[1], 0, 2**64 - 1, "unsigned integer"))
        if found := self._match(_FLOAT):
            return float(found[0])
        if self._text.startswith('"', self._at):
            return self._string()
        if found := self._match(_BOOLEAN):
            return found[1] is not None
        raise _NoMatch

    def _string(self) -> str:
        if not (found := self._match(_STRING)):
            raise _NoMatch
        value = _ESCAPED.sub(r"\1", found[1])
        if len(value.encode()) > STRING_BYTES_LIMIT:
            raise Malformed("String is greater than 64KB")
        return value

    def _timestamp(self) -> int | None:
        before = self._at
        while self._take(" "):
            pass
        if self._at == before or not (found := self._match(_TIMESTAMP)):
            self._at = before
            return None
        while self._take(" "):
            pass
        return _bounded(found[0], -(2**63), 2**63 - 1, "timestamp")

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        if found := pattern.match(self._text, self._at):
            self._at = found.end()
        return found


def _bounded(digits: str, low: int, high: int, kind: str) -> int:
    # Python itself refuses to read thousands of digits.
    if len(digits) > 20 or not low <= int(digits) <= high:
        raise Malformed(f"Unable to parse {kind} value `{digits}`")
    return int(digits)


def _cut(text: str) -> str:
    return text if len(text.encode()) <= _CONTEXT_CHARS else f"{text[:_CONTEXT_CHARS]}..."


def _quoted(text: str) -> str:
    return f"`{text}`" if text else "end of input"
