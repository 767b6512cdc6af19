"""The live feed as long requests, for where websockets are blocked: each waits for what comes next, and answers with it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from app.changes import Advance, SubscriberLost
from app.web import keys, requests
from app.web.answers import Answer
from app.web.api import as_json
from app.web.connection import told_when_gone
from app.web.errors import login_required
from app.web.sight import Sight
from app.web.subscriber import FeedQuery, News, Subscriber, subscribe

PATH = "/api/memory-dumps/changes"
LONGEST_WAIT_SEC = 30
_GATHER_SEC = 0.1
"""Progress alone does not end a request sooner, or a page would ask again for every one that a job makes."""

Message = Annotated[msgspec.Raw, Meta(extra_json_schema={"type": "object", "description": "A message of the feed."})]


class ChangesQuery(FeedQuery, frozen=True, kw_only=True):
    """What to hear, from where on, and how long to wait for it."""

    wait: Annotated[int, Meta(ge=0, le=LONGEST_WAIT_SEC, description="Seconds until an answer comes even if nothing happened.")] = (
        25
    )


class Heard(Answer, frozen=True, kw_only=True):
    """What came, as the websocket would have said it."""

    cursor: Annotated[str, Meta(description="For the `since` of the next request, or of a websocket.")]
    messages: Annotated[
        tuple[Message, ...],
        Meta(description="A `Snapshot` first where `since` is not known, or no longer; empty when nothing happened."),
    ]


class _Waiting:
    """Whoever waits, and whether there is anything to wait for."""

    def __init__(self) -> None:
        self._subscribers: set[Subscriber] = set()
        self._ended = False

    @contextlib.contextmanager
    def with_one_more(self, subscriber: Subscriber) -> Iterator[None]:
        self._subscribers.add(subscriber)
        if self._ended:
            subscriber.stop()
        try:
            yield
        finally:
            self._subscribers.discard(subscriber)

    async def end(self, _app: web.Application) -> None:
        """Answer everybody now."""
        self._ended = True
        for subscriber in self._subscribers:
            subscriber.stop()


_WAITING = web.AppKey("waiting", _Waiting)


def set_up(app: web.Application) -> None:
    """Give ``app`` what long requests need, and answer all of them when it shuts down."""
    app[_WAITING] = waiting = _Waiting()
    app.on_shutdown.append(waiting.end)


async def changes(request: web.Request) -> web.StreamResponse:
    """``GET /api/memory-dumps/changes``: what came after ``since``, as soon as there is something, or after ``wait`` seconds."""
    query = requests.query(request.query, ChangesQuery)
    topics = query.wanted()
    try:
        return as_json(await _heard(request, query.since, topics, query.wait))
    except SubscriberLost:  # more came in one go than is held
        return as_json(await _heard(request, "", topics, query.wait))


async def _heard(request: web.Request, since: str, topics: frozenset[str], wait_sec: int) -> Heard:
    feed = await Sight(request).feed()
    with (
        subscribe(feed, since, topics) as subscriber,
        request.app[_WAITING].with_one_more(subscriber),
        told_when_gone(request, subscriber.stop),
    ):
        request[keys.STAY].on_end(subscriber.stop)
        if subscriber.first is not None:
            texts = [subscriber.first]
        else:
            texts = [subscriber.text_of(one) for one in await gathered(subscriber, wait_sec)]
        if request[keys.STAY].over:
            raise login_required("The login has ended.")
        return Heard(cursor=subscriber.cursor, messages=tuple(msgspec.Raw(text) for text in texts))


async def gathered(subscriber: Subscriber, wait_sec: float, gather_sec: float = _GATHER_SEC) -> list[News]:
    """At once what has changed; of progress the newest of each job, once there was time for more of it."""
    now = asyncio.get_running_loop().time()
    deadline, earliest = now + wait_sec, now + min(gather_sec, wait_sec)
    held: dict[str, Advance] = {}
    while True:
        news = await subscriber.next(earliest if held else deadline)
        advances = {one.job_id: one for one in news if isinstance(one, Advance)}
        if not news or len(advances) < len(news):
            return [*(one for job_id, one in held.items() if job_id not in advances), *news]
        held |= advances
