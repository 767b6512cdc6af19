"""Bodies are read before any handler, and only so long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from app.web import bodies, errors, requests


async def echo(request: web.Request) -> web.Response:
    return web.Response(body=await request.read())


def client(limit_sec: float) -> TestClient[web.Request, web.Application]:
    app = web.Application(
        middlewares=[errors.answer_problems, bodies.read_within(limit_sec)], client_max_size=requests.MAX_BODY_BYTES
    )
    app.router.add_post("/api/echo", echo)
    return TestClient(TestServer(app))


async def test_a_body_that_does_not_end_in_time_is_a_problem() -> None:
    ended = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"a"
        await ended.wait()

    async with client(0.05) as one, one.post("/api/echo", data=slow()) as answer:
        document = await answer.json(content_type=None)
        ended.set()
        assert (answer.status, document["code"]) == (408, "request-too-slow")
        assert answer.headers["Connection"] == "close"


async def test_handlers_find_the_body_read() -> None:
    async with client(10) as one, one.post("/api/echo", data=b"all of it") as answer:
        assert await answer.read() == b"all of it"


async def test_a_body_that_is_too_long_is_refused_before_the_handler() -> None:
    async with client(10) as one, one.post("/api/echo", data=b" " * (requests.MAX_BODY_BYTES + 1)) as answer:
        assert (answer.status, (await answer.json(content_type=None))["code"]) == (413, "body-too-large")
