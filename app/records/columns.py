"""One row of the history, column by column: what is there of the kind that is asked for, and nothing where it makes no sense."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeVar
from urllib.parse import parse_qsl

import msgspec

from app.model import MOST_BYTES, MOST_TIME

T = TypeVar("T")

_EVERYBODYS = frozenset({"duration_sec", "gzip_size_bytes", "ctime", "mtime", "atime"})
"""The numbers that every producer writes."""
_VALUE_CHARS = 64


class NoRecord(ValueError):
    """A row is no record, because this ``column`` of it has this ``value``, shortened."""

    def __init__(self, column: str, value: object) -> None:
        self.column = column
        self.value = repr(value)[:_VALUE_CHARS]
        super().__init__(f"a row of InfluxDB has {column}={self.value}")


class Columns:
    """One row; each method gives a column as one kind of value, and nothing of that kind where it is of another."""

    def __init__(self, row: Mapping[str, object]) -> None:
        self._row = {**row, **_exact(row)}

    def text_or_none(self, name: str) -> str | None:
        value = self._row.get(name)
        return value if isinstance(value, str) else None

    def text(self, name: str) -> str:
        return self.text_or_none(name) or ""

    def number(self, name: str) -> float:
        value = self._finite(name)
        return 0.0 if value is None else float(self._within(name, value, MOST_TIME))

    def whole(self, name: str) -> int:
        value = self._finite(name)
        return 0 if value is None else int(self._within(name, value, MOST_BYTES))

    def level(self, name: str) -> int | None:
        value = self._finite(name)
        return None if value is None or abs(value) > MOST_BYTES else int(value)

    def pauses(self, name: str) -> tuple[float, ...]:
        values: tuple[float, ...] = self.json(name, tuple[float, ...], ())
        return values if all(0 <= value <= MOST_TIME for value in values) else ()

    def _finite(self, name: str) -> float | int | None:
        value = self._row.get(name)
        return value if isinstance(value, int | float) and math.isfinite(value) else None

    def _within(self, name: str, value: float, most: float) -> float:
        if 0 <= value <= most:
            return value
        if name in _EVERYBODYS:
            raise NoRecord(name, value)
        return 0

    def json(self, name: str, kind: type[T], default: T) -> T:
        try:
            return msgspec.json.decode(self.text(name), type=kind)
        except msgspec.DecodeError:
            return default


def _exact(row: Mapping[str, object]) -> dict[str, str]:
    pieces: list[str] = []
    while isinstance(piece := row.get(piece_name(len(pieces) + 1)), str):
        pieces.append(piece)
    if not pieces:
        return {}
    try:
        return dict(parse_qsl("".join(pieces), keep_blank_values=True, strict_parsing=True, errors="strict"))
    except ValueError:
        return {}  # another program's column of this name


def piece_name(number: int) -> str:
    """The fields that have values exactly which line protocol cannot carry: as many as it takes."""
    return "exact" if number == 1 else f"exact_{number}"
