"""The table of records as it is streamed: no faster than it is read, and never a part that looks like the whole."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import cast

import aiohttp
import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.typedefs import Handler

from app.access import Identity
from app.errors import StateUnwritable
from app.records.index import RecordIndex
from app.records.search import Filters
from app.web import download, errors, keys
from tests.unit.test_lines import MANIFEST

PATH = "/api/memory-dumps/records.csv"
CHUNK = msgspec.json.encode([MANIFEST] * 2000).decode()
Chunks = AsyncIterator[str]


@pytest.fixture(autouse=True)
async def _threads_end() -> AsyncIterator[None]:
    yield
    await asyncio.get_running_loop().shutdown_default_executor()


class FakeIndex:
    """Gives out what a test wants, and counts what was taken."""

    def __init__(self, chunks: Callable[[], Chunks]) -> None:
        self._chunks = chunks
        self.taken = 0
        self.ended = asyncio.Event()

    async def chunks(self, _filters: Filters, _order: str) -> Chunks:
        try:
            async for records in self._chunks():
                self.taken += 1
                yield records
        finally:
            self.ended.set()


@web.middleware
async def _let_in(request: web.Request, handler: Handler) -> web.StreamResponse:
    request[keys.IDENTITY] = Identity("admin", "token")
    response: web.StreamResponse = await handler(request)
    return response


@contextlib.asynccontextmanager
async def serving(index: FakeIndex) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    app = web.Application(middlewares=[errors.answer_problems, _let_in])
    app[keys.INDEX] = cast(RecordIndex, index)
    app.router.add_get(PATH, download.records_csv, allow_head=True)
    async with TestClient(TestServer(app)) as client:
        yield client


async def endless() -> Chunks:
    while True:
        yield CHUNK


async def failing_later() -> Chunks:
    yield CHUNK
    raise StateUnwritable("gone")


async def failing_at_once() -> Chunks:
    raise StateUnwritable("gone")
    yield "[]"


async def test_a_client_that_goes_away_ends_it() -> None:
    index = FakeIndex(endless)
    async with serving(index) as client:
        answer = await client.get(PATH)
        assert await answer.content.readexactly(7) == b"dump_id"
        answer.close()
        await asyncio.wait_for(index.ended.wait(), 20)


async def test_it_is_read_one_piece_ahead_of_what_was_taken() -> None:
    index = FakeIndex(endless)
    async with contextlib.aclosing(download.pieces_of(index.chunks(Filters(), "desc"))) as pieces:
        for number in range(1, 5):
            await anext(pieces)
            assert index.taken <= number + 1
    await asyncio.wait_for(index.ended.wait(), 20)


async def test_what_breaks_off_in_the_middle_is_not_taken_for_the_whole() -> None:
    async with serving(FakeIndex(failing_later)) as client:
        answer = await client.get(PATH)
        assert answer.status == 200
        with pytest.raises(aiohttp.ClientError):
            await answer.read()


async def test_what_cannot_even_begin_is_a_problem() -> None:
    async with serving(FakeIndex(failing_at_once)) as client, client.get(PATH) as answer:
        assert (answer.status, (await answer.json(content_type=None))["code"]) == (503, "state-unwritable")


async def test_asking_for_the_head_alone_reads_no_more_than_the_first_piece() -> None:
    index = FakeIndex(endless)
    async with serving(index) as client, client.head(PATH) as answer:
        assert (answer.status, answer.content_type) == (200, "text/csv")
        await asyncio.wait_for(index.ended.wait(), 20)
        assert index.taken <= 2
