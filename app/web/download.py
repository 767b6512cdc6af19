"""``GET …/records.csv``: all records that match, as one long answer that is made while it is read."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import UTC, datetime

import structlog
from aiohttp import web

from app.errors import StateError
from app.model import DumpRecord
from app.web import asked, requests, spreadsheet
from app.web.sight import Sight

log = structlog.get_logger()


async def records_csv(request: web.Request) -> web.StreamResponse:
    """Each piece is made on a thread, and only when the one before has been taken. If reading fails in the middle the
    connection is cut off, so that nobody takes a part for the whole."""
    query = requests.query(request.query, asked.CsvQuery)
    chunks = Sight(request).chunks(query.filters(), query.order)
    async with contextlib.aclosing(pieces_of(chunks)) as pieces:
        first = await anext(pieces)  # what is wrong so far is answered with a problem document
        response = web.StreamResponse(
            headers={
                "Content-Type": f"{spreadsheet.CONTENT_TYPE}; charset=utf-8; header=present",
                "Content-Disposition": f'attachment; filename="memory-dumps-{datetime.now(UTC):%Y-%m-%d}.csv"',
            }
        )
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        try:
            await response.write(first)
            async for piece in pieces:
                await response.write(piece)
            await response.write_eof()
        except ConnectionError:
            log.info("download_ended_by_client", path=request.path)
        except StateError as error:
            log.error("download_broken_off", path=request.path, code=error.code, message=str(error))
            if request.transport is not None:
                request.transport.abort()
    return response


async def pieces_of(chunks: AsyncIterator[tuple[DumpRecord, ...]]) -> AsyncGenerator[bytes]:
    """The header with the first rows, then some thousand rows at a time; while one is made, the next is read."""
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


async def _next(chunks: AsyncIterator[tuple[DumpRecord, ...]]) -> tuple[DumpRecord, ...]:
    """None are the end. (``anext`` with a default cannot be made a task of in Python 3.11.)"""
    try:
        return await anext(chunks)
    except StopAsyncIteration:
        return ()
