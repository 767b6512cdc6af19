"""One port for two protocols, as Core has it.

The first bytes of a connection are ``PRI * HTTP/2.0`` for gRPC; it is passed on to the half that speaks it, which listens on
an ephemeral port of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

from aiohttp import web

_HTTP2_PREFACE = b"PRI * HTTP/2.0"
_CHUNK_BYTES = 65_536
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def bound(port: int) -> socket.socket:
    """Two such sockets can share a port: one that only holds it, and one that listens and can go and come back."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        made.bind(("127.0.0.1", port))
    except OSError:
        made.close()
        raise
    return made


class Front:
    """All methods run in the thread of the event loop."""

    def __init__(self, port: int, flight_port: int, application: web.Application) -> None:
        self._port, self._flight_port, self._http_port = port, flight_port, 0
        self._runner = web.AppRunner(application, handle_signals=False, access_log=None, shutdown_timeout=0)
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def start(self) -> None:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self._http_port = self._runner.addresses[0][1]
        await self.up()

    async def up(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, sock=bound(self._port))

    async def down(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        connections = dict(self._connections)
        for task, writer in connections.items():
            _reset(writer)
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def close(self) -> None:
        await self.down()
        await self._runner.cleanup()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or self._server is None:  # it came while we went down
            _reset(writer)
            return
        self._connections[task] = writer
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # either side went away, or we went down
        finally:
            del self._connections[task]
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = b""
        while len(first) < len(_HTTP2_PREFACE) and _HTTP2_PREFACE.startswith(first):
            if not (more := await reader.read(_CHUNK_BYTES)):
                return
            first += more
        port = self._flight_port if first.startswith(_HTTP2_PREFACE) else self._http_port
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            inner_writer.write(first)
            async with asyncio.TaskGroup() as both_ways:
                both_ways.create_task(_pass_on(reader, inner_writer))
                both_ways.create_task(_pass_on(inner_reader, writer))
        except* OSError:
            pass  # as above
        finally:
            inner_writer.transport.abort()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(_CHUNK_BYTES):
        writer.write(chunk)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):  # the other side has closed it already
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    writer.transport.abort()
