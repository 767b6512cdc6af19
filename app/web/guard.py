"""The gate: one middleware that decides for every route who may come in. Closed unless a route stands in ``PUBLIC``.

It asks, in this order: is the Host one of ours (against DNS rebinding); who is it; and, where a browser could be made
to ask by a page of somebody else, does the request come from our own page and in a form that such a page cannot send.
A session cookie travels with whatever the browser sends, a Bearer token only with what its owner writes: so the last
question is put to cookies alone (and to everybody under ``MEMDUMP_AUTH=none``, where being asked is enough). The one form that is
read, whoever sends it, is that of the login, which asks for nothing in the name of a cookie.
"""

from __future__ import annotations

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from app.access import Identity, Right
from app.access.access import key_of
from app.access.presence import Stay
from app.web import keys
from app.web.errors import ProblemError, login_required

PUBLIC = frozenset(
    {
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("GET", "/login"),
        ("POST", "/login"),
        ("GET", "/login/oidc"),
        ("GET", "/login/oidc/back"),
        ("GET", "/static/{path}"),
    }
)
"""All that is answered without a login; everything else, known or not, is not. HEAD counts as GET."""

LOGIN = ("POST", "/login")
"""Where a page without JavaScript sends a form; every change by cookie needs a JSON content type."""

LISTENING = frozenset({("GET", "/api/memory-dumps/ws"), ("GET", "/api/memory-dumps/changes")})
"""What an open page does by itself: it keeps no session from its idle end."""

UNATTENDED = "X-Unattended"
"""A header with which a page says the same of any other request. Sent where it is not so it only shortens one's own session."""

SESSION_COOKIE = "memory_dumps_session"
_A_ROLE = {
    "viewer": "a viewer",
    "operator": "an operator",
    "investigator": "an investigator",
    "administrator": "an administrator",
}
_DEEDS: dict[Right, str] = {
    "see": "see VMs and dumps",
    "dump": "dump VMs",
    "cancel": "cancel dumps",
    "download": "download dumps",
    "delete": "delete dumps",
    "administer": "administer this service",
}
_SAFE = frozenset({"GET", "HEAD"})


