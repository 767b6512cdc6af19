"""A connection of a client."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.typedefs import Handler

from app.web.connection import HEAD_SEC, IDLE_SEC, Connection, listen, told_when_gone

GOES_WITHIN_SEC = 20
HEAD = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"


@contextlib.asynccontextmanager
async def answered(answer: Handler, *, head_sec: float = HEAD_SEC) -> AsyncIterator[tuple[str, int]]:
    """Where ``answer`` answers."""
    app = web.Application()
    app.router.add_route("*", "/", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = await listen(runner, listening, head_sec=head_sec)
        try:
            async with asyncio.timeout(GOES_WITHIN_SEC):
                yield listening.getsockname()
        finally:
            server.close()
            await runner.cleanup()


async def test_whoever_answers_is_told_when_the_client_goes() -> None:
    begun, gone = asyncio.Event(), asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        with told_when_gone(request, gone.set):
            begun.set()
            await gone.wait()
        return web.Response()

    async with answered(answer) as address:
        _, writer = await asyncio.open_connection(*address)
        writer.write(HEAD)
        await begun.wait()
        assert not gone.is_set()
        writer.close()
        await gone.wait()


async def hello(_: web.Request) -> web.StreamResponse:
    return web.Response(text="hello")


@pytest.mark.parametrize("said", [b"", HEAD[:20], HEAD[:-2]])
async def test_who_does_not_say_what_they_want_loses_the_connection(said: bytes) -> None:
    async with answered(hello, head_sec=0.1) as address:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(said)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()


async def test_who_has_said_it_is_waited_for_however_long_the_rest_takes() -> None:
    head_sec = 0.1

    async def slowly(request: web.Request) -> web.StreamResponse:
        if request.method == "POST":
            return web.Response(text=f"{len(await request.read())}")
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str(await socket.receive_str())
        return socket

    def passed() -> Any:
        """After a new connection of that time would be over."""
        over = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(3 * head_sec, over.set_result, None)
        return over

    async with answered(slowly, head_sec=head_sec) as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 4\r\n\r\n12")
        async with aiohttp.ClientSession() as session, session.ws_connect(f"http://{host}:{port}/") as websocket:
            await passed()
            writer.write(b"34")
            assert (await reader.readline(), (await reader.readuntil(b"\r\n\r\n4"))[-1:]) == (b"HTTP/1.1 200 OK\r\n", b"4")
            await passed()
            writer.write(b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 0\r\n\r\n")  # an idle one is another matter
            assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
            await websocket.send_str("still there")
            assert await websocket.receive_str() == "still there"
        writer.close()


async def test_a_connection_on_which_nothing_is_asked_any_more_is_kept_longer_than_a_proxy_keeps_it() -> None:
    kept: list[float] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        assert isinstance(request.protocol, Connection)
        kept.append(request.protocol.keepalive_timeout)
        return web.Response()

    async with answered(answer) as (host, port), aiohttp.ClientSession() as session, session.get(f"http://{host}:{port}/"):
        assert 60 < kept[0] == IDLE_SEC < 100
