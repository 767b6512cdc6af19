"""What is tried in vain, kept short: a flood of refusals must not fill the disk, nor hide that there was one.

The first of its kind is written at once. The same again within a while is only counted, and the count is written when the while
has passed. So many kinds have an entry of their own in a while, and so many of one caller: those beyond are counted together, each
caller's apart, so that nobody crowds out what others tried. A caller is an account, or, of those whom we do not know, a network.

A name at which somebody guesses counts as a caller of its own once its guesser's entries are used up: it is told however much else
came from there. Such an entry is written a little later, when nobody waits: one that was written while the caller waits would tell,
by the time it takes, that the name is somebody's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from app.access.audit import Deed, Note, service_note
from app.access.network import network_of
from app.model import rfc3339

WHILE_SEC = 600.0
MOST_KINDS = 64
"""Of those whom we know, of those whom we do not, and of names that are guessed at."""

MOST_OF_ONE = 8
"""With these three at most 411 entries in ten minutes, some 27 MB a day under a flood without end; 17 of them, some 1 MB, of one
caller."""

_V4_BITS, _V6_BITS = 24, 48  # what one has who has more than one address

_KNOWN, _UNKNOWN, _NAMED = "known", "unknown", "named"
_Caller = tuple[str, str]
"""One of these three, and which; '' for all of them together."""


@dataclass(slots=True)
class _Kind:
    first: Note
    again: int = 0


class Refusals:
    """Which were heard within this while."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._begun = 0.0
        self._kinds: dict[tuple[_Caller, tuple[str, ...]], _Kind] = {}
        self._others: dict[_Caller, _Kind] = {}
        self._late: list[Note] = []

    def hear(self, noted: Note, key: tuple[str, ...], *, known: bool) -> list[Note]:
        """What is to be written now; the rest is ``due`` later."""
        if not self._kinds:
            self._begun = self._monotonic()
        caller = _caller_of(noted, known)
        counted_as = self._place_of(caller, key)
        late = counted_as is not None and noted.deed == "login-refused" and noted.subject != ""
        if late:
            caller = (_NAMED, noted.subject)
            counted_as = self._place_of(caller, key)
        if counted_as is not None:
            self._others.setdefault(counted_as, _Kind(noted)).again += 1
        elif (kind := self._kinds.get((caller, key))) is not None:
            kind.again += 1
        else:
            self._kinds[caller, key] = _Kind(noted)
            if not late:
                return [noted]
            self._late.append(noted)
        return []

    def due(self) -> list[Note]:
        """What was left for later, and the counts if the while has passed."""
        if self._kinds and self._monotonic() - self._begun >= WHILE_SEC:
            return self.rest()
        late, self._late = self._late, []
        return late

    def rest(self) -> list[Note]:
        """All that is left, and the counts; a new while begins."""
        counted = [_counted(kind) for kind in self._kinds.values() if kind.again]
        counted += [_summed(caller, kind) for caller, kind in self._others.items()]
        late, self._late = self._late, []
        self._kinds.clear()
        self._others.clear()
        return [*late, *counted]

    def _place_of(self, caller: _Caller, key: tuple[str, ...]) -> _Caller | None:
        """As whose it is counted together with others; None where it may have an entry of its own."""
        if (caller, key) in self._kinds:
            return None
        callers = [each for each, _ in self._kinds]
        if callers.count(caller) >= MOST_OF_ONE:
            return caller
        sort, _ = caller
        return (sort, "") if sum(each == sort for each, _ in callers) >= MOST_KINDS else None


def _caller_of(noted: Note, known: bool) -> _Caller:
    if known:
        return _KNOWN, noted.who
    return _UNKNOWN, network_of(noted.occasion.origin, v4_bits=_V4_BITS, v6_bits=_V6_BITS)


def _counted(kind: _Kind) -> Note:
    details = {**kind.first.details, "times": kind.again, "since": rfc3339(kind.first.at)}
    return replace(kind.first, details=details, at=datetime.now(UTC))


def _summed(caller: _Caller, kind: _Kind) -> Note:
    sort, which = caller
    deed: Deed = "login-refused" if sort == _NAMED else "refusal"
    who = (which or "several") if sort == _KNOWN else "several unknown"
    network = {"network": which} if sort == _UNKNOWN and which else {}
    subject = which if sort == _NAMED else ""
    return service_note(deed, subject, result="several", who=who, times=kind.again, since=rfc3339(kind.first.at), **network)
