"""The half of the stand-in that speaks HTTP: writing, deleting a database, ``/health``, ``/ping``.

Paths, statuses and bodies as in ``influxdb3_server/src/http.rs`` of InfluxDB 3 Core. Two of them matter to whoever writes:

* ``/api/v2/write``, the client's default, never takes a part: one bad line refuses all, and the answer does **not say which**.
* ``/api/v3/write_lp`` takes the good lines and names the bad ones, with status 400 in spite of what it took. With
  ``accept_partial=false`` it names the first bad one, under a text that the client 0.21 does not take for a partial write.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict

from aiohttp import web

from tests.influx.precision import AUTO, BY_PARAMETER
from tests.influx.schema import LineError
from tests.influx.store import NoDatabase, Refused, Store
from tests.influx.switches import Switches

VERSION = "3.11.5"
_FLAGS = {"true": True, "false": False}
_V2_CODES = {404: "not found", 413: "request too large"}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class HttpHalf:
    def __init__(self, store: Store, switches: Switches, *, wal_sec: float) -> None:
        self._store, self._switches, self._wal_sec = store, switches, wal_sec
        self._flushing: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ending = asyncio.Event()
        self.application = web.Application(middlewares=[self._guard], client_max_size=10 * 2**20)
        self.application.add_routes(
            [
                web.post("/api/v2/write", self._write_v2),
                web.post("/api/v3/write_lp", self._write_v3),
                web.delete("/api/v3/configure/database", self._delete_database),
                web.get("/health", self._health),
                web.get("/api/v1/health", self._health),
                web.route("*", "/ping", self._ping),
            ]
        )

    def crash(self) -> None:
        """What no flush of the WAL has taken yet is lost, and whoever waits for one waits in vain."""
        if self._timer is not None and self._flushing is not None:
            self._timer.cancel()
            self._flushing.cancel()
        self._timer = self._flushing = None
        self._store.forget_pending()

    def end(self) -> None:
        """Nobody waits any longer."""
        self.crash()
        self._ending.set()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self._switches.request_arrived()
        try:
            if status := self._switches.failing_status:
                return web.json_response({"error": f"the stand-in was told to fail with {status}"}, status=status)
            if refusal := self._switches.refusal(request.headers.get("Authorization")):
                return web.json_response({"error": refusal[1]}, status=refusal[0])
            return await handler(request)
        finally:
            await self._wait_while_slow()

    async def _wait_while_slow(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ending.wait(), self._switches.slow_sec)

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response(text="OK")

    async def _ping(self, request: web.Request) -> web.Response:
        headers = {"x-influxdb-version": VERSION, "x-influxdb-build": "Core"}
        return web.json_response({"version": VERSION, "revision": "stand-in", "process_id": "stand-in"}, headers=headers)

    async def _delete_database(self, request: web.Request) -> web.Response:
        try:
            self._store.delete(request.query.get("db", ""))
        except NoDatabase:
            return web.Response(text="not found", status=404)
        return web.Response()

    async def _write_v2(self, request: web.Request) -> web.Response:
        try:
            errors = await self._write(request, request.query.get("bucket", ""), "ns", accept_partial=False, no_sync=False)
        except Refused as refused:
            code = _V2_CODES.get(refused.status, "invalid")
            return web.json_response({"code": code, "message": f"write buffer error: {refused}"}, status=refused.status)
        if errors:
            return web.json_response(
                {"code": "invalid", "message": "write buffer error: parsing for line protocol failed"}, status=400
            )
        return web.Response(status=204)

    async def _write_v3(self, request: web.Request) -> web.Response:
        try:
            accept_partial, no_sync = _flag(request, "accept_partial", True), _flag(request, "no_sync", False)
            errors = await self._write(request, request.query.get("db", ""), "auto", accept_partial=accept_partial, no_sync=no_sync)
        except Refused as refused:
            return web.json_response({"error": str(refused)}, status=refused.status)
        if not errors:
            return web.Response(status=204)
        body: dict[str, object]
        if accept_partial:
            body = {"error": "partial write of line protocol occurred", "data": [asdict(error) for error in errors]}
        else:
            body = {"error": "line protocol parsing error", "data": asdict(errors[0])}
        return web.json_response(body, status=400)

    async def _write(
        self, request: web.Request, database: str, precision: str, *, accept_partial: bool, no_sync: bool
    ) -> list[LineError]:
        try:
            body = (await request.read()).decode()  # aiohttp has inflated it
        except UnicodeDecodeError as broken:
            raise Refused(400, f"body content is not valid utf8: {broken}") from None
        named = request.query.get("precision", precision)
        if named not in BY_PARAMETER:
            raise Refused(400, f"unknown precision: {named}")
        errors = self._store.write(
            database, body, precision=BY_PARAMETER.get(named, AUTO), now_ns=time.time_ns(), accept_partial=accept_partial
        )
        flushed = self._flush_soon()
        if not no_sync:
            await asyncio.shield(flushed)
        return errors

    def _flush_soon(self) -> asyncio.Future[None]:
        """One flush for all writes that come before it, as the WAL does."""
        if self._flushing is None:
            loop = asyncio.get_running_loop()
            self._flushing = loop.create_future()
            self._timer = loop.call_later(self._wal_sec, self._flush)
        return self._flushing

    def _flush(self) -> None:
        flushed, self._flushing, self._timer = self._flushing, None, None
        self._store.flush()
        if flushed is not None:
            flushed.set_result(None)


def _flag(request: web.Request, name: str, default: bool) -> bool:
    text = request.query.get(name)
    if text is None:
        return default
    if text not in _FLAGS:
        raise Refused(400, "serde error: provided string was not `true` or `false`")
    return _FLAGS[text]
