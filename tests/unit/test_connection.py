"""A connection of a client."""

from __future__ import annotations

import asyncio
import socket

from aiohttp import web

from app.web.connection import listen, told_when_gone

GOES_WITHIN_SEC = 20


async def test_whoever_answers_is_told_when_the_client_goes() -> None:
    begun, gone = asyncio.Event(), asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        with told_when_gone(request, gone.set):
            begun.set()
            await gone.wait()
        return web.Response()

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = await listen(runner, listening)
        _, writer = await asyncio.open_connection(*listening.getsockname())
        writer.write(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        async with asyncio.timeout(GOES_WITHIN_SEC):
            await begun.wait()
            assert not gone.is_set()
            writer.close()
            await gone.wait()
        server.close()
        await runner.cleanup()
