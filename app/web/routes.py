"""The route table: every address that the service has. What may be asked without a login stands in ``guard.PUBLIC``."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Handler

from app.web import api, live, pages, ready


@dataclass(frozen=True, slots=True)
class Route:
    """One row. ``pattern`` names its variables in braces; a ``GET`` answers ``HEAD`` too, the live feed does not."""

    method: str
    pattern: str
    handler: Handler


ROUTES = (
    Route("GET", "/healthz", api.healthz),
    Route("GET", "/readyz", ready.readyz),
    Route("GET", "/", pages.home),
    Route("GET", "/memory-dumps", pages.memory_dumps),
    Route("GET", "/login", pages.login_page),
    Route("POST", "/login", pages.login),
    Route("GET", "/logout", pages.logout_page),
    Route("POST", "/logout", pages.logout),
    Route("GET", "/static/{path:.+}", pages.static_file),
    Route("POST", "/api/memory-dumps/trigger", api.trigger),
    Route("GET", "/api/memory-dumps/records", api.records),
    Route("GET", "/api/memory-dumps/records/{dump_id}", api.record),
    Route("GET", "/api/memory-dumps/status", api.status),
    Route("GET", "/api/memory-dumps/jobs", api.jobs),
    Route("GET", "/api/memory-dumps/jobs/{job_id}", api.job),
    Route("POST", "/api/memory-dumps/jobs/{job_id}/cancel", api.cancel),
    Route("GET", "/api/memory-dumps/stats", api.stats),
    Route("GET", "/api/memory-dumps/activity", api.activity),
    Route("GET", "/api/telemetry/live-vms", api.live_vms),
    Route("GET", live.PATH, live.feed),
)


def add_to(app: web.Application) -> None:
    """Put the table into ``app``."""
    for route in ROUTES:
        if route.method == "GET" and route.pattern != live.PATH:
            app.router.add_get(route.pattern, route.handler, allow_head=True)
        else:
            app.router.add_route(route.method, route.pattern, route.handler)
