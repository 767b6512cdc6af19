"""A figure, its baseline, and the bound on how they compare; measured in turn, so that a slow minute hits both."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

RUNS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the table. ``ratio`` is what the bound is on; ``met`` says whether it holds."""

    claim: str
    ours: str
    baseline: str
    ratio: str
    bound: str
    met: bool


def in_turn(ours: Callable[[], float], baseline: Callable[[], float], *, runs: int = RUNS) -> tuple[list[float], list[float]]:
    """Both ``runs`` times, one after the other, pair by pair, after one of each that does not count."""
    ours(), baseline()
    pairs = [(ours(), baseline()) for _ in range(runs)]
    return [a for a, _ in pairs], [b for _, b in pairs]


def median(values: Sequence[float]) -> float:
    """The middle one."""
    return statistics.median(values)


def spread(values: Sequence[float], unit: str, digits: int = 2) -> str:
    """``1.23 s (1.10 … 1.40)``: the median, least and most."""
    return f"{median(values):.{digits}f} {unit} ({min(values):.{digits}f} … {max(values):.{digits}f})"
