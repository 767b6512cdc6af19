"""A long answer that is made while it is read, as a file to keep."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from datetime import UTC, datetime

import structlog
from aiohttp import web

from app.errors import StateError

log = structlog.get_logger()


async def streamed(request: web.Request, making: AsyncGenerator[bytes], content_type: str, name: str) -> web.StreamResponse:
    """What ``making`` yields; ``name`` gets the day and, as its suffix, what stands behind its last dot.

    What is wrong before the first piece is raised, and so answered with a problem document. If reading fails in the middle the
    connection is cut off, so that nobody takes a part for the whole.
    """
    stem, _, suffix = name.rpartition(".")
    async with contextlib.aclosing(making) as pieces:
        first = await anext(pieces, b"")
        disposition = f'attachment; filename="{stem}-{datetime.now(UTC):%Y-%m-%d}.{suffix}"'
        response = web.StreamResponse(headers={"Content-Type": content_type, "Content-Disposition": disposition})
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
