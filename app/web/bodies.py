"""Bodies are read in one place, before any handler, and only so long: who sends one byte a minute would hold a connection,
and a login needs no login."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from app.errors import RequestError
from app.web.errors import ProblemError

LIMIT_SEC = 10.0
_UTF_8 = ("utf-8", "utf8")


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


async def form_of(request: web.Request) -> Mapping[str, str]:
    """What was filled into a form. Raises ``RequestError`` unless it is UTF-8.

    The charset is looked at before anything is read by it: Python knows some that fail in ways of their own, and some that make
    of bytes what is no text.
    """
    try:
        form = await request.post() if (request.charset or "utf-8").lower() in _UTF_8 else None
    except UnicodeDecodeError:
        form = None
    if form is None:
        raise RequestError("The form cannot be read: it is not UTF-8.", place="$")
    return {name: value for name, value in form.items() if isinstance(value, str)}
