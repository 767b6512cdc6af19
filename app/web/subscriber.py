"""What somebody who follows the live feed is to be told next, whichever way it goes out: over a websocket or as answers to long
requests. Both say the same messages in the same order."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import msgspec
from msgspec import Meta

from app.changes import TOPICS, Advance, Change, Changes, Subscription
from app.errors import RequestError
from app.web import requests
from app.web.answers import encode
from app.web.feeds import Feed
from app.web.messages import ProgressMessage, noun
from app.web.view import Snapshot

News = Change | Advance

PROGRESS = "progress"
_ALL = (*TOPICS, PROGRESS)
_MEMBERS = {topic: topic for topic in TOPICS} | {"job": "jobs", "record": "records"}


class FeedQuery(requests.Query, frozen=True, kw_only=True):
    """What to hear, and from where on."""

    since: Annotated[str, Meta(description="A cursor: what came after it, without a snapshot, while that is still held.")] = ""
    topics: Annotated[str, Meta(description=f"Some of {', '.join(_ALL)}, with commas between. Default: all.")] | None = None

    def wanted(self) -> frozenset[str]:
        """The topics that are asked for. Raises ``RequestError``."""
        if self.topics is None:
            return frozenset(_ALL)
        known = ", ".join(_ALL)
        if not self.topics.strip():
            raise RequestError(f"topics names none; leave it out for all of them, or name some of {known}.", place="topics")
        topics = frozenset(part.strip() for part in self.topics.split(","))
        unknown = sorted(topics.difference(_ALL))
        if unknown:
            raise RequestError(f"There is no topic {unknown[0]!r}; there are {known}.", place="topics")
        return topics


@contextmanager
def subscribe(feed: Feed, since: str, topics: frozenset[str]) -> Iterator[Subscriber]:
    """Somebody who has heard everything up to ``since`` or, where that is no place any more, begins with a snapshot."""
    changes = feed.changes
    place, first = changes.place_of(since), None
    if place is None:
        place, first = changes.place, _first(feed.view.snapshot(), topics)
    with changes.subscribe(place.change, place.advance) as subscription:
        yield Subscriber(changes, subscription, topics, first)


class Subscriber:
    """A subscription, and what of it is wanted. ``first`` is to be said before anything else."""

    def __init__(self, changes: Changes, subscription: Subscription, topics: frozenset[str], first: str | None) -> None:
        self.first = first
        self.lost = subscription.lost
        self._changes = changes
        self._subscription = subscription
        self._topics = topics
        self._stopped = False

    @property
    def cursor(self) -> str:
        """With this it may come back, and misses nothing."""
        return self._changes.cursor_at(self._subscription.place)

    async def next(self, until: float) -> list[News]:
        """What came of its topics; waits until there is something. Empty at ``until``, by the loop's clock, and once it was
        stopped. Raises ``SubscriberLost``."""
        while not self._stopped:
            try:
                async with asyncio.timeout_at(until):
                    changes, advances = await self._subscription.next()
            except TimeoutError:
                break
            news: list[News] = [change for change in changes if change.topic in self._topics]
            if PROGRESS in self._topics:
                news += advances
            if news:
                return news
        return []

    def stop(self) -> None:
        """Nothing is waited for any more."""
        self._stopped = True
        self._subscription.news.set()

    def text_of(self, news: News) -> str:
        """As a message."""
        if isinstance(news, Advance):
            return _progress(news)
        return _change(news, self._changes.cursor(news.number))


def _first(snapshot: Snapshot, topics: frozenset[str]) -> str:
    """The snapshot without what nobody asked for."""
    unwanted = {member for topic, member in _MEMBERS.items() if topic not in topics}
    if not unwanted:
        return snapshot.encoded
    unwanted.add("version")  # which is for pages
    members = msgspec.structs.asdict(snapshot.message)
    return encode({"type": "snapshot", **{name: value for name, value in members.items() if name not in unwanted}}).decode()


# Made once for all subscribers; changes and advances are told apart by identity.


@functools.lru_cache(maxsize=64)
def _change(change: Change, cursor: str) -> str:
    return encode({"type": change.topic, "cursor": cursor, change.topic: noun(change)}).decode()


@functools.lru_cache(maxsize=64)
def _progress(advance: Advance) -> str:
    return encode(ProgressMessage.of(advance)).decode()