@web.middleware
async def gate(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let the request through, or raise the problem that it is refused with."""
    _check_host(request)
    request.app[keys.PROXIES].check(request)
    bearer = _bearer(request)
    route = route_of(request.method, request.match_info.route)
    identity = await _who(request, bearer, route)
    if identity is not None:
        request[keys.IDENTITY] = identity
    elif route not in PUBLIC:
        raise _login_required(request, bearer)
    if identity is not None:
        _check_right(request, identity, route)
    if hdrs.CONTENT_ENCODING in request.headers:
        raise ProblemError("media-type-unsupported", "Send the body as it is, without Content-Encoding.")
    if _changes_something(request):
        by_token = identity is not None and identity.via == "token"
        if not by_token:
            _check_origin(request, identity)
        if not by_token or route == LOGIN:
            _check_content_type(request, route)
    return await _answered(request, handler, bearer, identity)


async def _answered(request: web.Request, handler: Handler, bearer: str | None, identity: Identity | None) -> web.StreamResponse:
    """Whatever is only told ends with the login that it was asked on: a handler that says nothing else is broken off. What
    changes something goes on to its end, and may itself be the end of the login."""
    request[keys.STAY] = stay = Stay(identity, lambda: _break_off(request))
    key = key_of(bearer, request.cookies.get(SESSION_COOKIE))
    if request.method not in _SAFE or key is None or identity is None or identity.via not in ("token", "session"):
        return await handler(request)
    with request.app[keys.ACCESS].presence.of(key, stay):
        return await handler(request)


async def _who(request: web.Request, bearer: str | None, route: tuple[str, str]) -> Identity | None:
    """Who asks: by a token that is given, else as the settings have it. Raises ``ProblemError``."""
    if bearer is None and request.app[keys.SETTINGS].auth == "proxy":
        return _said_by_proxy(request, route)
    session = request.cookies.get(SESSION_COOKIE) if bearer is None else None
    return await request.app[keys.ACCESS].who(bearer, session, quiet=route in LISTENING or UNATTENDED in request.headers)


def _login_required(request: web.Request, bearer: str | None) -> ProblemError:
    if bearer is not None:
        return login_required("This API token is not known, or was withdrawn.")
    if request.app[keys.SETTINGS].auth == "proxy":
        return login_required("Come by the proxy that says who you are, or send an API token as 'Authorization: Bearer …'.")
    return login_required()


def _said_by_proxy(request: web.Request, route: tuple[str, str]) -> Identity | None:
    """Whom the proxy names; of what anybody may ask nobody is refused. Raises ``ProblemError``."""
    try:
        return request.app[keys.PROXIES].who(request)
    except ProblemError:
        if route in PUBLIC:
            return None
        raise


def _break_off(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


def route_of(method: str, route: web.AbstractRoute) -> tuple[str, str]:
    """Method and path pattern as ``PUBLIC`` writes them; an unknown path has the pattern ''."""
    return "GET" if method == "HEAD" else method, route.resource.canonical if route.resource is not None else ""


def _check_right(request: web.Request, identity: Identity, route: tuple[str, str]) -> None:
    """Refuse who may not do this. An address that nobody has yet said the right of is for administrators alone."""
    known = route[1] != ""
    right = request.app[keys.RIGHTS].get(route, "administer" if known else None)
    if right is not None and not identity.may(right):
        raise ProblemError(
            "not-allowed", f"{identity.name} is {_A_ROLE[identity.role]}, who may not {_DEEDS[right]}. Ask an administrator."
        )


def _changes_something(request: web.Request) -> bool:
    """A method that is not safe, or a websocket: it is answered across origins unless we look ourselves."""
    return request.method not in _SAFE or hdrs.UPGRADE in request.headers


def _bearer(request: web.Request) -> str | None:
    """The token of ``Authorization: Bearer …``; a header of another scheme belongs to some proxy, not to us."""
    scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _check_host(request: web.Request) -> None:
    host = request.headers.get(hdrs.HOST, "")
    if not request.app[keys.OWN_NAMES].knows_host(host):
        raise ProblemError(
            "host-not-allowed", f"This service is not called {host!r}. Name the URL that people use in MEMDUMP_PUBLIC_URL."
        )


def _check_origin(request: web.Request, identity: Identity | None) -> None:
    """Refuse what another page sent. Raises ``ProblemError``.

    Who comes by a cookie must prove to come from our page. Who has none to misuse (a login, an open service) may be a
    program without either header; a browser always sends one of them.
    """
    origin = request.headers.get(hdrs.ORIGIN)
    site = request.headers.get("Sec-Fetch-Site")
    by_cookie = identity is not None and identity.via in ("session", "proxy")  # a proxy's own login goes by a cookie, too
    if origin is not None:
        allowed = request.app[keys.OWN_NAMES].knows_origin(origin, request.headers.get(hdrs.HOST, ""))
    elif site is not None:
        allowed = site == "same-origin" and hdrs.UPGRADE not in request.headers
    else:
        allowed = not by_cookie
    if not allowed:
        script = "" if origin or site else " A script sends an API token instead of the cookie: 'Authorization: Bearer …'."
        raise ProblemError(
            "origin-not-allowed",
            f"A request of this kind must come from the service's own page, not from {origin or 'elsewhere'}.{script}",
        )


def _check_content_type(request: web.Request, route: tuple[str, str]) -> None:
    """A page of somebody else can send forms and plain text without asking, JSON it cannot. Raises ``ProblemError``."""
    if request.method in _SAFE:
        return
    wanted = "application/x-www-form-urlencoded" if route == LOGIN else "application/json"
    if request.content_type != wanted:
        raise ProblemError(
            "media-type-unsupported", f"Send the body as {wanted}, and say so in Content-Type.", headers={"Accept": wanted}
        )
