"""What every answer has around it: security headers, and one line in the log."""

from __future__ import annotations

import time

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from app.web import address, keys

log = structlog.get_logger()

_OFTEN = "/api/memory-dumps/changes"
"""Asked for up to ten times a second by each page that cannot have a websocket: only its failures are worth a line."""

_A_YEAR_OF_HTTPS = "max-age=31536000"

SECURITY_HEADERS = {
    # A page's own websocket is within 'self'.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; font-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    # Not no-referrer: browsers then send "Origin: null" with forms, and the gate would refuse the login form.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """For ``on_response_prepare``: every answer of a route or a middleware, static files and websocket upgrades included."""
    dress(response)
    if request.app[keys.OWN_NAMES].insists_on_https(request.headers.get(hdrs.HOST, "")):
        response.headers[hdrs.STRICT_TRANSPORT_SECURITY] = _A_YEAR_OF_HTTPS


def dress(response: web.StreamResponse) -> None:
    """Put the headers around an answer."""
    response.headers.update(SECURITY_HEADERS)
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers["Server"] = "memory-dumps"


@web.middleware
async def log_requests(request: web.Request, handler: Handler) -> web.StreamResponse:
    """One line for each request, but not for long ones that went well. The query string is left out whole: a login code may
    stand in it."""
    started = time.monotonic()
    status = 0
    try:
        response = await handler(request)
        status = response.status
        return response
    except web.HTTPException as answer:
        status = answer.status
        raise
    finally:
        identity = request.get(keys.IDENTITY)
        if request.path != _OFTEN or status != 200:
            log.info(
                "request",
                method=request.method,
                path=address.shown(request),
                status=status,
                duration_ms=round((time.monotonic() - started) * 1000, 1),
                by=f"{identity.name} ({identity.shown_by})" if identity else None,
                remote=request.app[keys.PROXIES].address(request),
            )
