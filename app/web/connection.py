"""What aiohttp would answer by itself, in our own words: a request that is no HTTP, and an ``Expect`` that nobody meets.

Neither comes as far as the middlewares. aiohttp has no option for the first; ``RequestHandler.handle_error`` is where its
answer is made, and its listening sites always make their own ``RequestHandler``: so this one listens by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator

import structlog
from aiohttp import hdrs, web
from aiohttp.http_exceptions import LineTooLong

from app.web import errors
from app.web.address import shown
from app.web.envelope import dress
from app.web.errors import ProblemError

log = structlog.get_logger()

_MET = "100-continue"
HANDSHAKE_SEC = 10.0
HEAD_SEC = 15.0
"""So long a new connection may take for the head of its first request: one that says nothing must not keep its place for long."""

IDLE_SEC = 75.0
"""So long one is kept on which nothing is asked any more. Longer than nginx and others keep theirs to us (60 s), so that it is they
who end it: what they send on one that we end just then would be lost."""

LINE_BYTES = 32 * 1024
"""Of a request's first line: a name of 4 KiB and a piece to look for, each percent-encoded."""

LINGER_SEC = 2.0
"""So long what still comes of a refused body is dropped, for its sender to read why; then the connection ends."""


class Connection(web.RequestHandler):
    """One connection of a client."""

    tell_gone: Callable[[], None] | None = None
    head_sec = HEAD_SEC
    _no_head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The client has come."""
        super().connection_made(transport)
        self._no_head = asyncio.get_running_loop().call_later(self.head_sec, self._break_off)

    def heard(self) -> None:
        """The whole head of a request has come."""
        if self._no_head is not None:
            self._no_head.cancel()

    def _break_off(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client has gone."""
        self.heard()
        super().connection_lost(exc)
        if self.tell_gone is not None:
            self.tell_gone()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """The answer to what could not be read, or to what failed outside of the middlewares; the connection ends after it.

        Raises ``ConnectionError`` when another answer has begun already.
        """
        super().handle_error(request, status, exc, message)  # which logs it
        answer = _answer(_unreadable(exc) if status < 500 else errors.unexpected(exc))
        answer.force_close()
        return answer


@contextlib.contextmanager
def told_when_gone(request: web.Request, tell: Callable[[], None]) -> Iterator[None]:
    """Call ``tell`` if the client goes during the block.

    aiohttp lets a handler run on then, which is right for most: its option to cancel them would cut a trigger in two.
    """
    connection = _connection_of(request)
    if request.transport is None:
        tell()
    connection.tell_gone = tell
    try:
        yield
    finally:
        connection.tell_gone = None


def _connection_of(request: web.BaseRequest) -> Connection:
    if not isinstance(request.protocol, Connection):
        raise TypeError(f"{request.protocol} was not made by listen()")
    return request.protocol


def _unreadable(error: BaseException | None) -> ProblemError:
    """What was sent is not repeated: it may be a cookie."""
    why = (
        f"a line of it is too long (8190 bytes at most, the first one {LINE_BYTES})"
        if isinstance(error, LineTooLong)
        else "it is not valid HTTP/1.1"
    )
    return ProblemError("request-malformed", f"The request cannot be read: {why}.")


def _answer(problem: ProblemError) -> web.Response:
    answer = errors.as_document(problem)
    dress(answer)
    return answer


def runner_of(app: web.Application, *, shutdown_sec: float) -> web.AppRunner:
    """Not set up yet. ``shutdown_sec`` is how long requests that are being answered may take when it is cleaned up."""
    return web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=shutdown_sec)


async def listen(
    runner: web.AppRunner, listening: socket.socket, tls: ssl.SSLContext | None = None, *, head_sec: float = HEAD_SEC
) -> asyncio.Server:
    """Answer what comes to ``listening``, by ``tls`` if there is one. ``runner`` is set up, and ends the connections when it is
    cleaned up. ``head_sec`` is how long the first head of each may take."""
    server = runner.server
    if server is None:
        raise ValueError("the runner is not set up")
    answer_it = server.request_handler

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        _connection_of(request).heard()
        expect = request.headers.get(hdrs.EXPECT)
        if expect is None or expect.lower() == _MET:
            return await answer_it(request)
        log.info("request", method=request.method, path=shown(request), status=417, remote=request.remote)
        return _answer(ProblemError("expectation-failed", f"This service meets no expectation but {_MET}."))

    server.request_handler = answer
    loop = asyncio.get_running_loop()
    within = None if tls is None else HANDSHAKE_SEC
    return await loop.create_server(
        lambda: _connection(server, loop, head_sec), sock=listening, ssl=tls, ssl_handshake_timeout=within
    )


def _connection(server: web.Server, loop: asyncio.AbstractEventLoop, head_sec: float) -> Connection:
    """Without aiohttp's own log of requests (its types do not know that None means this), and without unpacking of bodies:
    one that is packed would be read before the gate could refuse it."""
    connection = Connection(
        server,
        loop=loop,
        access_log=None,  # type: ignore[arg-type]
        auto_decompress=False,
        lingering_time=LINGER_SEC,
        keepalive_timeout=IDLE_SEC,
        max_line_size=LINE_BYTES,
    )
    connection.head_sec = head_sec
    return connection
