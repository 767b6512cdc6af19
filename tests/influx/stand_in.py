"""A server that the official client of InfluxDB 3 takes for InfluxDB 3 Core, in this process or one of its own:

    python -m tests.influx.stand_in --port 8181 --token secret

``tests/influx/__init__.py`` says what is like Core and what is not.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self

from tests.influx.flight import FlightHalf
from tests.influx.front import Front, bound
from tests.influx.store import Store
from tests.influx.switches import Switches
from tests.influx.web import HttpHalf

TOKEN = "stand-in-token"
PATIENCE_SEC = 10.0


class StandIn:
    """Runs from its making to ``close()``. Every switch may be used from any thread, and has worked when it returns.

    ``wal_sec`` is how long a write waits to be confirmed, and to be queryable: Core's is 1. ``seed`` decides which of
    several points with the same tags and time a query sees. ``tags_fixed``: see ``schema.py``.
    """

    def __init__(
        self,
        *,
        token: str = TOKEN,
        database: str = "vmstats",
        port: int = 0,
        wal_sec: float = 0.0,
        file_limit: int = 432,
        database_limit: int = 5,
        tags_fixed: bool = True,
        seed: int = 0,
    ) -> None:
        self.token, self.database = token, database
        self._keeper = bound(port)
        self.port: int = self._keeper.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._switches = Switches(token)
        self._store = Store(file_limit=file_limit, database_limit=database_limit, tags_fixed=tags_fixed, seed=seed)
        self._flight = FlightHalf(self._store, self._switches)
        self._http = HttpHalf(self._store, self._switches, wal_sec=wal_sec)
        self._front = Front(self.port, self._flight.port, self._http.application)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="influx-stand-in")
        self._thread.start()
        self._do(self._front.start())

    def down(self) -> None:
        """Open connections are reset and new ones refused; the port stays ours."""
        self._do(self._front.down())

    def crash(self) -> None:
        """The same, and writes that were not confirmed yet are lost, as after ``kill -9``."""
        self._do(self._crash())

    def up(self) -> None:
        """Back at the same port, with all that was confirmed."""
        self._do(self._front.up())

    def slow(self, seconds: float) -> None:
        """Every request is carried out at once, but answered only this much later: the client may have given up by then."""
        self._switches.slow_sec = seconds

    def failing(self, status: int) -> None:
        """No request is carried out; writes get this HTTP status, queries the gRPC code that is nearest to it."""
        self._switches.failing_status = status

    def refusing(self) -> None:
        """The right token is refused as well, as after it was revoked."""
        self._switches.refusing = True

    def well(self) -> None:
        """All switches back, and up."""
        self._switches.reset()
        self.up()

    @property
    def requests(self) -> int:
        """Requests that arrived since the start, of both protocols, answered or not."""
        return self._switches.requests

    def wait_for_requests(self, count: int) -> None:
        """Until this many arrived since the start."""
        if not self._switches.wait_for_requests(count, PATIENCE_SEC):
            raise TimeoutError(f"{self.requests} of {count} requests arrived")

    def wait_for_points(self, count: int, table: str = "mem_dumps") -> None:
        """Until this many different points of our database can be queried."""
        if not self._store.wait_for_points(self.database, table, count, PATIENCE_SEC):
            raise TimeoutError(f"fewer than {count} points came")

    def close(self) -> None:
        if self._loop.is_closed():
            return
        self._switches.end()
        try:
            self._do(self._end())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self._flight.shutdown()
            self._keeper.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    async def _crash(self) -> None:
        self._http.crash()
        await self._front.down()

    async def _end(self) -> None:
        self._http.end()
        await self._front.close()

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.influx.stand_in", description="A stand-in for InfluxDB 3 Core that keeps all in memory, until Ctrl-C."
    )
    parser.add_argument("--port", type=int, default=8181)
    parser.add_argument("--token", default=TOKEN)
    parser.add_argument("--wal-sec", type=float, default=1.0, help="how long a write waits to be confirmed")
    parser.add_argument("--file-limit", type=int, default=432, help="Parquet files, each of ten minutes, that a query may touch")
    given = parser.parse_args()
    ending = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ending.set())
    with StandIn(token=given.token, port=given.port, wal_sec=given.wal_sec, file_limit=given.file_limit) as influx:
        print(influx.url, flush=True)
        ending.wait()


if __name__ == "__main__":
    main()
