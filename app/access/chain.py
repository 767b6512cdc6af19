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
    """A head that was told outside of the trail, and where that stands."""

    head: Head
    where: str


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


def look_over(entries: Iterable[Entry], witnesses: Iterable[Witness] = ()) -> Finding:
    """Follow the chain from its first entry, compare it with what was told elsewhere, and stop at the first thing that is wrong."""
    told: dict[int, list[Witness]] = {}
    for witness in witnesses:
        told.setdefault(witness.head.number, []).append(witness)
    before = last = EMPTY
    agreed = 0
    for entry in entries:
        wrong = _wrong(entry, last, before)
        if wrong is not None:
            return Finding(last, *wrong)
        for witness in told.get(entry.number, ()):
            if witness.head.hash != entry.hash:
                return Finding(last, agreed + 1, _rewritten(agreed + 1, entry.number, witness))
            agreed = entry.number
        before, last = last, entry.head
    longer = [witness for number, found in told.items() if number > last.number for witness in found]
    if longer:
        furthest = max(longer, key=lambda witness: witness.head.number)
        message = (
            f"Entry {last.number + 1} and what followed it was removed: {furthest.where} tells of entry {furthest.head.number}."
        )
        return Finding(last, last.number + 1, message)
    return Finding(last)


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


def _rewritten(first: int, number: int, witness: Witness) -> str:
    which = f"Entry {number}" if first == number else f"One of the entries {first} to {number}"
    return f"{which} was changed, and what follows written anew: {witness.where} tells of another entry {number}."
