"""The chain of the audit trail: what an entry is, what its hash is made of, and where a chain is not what it was.

Each entry carries the hash of the one before and its own, SHA-256 over its canonical JSON: all members but ``hash``, names sorted,
no space, UTF-8. Whoever changes an entry has to write every later one anew, and then the last hash is another one: which is why
that hash, the head, is told where the trail is not (the program's log, every manifest).

Nothing here knows where entries are kept.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

NO_HASH = "0" * 64
"""What the first entry carries as the hash of the one before."""

Detail = str | int | bool | None

_HASH = re.compile(r"[0-9a-f]{64}\Z")
_HEAD = re.compile(r"([0-9]{1,15}):([0-9a-f]{64})\Z")
_SHIFTS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry. In JSON ``origin`` is called ``from``, and ``subject`` is ``on``."""

    number: int
    at: str
    who: str
    via: str
    origin: str
    deed: str
    subject: str
    result: str
    details: Mapping[str, Detail]
    previous: str
    hash: str = ""

    @property
    def head(self) -> Head:
        return Head(self.number, self.hash)

    def sealed(self) -> Entry:
        """With the hash that belongs to it."""
        return replace(self, hash=digest(self))

    def members(self) -> dict[str, object]:
        """Everything but its hash, named as in the canonical JSON."""
        return {
            "number": self.number,
            "at": self.at,
            "who": self.who,
            "via": self.via,
            "from": self.origin,
            "deed": self.deed,
            "on": self.subject,
            "result": self.result,
            "details": dict(self.details),
            "previous": self.previous,
        }


@dataclass(frozen=True, slots=True)
class Head:
    """The last entry of a chain at some moment: as text its number, a colon, its hash. Number 0: there was none yet."""

    number: int
    hash: str

    def __str__(self) -> str:
        return f"{self.number}:{self.hash}"


EMPTY = Head(0, NO_HASH)


@dataclass(frozen=True, slots=True)
class Witness:
    """The hash of an entry that was the last one when it was told outside of the trail, and where that stands.

    ``number`` is the entry's, where that was told, too: a manifest does not, for whoever may see one VM must not count what is
    done to all others.
    """

    hash: str
    where: str
    number: int | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """What a look over the chain found. ``first_wrong`` is the number of the first entry that was changed, inserted or removed."""

    head: Head
    first_wrong: int | None = None
    message: str = ""


def canonical(members: Mapping[str, object]) -> str:
    """The JSON that is hashed: the same for the same members, whoever makes it."""
    return json.dumps(members, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(entry: Entry) -> str:
    """The hash that belongs to what the entry says."""
    return hashlib.sha256(canonical(entry.members()).encode()).hexdigest()


def line_of(entry: Entry) -> str:
    """The entry as one line of JSON, its hash last: without that member it is what is hashed."""
    return f'{canonical(entry.members())[:-1]},"hash":"{entry.hash}"}}'


def read_head(text: str) -> Head | None:
    """What ``str`` made of a head; None if it is none."""
    found = _HEAD.match(text)
    return Head(int(found[1]), found[2]) if found else None


def is_hash(text: str | None) -> bool:
    """Whether that can be an entry's hash. (64 zeros are none's.)"""
    return text is not None and text != NO_HASH and _HASH.match(text) is not None


def look_over(entries: Iterable[Entry], witnesses: Iterable[Witness] = ()) -> Finding:
    """Follow the chain from its first entry, compare it with what was told elsewhere, and stop at the first thing that is wrong."""
    told = _Told(witnesses)
    before = last = EMPTY
    for entry in entries:
        wrong = _wrong(entry, last, before) or told.contradict(entry)
        if wrong is not None:
            return Finding(last, *wrong)
        before, last = last, entry.head
    return Finding(last, *(told.missed(last.number) or (None, "")))


class _Told:
    """What witnesses tell, and up to which entry they agree with what was seen of the chain: whatever is before that one hash is
    what it was."""

    def __init__(self, witnesses: Iterable[Witness]) -> None:
        self._agreed = 0
        self._numbered: dict[int, list[Witness]] = {}
        self._hashes: dict[str, Witness] = {}
        for witness in witnesses:
            if witness.number is None:
                self._hashes[witness.hash] = witness
            else:
                self._numbered.setdefault(witness.number, []).append(witness)

    def contradict(self, entry: Entry) -> tuple[int, str] | None:
        """The first entry that may be wrong, and why, if one tells of another entry of this number."""
        witnesses = self._numbered.pop(entry.number, [])
        for witness in witnesses:
            if witness.hash != entry.hash:
                which = self._which(entry.number)
                return (
                    self._agreed + 1,
                    f"{which} was changed, and what follows written anew: {witness.where} tells of another one.",
                )
        if witnesses or self._hashes.pop(entry.hash, None) is not None:
            self._hashes.pop(entry.hash, None)
            self._agreed = entry.number
        return None

    def missed(self, last: int) -> tuple[int, str] | None:
        """The same for what was told of entries that are not there, when ``last`` was the last."""
        if self._numbered:
            furthest = max(self._numbered)
            where = self._numbered[furthest][0].where
            return last + 1, f"Entry {last + 1} and what followed it was removed: {where} tells of entry {furthest}."
        if not self._hashes:
            return None
        where = next(iter(self._hashes.values())).where
        if self._agreed == last:
            return last + 1, f"Entry {last + 1} and what followed it was removed: {where} tells of one that is not there."
        which = self._which(last)
        return self._agreed + 1, f"{which} was changed, or what followed was removed: {where} tells of one that is not there."

    def _which(self, number: int) -> str:
        return f"Entry {number}" if self._agreed + 1 == number else f"One of the entries {self._agreed + 1} to {number}"


def _wrong(entry: Entry, last: Head, before: Head) -> tuple[int, str] | None:
    """The first entry that is wrong, and how, where ``entry`` does not go on from ``last``."""
    due = last.number + 1
    if entry.number > due:
        return due, f"Entry {due} was removed: entry {entry.number} follows."
    if entry.number < due:
        return entry.number, f"Entry {entry.number} was inserted: it stands before entry 1."
    if digest(entry) == entry.hash:
        if entry.previous == last.hash:
            return None
        if last.number == 0:
            return 1, "Entry 1 was changed, or what stood before it was removed."
        if entry.previous == before.hash:
            return last.number, f"Entry {last.number} was inserted: entry {due} was written without it."
        return last.number, f"Entry {last.number} was changed: entry {due} was written after another one."
    shift = _shift(entry)
    if shift > 0:
        return due, f"Entry {due} was removed: what bears its number was entry {due + shift}."
    if shift < 0:
        return due + shift, f"Entry {due + shift} was inserted: entry {due} had that number."
    return due, f"Entry {due} was changed."


def _shift(entry: Entry) -> int:
    """How far an entry was numbered anew; 0: it was not, or more than that was changed."""
    for distance in range(1, _SHIFTS + 1):
        for shift in (distance, -distance):
            if digest(replace(entry, number=entry.number + shift)) == entry.hash:
                return shift
    return 0
