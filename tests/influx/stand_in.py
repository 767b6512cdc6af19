"""A server that the official client of InfluxDB 3 takes for InfluxDB 3 Core, in this process or one of its own.

    python -m tests.influx.stand_in --port 8181 --token secret

One port speaks both protocols, as Core's does: the front looks at the first bytes of each connection, which are
``PRI * HTTP/2.0`` for gRPC, and passes the connection on to the half that speaks it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import socket
import struct
import sys
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from tests.influx.flight import FlightHalf
from tests.influx.store import Store
from tests.influx.switches import Switches
from tests.influx.web import HttpHalf

_HTTP2_PREFACE = b"PRI * HTTP/2.0"
_CHUNK_BYTES = 65_536
_RESET = struct.pack("ii", 1, 0)


class StandIn:
    """Runs from its making to ``close()``; every switch may be used from any thread and has worked when it returns."""

    def __init__(
        self,
        *,
        token: str = "stand-in-token",
        database: str = "vmstats",
        port: int = 0,
        wal_sec: float = 0.0,
        file_limit: int = 432,
        database_limit: int = 5,
        seed: int = 0,
    ) -> None:
        self.token, self.database = token, database
        self._switches = Switches(token)
        self._store = Store(file_limit=file_limit, database_limit=database_limit, seed=seed)
        # Holds the port while the listener is away: bound, but never listening.
        self._keeper = _bound(port)
        self.port: int = self._keeper.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._flight = FlightHalf(self._store, self._switches)
        self._front = _Front(self.port, self._flight.port, HttpHalf(self._store, self._switches, wal_sec=wal_sec))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="influx-stand-in")
        self._thread.start()
        self._do(self._front.start())

    def down(self) -> None:
        """Open connections are reset, new ones refused; the port stays ours."""
        self._do(self._front.down())

    def up(self) -> None:
        """Back at the same port, with all that was written."""
        self._do(self._front.up())

    def slow(self, seconds: float) -> None:
        """Every answer comes this much later."""
        self._switches.slow_sec = seconds

    def failing(self, status: int) -> None:
        """Every request is answered with this HTTP status, every query with the gRPC code that is nearest to it."""
        self._switches.failing_status = status

    def refusing(self) -> None:
        """The right token is refused as well, as after it was revoked."""
        self._switches.refusing = True

    def well(self) -> None:
        """All switches back, and up."""
        self._switches.reset()
        self.up()

    def close(self) -> None:
        if self._loop.is_closed():
            return
        self._switches.ending.set()
        self._do(self._front.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._flight.shutdown()
        self._keeper.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()


class _Front:
    """The one port. All methods run in the loop's thread."""

    def __init__(self, port: int, flight_port: int, http: HttpHalf) -> None:
        self._port, self._flight_port = port, flight_port
        self._runner = web.AppRunner(http.application, handle_signals=False, access_log=None, shutdown_timeout=0)
        self._http_port = 0
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def start(self) -> None:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self._http_port = self._runner.addresses[0][1]
        await self.up()

    async def up(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, sock=_bound(self._port))

    async def down(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for task, writer in list(self._connections.items()):
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def close(self) -> None:
        await self.down()
        await self._runner.cleanup()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = writer
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # either side went away, or we were told to
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
            async with asyncio.TaskGroup() as both:
                both.create_task(_pass_on(reader, inner_writer))
                both.create_task(_pass_on(inner_reader, writer))
        except* OSError:
            pass
        finally:
            inner_writer.transport.abort()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(_CHUNK_BYTES):
        writer.write(chunk)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


def _bound(port: int) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(("127.0.0.1", port))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.influx.stand_in", description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=8181)
    parser.add_argument("--token", default="stand-in-token")
    parser.add_argument("--wal-sec", type=float, default=1.0, help="a confirmed write waits this long for the WAL")
    parser.add_argument("--file-limit", type=int, default=432)
    given = parser.parse_args()
    ending = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ending.set())
    with StandIn(token=given.token, port=given.port, wal_sec=given.wal_sec, file_limit=given.file_limit) as influx:
        print(influx.url, flush=True)
        ending.wait()
    with contextlib.suppress(OSError):
        sys.stdout.flush()


if __name__ == "__main__":
    main()
