"""The live feed: a snapshot, then what changes, over a websocket. Who may listen was decided by the gate."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from dataclasses import dataclass, field
from typing import Annotated

import msgspec
import structlog
from aiohttp import WSCloseCode, WSMsgType, web
from msgspec import Meta

from app.changes import TOPICS, Change, SubscriberLost, Subscription
from app.errors import RequestError
from app.web import keys, requests
from app.web.answers import encode
from app.web.errors import ProblemError
from app.web.messages import ProgressMessage, noun
from app.web.view import Snapshot

log = structlog.get_logger()

PATH = "/api/memory-dumps/ws"
TOO_SLOW = 4008
_HEARTBEAT_SEC = 20.0
_CLOSE_SEC = 2.0
_LONGEST_MESSAGE_BYTES = 4096  # a subscriber has nothing to say


class FeedQuery(requests.Query, frozen=True, kw_only=True):
    """What to hear, and from where on."""

    since: Annotated[str, Meta(description="A cursor: what came after it, without a snapshot, while that is still held.")] = ""
    topics: (
        Annotated[str, Meta(description=f"Some of {', '.join(TOPICS)}, progress, with commas between. Default: all.")] | None
    ) = None


@dataclass(frozen=True, slots=True)
class _Feeds:
    """The feeds that are open."""

    open: set[web.WebSocketResponse] = field(default_factory=set)


_OPEN = web.AppKey("open_feeds", _Feeds)


def set_up(app: web.Application) -> None:
    """Give ``app`` what the feed needs, and end every feed when it shuts down."""
    app[_OPEN] = _Feeds()
    app.on_shutdown.append(_close_all)


async def _close_all(app: web.Application) -> None:
    feeds = [feed.close(code=WSCloseCode.GOING_AWAY, message=b"The service ends.") for feed in tuple(app[_OPEN].open)]
    await asyncio.gather(*feeds, return_exceptions=True)


async def feed(request: web.Request) -> web.StreamResponse:
    """``GET /api/memory-dumps/ws``: ``since`` resumes after a cursor, ``topics`` narrows."""
    query = requests.query(request.query, FeedQuery)
    topics = _topics(query.topics)
    changes = request.app[keys.CHANGES]
    socket = web.WebSocketResponse(heartbeat=_HEARTBEAT_SEC, timeout=_CLOSE_SEC, max_msg_size=_LONGEST_MESSAGE_BYTES)
    if not socket.can_prepare(request).ok:
        raise ProblemError("upgrade-required", "This is a websocket: ask for an upgrade.", headers={"Upgrade": "websocket"})
    await socket.prepare(request)
    request.app[_OPEN].open.add(socket)
    try:
        after, first = changes.number_of(query.since), None
        if after is None:
            after, first = changes.newest, _first(request.app[keys.VIEW].snapshot(), topics)
        with changes.subscribe(after) as subscription:
            await _serve(request, socket, subscription, topics, first)
    finally:
        request.app[_OPEN].open.discard(socket)
    return socket


def _topics(text: str | None) -> frozenset[str]:
    if text is None:
        return frozenset((*TOPICS, "progress"))
    known = ", ".join((*TOPICS, "progress"))
    if not text.strip():
        raise RequestError(f"topics names none; leave it out for all of them, or name some of {known}.", place="topics")
    topics = frozenset(part.strip() for part in text.split(","))
    unknown = sorted(topics - {*TOPICS, "progress"})
    if unknown:
        raise RequestError(f"There is no topic {unknown[0]!r}; there are {known}.", place="topics")
    return topics


async def _serve(
    request: web.Request, socket: web.WebSocketResponse, subscription: Subscription, topics: frozenset[str], first: str | None
) -> None:
    """Send until either side has enough. One that does not keep up is closed, even while a send to it hangs."""
    sending = asyncio.create_task(_send(request, socket, subscription, topics, first), name="feed sends")
    hearing = asyncio.create_task(_hear(socket), name="feed hears")
    losing = asyncio.create_task(subscription.lost.wait(), name="feed is lost")
    try:
        await asyncio.wait({sending, hearing, losing}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (sending, hearing, losing):
            task.cancel()
        results = await asyncio.gather(sending, hearing, losing, return_exceptions=True)
    if subscription.lost.is_set() or isinstance(results[0], SubscriberLost):
        log.warning("subscriber_too_slow", remote=request.remote)
        await _close(request, socket)
    elif isinstance(results[0], Exception) and not isinstance(results[0], ConnectionError):
        raise results[0]


async def _close(request: web.Request, socket: web.WebSocketResponse) -> None:
    """Say why, if it still can be said; then the connection goes, whatever is still unsent."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_CLOSE_SEC):
            await socket.close(code=TOO_SLOW, message=b"Too slow; connect again.")
    if request.transport is not None:
        request.transport.abort()


async def _send(
    request: web.Request, socket: web.WebSocketResponse, subscription: Subscription, topics: frozenset[str], first: str | None
) -> None:
    cursor = request.app[keys.CHANGES].cursor
    if first is not None:
        await socket.send_str(first)
    while True:
        changes, advances = await subscription.next()
        for change in changes:
            if change.topic in topics:
                await socket.send_str(_encoded(change, cursor(change.number)))
        if "progress" in topics:
            for advance in advances:
                await socket.send_str(encode(ProgressMessage.of(advance)).decode())


_MEMBERS = {topic: topic for topic in TOPICS} | {"job": "jobs", "record": "records"}


def _first(snapshot: Snapshot, topics: frozenset[str]) -> str:
    """The snapshot without what nobody asked for."""
    unwanted = {member for topic, member in _MEMBERS.items() if topic not in topics}
    if not unwanted:
        return snapshot.encoded
    members = msgspec.structs.asdict(snapshot.message)
    return encode({"type": "snapshot", **{name: value for name, value in members.items() if name not in unwanted}}).decode()


@functools.lru_cache(maxsize=64)
def _encoded(change: Change, cursor: str) -> str:
    """A change as text, made once for all subscribers; changes are told apart by identity."""
    return encode({"type": change.topic, "cursor": cursor, change.topic: noun(change)}).decode()


async def _hear(socket: web.WebSocketResponse) -> None:
    """Nothing a subscriber says means anything but its going."""
    async for message in socket:
        if message.type is WSMsgType.ERROR:
            return
