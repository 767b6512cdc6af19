"""What ``make test-thorough`` runs and ``make test`` does not: what that has promised, in other phases, roles, shapes and widths,
and faults that few will meet. In continuous integration ``make test`` runs both.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import pytest
from _pytest.mark import ParameterSet

T = TypeVar("T")

thorough = pytest.mark.thorough


def once(cases: Iterable[T], *kept: T) -> list[ParameterSet]:
    """All cases, for ``parametrize``; those that are not ``kept`` are thorough. A tuple is the values of several parameters."""
    return [pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=() if case in kept else thorough) for case in cases]
