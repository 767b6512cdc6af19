"""``GET …/records.csv``: all records that match, as one long answer that is made while it is read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from aiohttp import web

from app.web import asked, requests, spreadsheet
from app.web.sight import Sight
from app.web.streamed import streamed


async def records_csv(request: web.Request) -> web.StreamResponse:
    """Each piece is made on a thread, and only when the one before has been taken."""
    query = requests.query(request.query, asked.CsvQuery)
    chunks = Sight(request).chunks(query.filters(), query.order)
    content_type = f"{spreadsheet.CONTENT_TYPE}; charset=utf-8; header=present"
    return await streamed(request, pieces_of(chunks), content_type, "memory-dumps.csv")


async def pieces_of(chunks: AsyncIterator[str]) -> AsyncGenerator[bytes]:
    """The header with the first rows, then a thousand rows at a time; while one is made, the next is read."""
    reading = asyncio.create_task(_next(chunks))
    begin = spreadsheet.header()
    try:
        while records := await reading:
            reading = asyncio.create_task(_next(chunks))
            yield begin + await asyncio.to_thread(spreadsheet.rows_of, records)
            begin = b""
        if begin:
            yield begin
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def _next(chunks: AsyncIterator[str]) -> str:
    """Nothing is the end. (``anext`` with a default cannot be made a task of in Python 3.11.)"""
    try:
        return await anext(chunks)
    except StopAsyncIteration:
        return ""
