"""What is tried in vain, kept short: a flood of refusals must not fill the disk, nor hide that there was one.

The first of its kind is written at once. The same again within a while is only counted, and the count is written when the while
has passed. So many kinds have an entry of their own in a while; those beyond are counted together. Whom we know and whom we do
not are counted apart, so that strangers cannot crowd out what an account tried.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from app.access.audit import Note, service_note
from app.model import rfc3339

WHILE_SEC = 600.0
MOST_KINDS = 20
"""With these two at most 82 entries in ten minutes, some 5 MB a day under a flood without end."""


@dataclass(slots=True)
class _Kind:
    first: Note
    again: int = 0


class Refusals:
    """Which were heard within this while."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._begun = 0.0
        self._kinds: dict[tuple[bool, tuple[str, ...]], _Kind] = {}
        self._others: dict[bool, _Kind] = {}

    def hear(self, noted: Note, key: tuple[str, ...], *, known: bool) -> list[Note]:
        """What is to be written now."""
        writing = self.due()
        if not self._kinds:
            self._begun = self._monotonic()
        kind = self._kinds.get((known, key))
        if kind is not None:
            kind.again += 1
        elif sum(each == known for each, _ in self._kinds) < MOST_KINDS:
            self._kinds[known, key] = _Kind(noted)
            writing.append(noted)
        else:
            self._others.setdefault(known, _Kind(noted)).again += 1
        return writing

    def due(self) -> list[Note]:
        """The counts, if the while has passed."""
        return self.rest() if self._kinds and self._monotonic() - self._begun >= WHILE_SEC else []

    def rest(self) -> list[Note]:
        """The counts; a new while begins."""
        counted = [_counted(kind) for kind in self._kinds.values() if kind.again]
        for known, kind in self._others.items():
            whose = "several" if known else "several unknown"
            since = rfc3339(kind.first.at)
            counted.append(service_note("refusal", who=whose, result="several", times=kind.again, since=since))
        self._kinds.clear()
        self._others.clear()
        return counted


def _counted(kind: _Kind) -> Note:
    details = {**kind.first.details, "times": kind.again, "since": rfc3339(kind.first.at)}
    return replace(kind.first, details=details, at=datetime.now(UTC))
