"""Bodies are read in one place, before any handler, and only so long: who sends one byte a minute would hold a connection,
and a login needs no login."""

from __future__ import annotations

import asyncio

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from app.web.errors import ProblemError

LIMIT_SEC = 10.0


def read_within(limit_sec: float = LIMIT_SEC) -> Middleware:
    """A middleware that reads the whole body; handlers find it read. Behind the gate: what that refuses is not read at all."""

    @web.middleware
    async def read(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.can_read_body:
            try:
                async with asyncio.timeout(limit_sec):
                    await request.read()
            except TimeoutError:
                raise ProblemError("request-too-slow", f"The body did not come within {limit_sec:g} seconds.") from None
        return await handler(request)

    return read
