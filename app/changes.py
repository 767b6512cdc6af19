"""What happened, for everybody who wants to know: publish and subscribe inside the process.

The last ``HELD`` changes stand in one ring that all subscribers share; a subscriber is only a place in it, so a slow one
costs no memory and holds nobody up. One that falls out of the ring is lost and is told so. Progress is apart: only the
newest of each job counts, and it is never replayed.

Everything here runs on the event loop; nothing is safe from other threads.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from app.errors import MemoryDumpsError
from app.model import Phase, Progress

HELD = 1000
"""Changes that are kept for those who come back, and how far behind a subscriber may fall."""

Topic = Literal["vms", "hypervisor", "history", "room", "job", "record", "stats", "activity"]
TOPICS: tuple[Topic, ...] = ("vms", "hypervisor", "history", "room", "job", "record", "stats", "activity")


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """Something that happened: ``subject`` is the noun of ``app.model`` as it is now. Numbers rise by one."""

    number: int
    topic: Topic
    subject: object


@dataclass(frozen=True, slots=True, eq=False)
class Advance:
    """A job's newest progress."""

    job_id: str
    phase: Phase
    progress: Progress


@dataclass(frozen=True, slots=True)
class Place:
    """How far somebody has heard: the numbers of the last change and of the last progress."""

    change: int
    advance: int


class SubscriberLost(MemoryDumpsError):
    """The subscriber is more than ``HELD`` changes behind; what it missed is no longer held."""

    code = "subscriber-too-slow"

    def __init__(self) -> None:
        super().__init__(f"More than {HELD} changes behind. Connect again, and begin with a snapshot.")


class Changes:
    """The ring, and who reads it."""

    def __init__(self) -> None:
        self.newest = 0
        self._run = secrets.token_hex(4)
        self._ring: deque[Change] = deque(maxlen=HELD)
        self._advances: dict[str, tuple[int, Advance]] = {}
        self._advance_number = 0
        self._subscriptions: set[Subscription] = set()
        self._listeners: list[Callable[[Change | Advance], None]] = []

    def listen(self, hear: Callable[[Change | Advance], None]) -> Callable[[], None]:
        """Call ``hear`` with everything in the moment that it is published: for what must never be behind. Until what is returned
        is called."""
        self._listeners.append(hear)
        return lambda: self._listeners.remove(hear)

    @property
    def followed(self) -> bool:
        """Whether anybody subscribes now."""
        return bool(self._subscriptions)

    def publish(self, topic: Topic, subject: object) -> None:
        """Tell everybody."""
        self.newest += 1
        change = Change(self.newest, topic, subject)
        self._ring.append(change)
        self._tell(change)

    def advance(self, job_id: str, phase: Phase, progress: Progress) -> None:
        """Tell a job's progress to whoever is listening now."""
        self._advance_number += 1
        advance = Advance(job_id, phase, progress)
        self._advances[job_id] = (self._advance_number, advance)
        self._tell(advance)

    def ended(self, job_id: str) -> None:
        """The job has no progress any more."""
        self._advances.pop(job_id, None)

    @property
    def place(self) -> Place:
        """Behind everything that has happened."""
        return Place(self.newest, self._advance_number)

    def cursor(self, number: int) -> str:
        """What a subscriber may come back with, having seen every change up to ``number``."""
        return f"{self._run}.{number}"

    def cursor_at(self, place: Place) -> str:
        """The same for one that has heard progress, too, and wants only what is newer."""
        return f"{self.cursor(place.change)}.{place.advance}"

    def place_of(self, cursor: str) -> Place | None:
        """The place that ``cursor`` names; None if it is of another run, or what follows is not held any more."""
        run, _, numbers = cursor.partition(".")
        change, dot, advance = numbers.partition(".")
        if run != self._run or not _is_number(change) or (dot and not _is_number(advance)):
            return None
        place = Place(int(change), int(advance) if dot else self._advance_number)
        if place.change > self.newest or place.advance > self._advance_number or self._lost(place.change):
            return None
        return place

    @contextmanager
    def subscribe(self, after: int, advance: int | None = None) -> Iterator[Subscription]:
        """Everything that comes after the change ``after``; progress after ``advance``, else what is yet to come."""
        subscription = Subscription(self, Place(after, self._advance_number if advance is None else advance))
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    def _lost(self, after: int) -> bool:
        return self.newest - after > HELD

    def _tell(self, news: Change | Advance) -> None:
        for hear in tuple(self._listeners):
            hear(news)
        for subscription in self._subscriptions:
            subscription.news.set()
            if self._lost(subscription.after):
                subscription.lost.set()

    def _held_after(self, number: int) -> list[Change]:
        if self._lost(number):
            raise SubscriberLost
        missing = self.newest - number
        return list(self._ring)[len(self._ring) - missing :] if missing else []

    def _advances_after(self, number: int) -> tuple[int, list[Advance]]:
        return self._advance_number, [advance for at, advance in self._advances.values() if at > number]


class Subscription:
    """A place in the ring. ``lost`` is set when it has fallen out, also while its owner is busy sending."""

    def __init__(self, changes: Changes, place: Place) -> None:
        self.after = place.change
        self.news = asyncio.Event()
        self.lost = asyncio.Event()
        self._changes = changes
        self._advances_after = place.advance
        if changes.place != place:
            self.news.set()

    @property
    def place(self) -> Place:
        """Behind what it has told."""
        return Place(self.after, self._advances_after)

    async def next(self) -> tuple[list[Change], list[Advance]]:
        """What came since the last call; waits until there is something. Raises ``SubscriberLost``."""
        await self.news.wait()
        self.news.clear()
        changes = self._changes._held_after(self.after)
        self._advances_after, advances = self._changes._advances_after(self._advances_after)
        self.after += len(changes)
        return changes, advances


def _is_number(text: str) -> bool:
    return text.isdecimal() and text.isascii() and len(text) <= 15
