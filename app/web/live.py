"""The live feed over a websocket: a snapshot, then what changes. Who may listen was decided by the gate."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog
from aiohttp import WSCloseCode, WSMsgType, web

from app.changes import SubscriberLost
from app.model import rfc3339
from app.web import keys, requests
from app.web.answers import encode
from app.web.errors import ProblemError
from app.web.messages import Alive
from app.web.sight import Sight
from app.web.subscriber import FeedQuery, Subscriber, subscribe

log = structlog.get_logger()

PATH = "/api/memory-dumps/ws"
TOO_SLOW = 4008
LOGIN_ENDED = 4401
SILENCE_SEC = 5.0
"""The longest: a page cannot see websocket's own pings, and would take a dead connection for a quiet one."""
ASKED_ANEW_SEC = 300.0
"""What a proxy said of somebody holds for so long: it has no way to say that it holds no more."""

_HEARTBEAT_SEC = 20.0
_CLOSE_SEC = 2.0
_LONGEST_MESSAGE_BYTES = 4096  # a subscriber has nothing to say


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
    topics = query.wanted()
    socket = web.WebSocketResponse(heartbeat=_HEARTBEAT_SEC, timeout=_CLOSE_SEC, max_msg_size=_LONGEST_MESSAGE_BYTES)
    if not socket.can_prepare(request).ok:
        raise ProblemError("upgrade-required", "This is a websocket: ask for an upgrade.", headers={"Upgrade": "websocket"})
    # Followed at once: a feed that nobody follows may be gone by the time the socket stands.
    with subscribe(await Sight(request).feed(), query.since, topics) as subscriber:
        await socket.prepare(request)
        request.app[_OPEN].open.add(socket)
        try:
            await _serve(request, socket, subscriber)
        finally:
            request.app[_OPEN].open.discard(socket)
    return socket


async def _serve(request: web.Request, socket: web.WebSocketResponse, subscriber: Subscriber) -> None:
    """Send until either side has enough. One that does not keep up is closed, even while a send to it hangs."""
    sending = asyncio.create_task(_send(socket, subscriber), name="feed sends")
    hearing = asyncio.create_task(_hear(socket), name="feed hears")
    losing = asyncio.create_task(subscriber.lost.wait(), name="feed is lost")
    login_ended = asyncio.Event()
    request[keys.STAY].on_end(login_ended.set)
    ending = asyncio.create_task(login_ended.wait(), name="login of a feed ends")
    tasks = (sending, hearing, losing, ending)
    longest = ASKED_ANEW_SEC if request[keys.IDENTITY].via == "proxy" else None
    try:
        done, _ = await asyncio.wait(tasks, timeout=longest, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    if login_ended.is_set():
        await _close(request, socket, LOGIN_ENDED, b"The login has ended.")
    elif not done:
        await _close(request, socket, TOO_SLOW, b"Connect again, so that the proxy says anew who asks.")
    elif subscriber.lost.is_set() or isinstance(results[0], SubscriberLost):
        log.warning("subscriber_too_slow", remote=request.remote)
        await _close(request, socket, TOO_SLOW, b"Too slow; connect again.")
    elif isinstance(results[0], Exception) and not isinstance(results[0], ConnectionError):
        raise results[0]


async def _close(request: web.Request, socket: web.WebSocketResponse, code: int, why: bytes) -> None:
    """Say why, if it still can be said; then the connection goes, whatever is still unsent."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_CLOSE_SEC):
            await socket.close(code=code, message=why)
    if request.transport is not None:
        request.transport.abort()


async def _send(socket: web.WebSocketResponse, subscriber: Subscriber) -> None:
    clock = asyncio.get_running_loop().time
    await socket.send_str(subscriber.first or _alive())
    while True:
        news = await subscriber.next(clock() + SILENCE_SEC)
        for one in news:
            await socket.send_str(subscriber.text_of(one))
        if not news:
            await socket.send_str(_alive())


def _alive() -> str:
    return encode(Alive(now=rfc3339(datetime.now(UTC)))).decode()


async def _hear(socket: web.WebSocketResponse) -> None:
    """Nothing a subscriber says means anything but its going."""
    async for message in socket:
        if message.type is WSMsgType.ERROR:
            return
