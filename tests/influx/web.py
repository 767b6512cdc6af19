"""The half of the stand-in that speaks HTTP: writing, ``/health``, ``/ping``.

Paths, statuses and bodies as in ``influxdb3_server/src/http.rs`` of InfluxDB 3 Core.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict

from aiohttp import web

from tests.influx.store import LineError, Refused, Store
from tests.influx.switches import Switches

VERSION = "3.11.5"
_UNITS_NS = {
    "ns": 1, "n": 1, "nanosecond": 1, "u": 10**3, "us": 10**3, "microsecond": 10**3,
    "ms": 10**6, "millisecond": 10**6, "s": 10**9, "second": 10**9,
}  # fmt: skip
_FLAGS = {"true": True, "false": False}


class HttpHalf:
    def __init__(self, store: Store, switches: Switches, *, wal_sec: float) -> None:
        self._store, self._switches, self._wal_sec = store, switches, wal_sec
        self._flushing: asyncio.Future[None] | None = None
        self.application = web.Application(middlewares=[self._guard], client_max_size=10 * 2**20)
        self.application.add_routes(
            [
                web.post("/api/v2/write", self._write_v2),
                web.post("/api/v3/write_lp", self._write_v3),
                web.get("/health", self._health),
                web.get("/ping", self._ping),
                web.post("/ping", self._ping),
            ]
        )

    @web.middleware
    async def _guard(self, request: web.Request, handler: web.Handler) -> web.StreamResponse:  # type: ignore[name-defined]
        await asyncio.sleep(self._switches.slow_sec)
        if status := self._switches.failing_status:
            return web.json_response({"error": f"the stand-in was told to fail with {status}"}, status=status)
        if not self._switches.admits(request.headers.get("Authorization")):
            return web.json_response({"error": "the request was not authenticated"}, status=401)
        response: web.StreamResponse = await handler(request)
        return response

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response(text="OK")

    async def _ping(self, request: web.Request) -> web.Response:
        headers = {"x-influxdb-version": VERSION, "x-influxdb-build": "Core"}
        return web.json_response({"version": VERSION, "revision": "stand-in", "process_id": "stand-in"}, headers=headers)

    async def _write_v2(self, request: web.Request) -> web.Response:
        try:
            errors = await self._write(request, request.query["bucket"], request.query.get("precision", "ns"), accept_partial=True)
        except Refused as refused:
            return web.json_response({"code": "invalid", "message": str(refused)}, status=refused.status)
        if errors:
            return _partial(errors)
        return web.Response(status=204)

    async def _write_v3(self, request: web.Request) -> web.Response:
        try:
            accept_partial = _flag(request, "accept_partial", True)
            no_sync = _flag(request, "no_sync", False)
            errors = await self._write(
                request, request.query["db"], request.query.get("precision", "ns"), accept_partial=accept_partial, no_sync=no_sync
            )
        except Refused as refused:
            return web.json_response({"error": str(refused)}, status=refused.status)
        if errors and not accept_partial:
            return web.json_response({"error": "line protocol parsing error", "data": asdict(errors[0])}, status=400)
        if errors:
            return _partial(errors)
        return web.Response(status=204)

    async def _write(
        self, request: web.Request, database: str, precision: str, *, accept_partial: bool, no_sync: bool = False
    ) -> list[LineError]:
        try:
            body = (await _body(request)).decode()
        except UnicodeDecodeError as broken:
            raise Refused(400, f"body content is not valid utf8: {broken}") from None
        if precision not in _UNITS_NS:
            raise Refused(400, f"invalid precision: {precision}")
        unit_ns = _UNITS_NS[precision]
        errors = self._store.write(database, body, unit_ns=unit_ns, now_ns=time.time_ns(), accept_partial=accept_partial)
        flushed = self._flush_soon()
        if not no_sync:
            await asyncio.shield(flushed)
        return errors

    def _flush_soon(self) -> asyncio.Future[None]:
        """One flush for all writes that come before it, as the WAL does."""
        if self._flushing is None:
            loop = asyncio.get_running_loop()
            self._flushing = loop.create_future()
            loop.call_later(self._wal_sec, self._flush)
        return self._flushing

    def _flush(self) -> None:
        flushed, self._flushing = self._flushing, None
        self._store.flush()
        if flushed and not flushed.done():
            flushed.set_result(None)


async def _body(request: web.Request) -> bytes:
    # aiohttp has inflated the body already.
    return await request.read()


def _flag(request: web.Request, name: str, default: bool) -> bool:
    text = request.query.get(name)
    if text is None:
        return default
    if text not in _FLAGS:
        raise Refused(400, "serde error: provided string was not `true` or `false`")
    return _FLAGS[text]


def _partial(errors: list[LineError]) -> web.Response:
    body = {"error": "partial write of line protocol occurred", "data": [asdict(error) for error in errors]}
    return web.json_response(body, status=400)
