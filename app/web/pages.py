"""The pages: whole without JavaScript, and everything that stands around a login."""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import Meta

from app.access import SESSION_SEC
from app.access.audit import nothing_done
from app.errors import RequestError, TooManyLogins
from app.web import bodies, keys
from app.web.errors import ProblemError
from app.web.guard import SESSION_COOKIE
from app.web.listing import LIMITS, listing_of
from app.web.requests import Query
from app.web.seed import seed_of, shown_jobs
from app.web.sight import Sight
from app.web.templates import render_page

HOME = "/memory-dumps"

_OWN_PATH = re.compile(r"/(?!/)[A-Za-z0-9/_.-]{0,200}(?:\?[A-Za-z0-9/_.~!$&'()*+,;=:@?%-]{0,2000})?")
_FOREVER = "public, max-age=31536000, immutable"
_LOGIN_REFUSED = "This name and this password do not belong together."
_NOTHING_GIVEN = "Give a name and a password, or a login link."
_NO_PASSWORDS = "Passwords open nothing here. Log in as this page says."
_CODE_REFUSED = (
    "This login link has been used already, or is older than ten minutes. "
    "Make a fresh one on the server, in the service's folder, with: .venv/bin/python -m app login-url"
)


class LoginQuery(Query, frozen=True, kw_only=True):
    """What a login URL brings."""

    code: Annotated[str, Meta(description="A login code.")] | None = None
    next: Annotated[str, Meta(description="Where to go then.")] | None = None


class NextQuery(Query, frozen=True, kw_only=True):
    """Where somebody wanted to go."""

    next: Annotated[str, Meta(description="Where to go then.")] | None = None


async def home(_request: web.Request) -> web.StreamResponse:
    """``GET /``."""
    raise web.HTTPFound(HOME)


async def memory_dumps(request: web.Request) -> web.StreamResponse:
    """``GET /memory-dumps``: the same snapshot that the live feed begins with, rendered, and the records that are asked for."""
    sight = Sight(request)
    view = (await sight.feed()).view.snapshot()
    listing = await listing_of(request.query, sight, view)
    snapshot = msgspec.structs.replace(view.message, jobs=tuple(shown_jobs(view.message.jobs)))
    context: dict[str, Any] = {
        "page": "memory-dumps",
        "listing": listing,
        "limits": LIMITS,
        "snapshot": snapshot,
        "seed": seed_of(snapshot, listing),
    }
    return render_page(request, "memory_dumps.html", context)


async def login_page(request: web.Request) -> web.StreamResponse:
    """``GET /login``: with ``?code=`` a form that sends it. Looking at the page uses nothing up: a link preview may."""
    if keys.IDENTITY in request and "code" not in request.query:
        raise web.HTTPSeeOther(own_path(request.query.get("next")))
    return login_form(request, code=request.query.get("code"), target=request.query.get("next"))


async def login(request: web.Request) -> web.StreamResponse:
    """``POST /login``: a name and its password, or a code, for a session cookie, then on to where the person wanted to go."""
    try:
        form = await bodies.form_of(request)
    except RequestError as error:
        return login_form(request, message=str(error), status=400)
    address = request.app[keys.PROXIES].address(request) or ""
    code, name, password, target = (form.get(field, "") for field in ("code", "name", "password", "next"))
    passwords = request.app[keys.SETTINGS].auth == "token"
    if not passwords:  # it would be a way around whoever says who is asking
        name = password = ""
    try:
        if name and password:
            session = await request.app[keys.ACCESS].log_in(name.strip().lower(), password, address)
        elif code:
            session = await request.app[keys.ACCESS].redeem(_code_of(code), address)
        else:
            return login_form(request, message=_NOTHING_GIVEN if passwords else _NO_PASSWORDS, target=target, status=400)
    except TooManyLogins as error:
        return login_form(request, message=str(error), target=target, again_sec=error.retry_after_sec, status=429)
    if session is None:
        return login_form(request, message=_LOGIN_REFUSED if name and password else _CODE_REFUSED, target=target, status=401)
    response = web.Response(status=303, headers={"Location": own_path(target)})
    keep_session(request, response, session)
    return response


def keep_session(request: web.Request, response: web.StreamResponse, session: str) -> None:
    """Have the browser keep it, and send it to this service alone."""
    response.set_cookie(
        SESSION_COOKIE, session, max_age=SESSION_SEC, path="/", httponly=True, samesite="Strict", secure=is_https(request)
    )


async def logout_page(request: web.Request) -> web.StreamResponse:
    """``GET /logout``: asks; reading an address never changes anything."""
    return render_page(request, "logout.html", {"page": "logout"})


async def logout(request: web.Request) -> web.StreamResponse:
    """``POST /logout``: ends the session."""
    session = request.cookies.get(SESSION_COOKIE)
    if session is not None:
        await request.app[keys.ACCESS].logout(session)
    else:
        nothing_done()
    response = web.Response(status=204)
    response.del_cookie(SESSION_COOKIE, path="/", httponly=True, samesite="Strict", secure=is_https(request))
    return response


async def static_file(request: web.Request) -> web.StreamResponse:
    """``/static/<tag>/…``: kept for ever below the folder of today; below an older one it is asked for again each time."""
    folder, _, path = request.match_info["path"].partition("/")
    assets = request.app[keys.ASSETS]
    asset = assets.get(path)
    if asset is None:
        raise ProblemError("not-found", f"There is no static file {path or folder}.")
    headers = {"ETag": f'"{asset.tag}"', "Cache-Control": _FOREVER if folder == assets.tag else "no-cache"}
    if any(known.value in (asset.tag, "*") for known in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    charset = "utf-8" if asset.content_type.startswith("text/") else None
    return web.Response(body=asset.body, content_type=asset.content_type, charset=charset, headers=headers)


def login_form(
    request: web.Request,
    *,
    code: str | None = None,
    message: str | None = None,
    target: object = None,
    again_sec: int | None = None,
    status: int = 200,
) -> web.Response:
    """The page that asks for a login."""
    context = {"page": "login", "message": message, "code": code, "next": own_path(target)}
    headers = {} if again_sec is None else {"Retry-After": str(again_sec)}
    return render_page(request, "login.html", context, status=status, headers=headers)


def _code_of(text: str) -> str:
    """The code in what somebody typed: it may be the whole link, pasted where a login had run out."""
    return (text.partition("code=")[2] or text).partition("&")[0].strip()


def own_path(target: object) -> str:
    """``target`` if it is an address of this service, else the first page: a login must not send people elsewhere."""
    return target if isinstance(target, str) and target != "/" and _OWN_PATH.fullmatch(target) else HOME


def is_https(request: web.Request) -> bool:
    """Whether people reach us by https under the name that was asked, so that the cookie may insist on it."""
    host = request.headers.get("Host", "").lower()
    return request.secure or request.app[keys.OWN_NAMES].knows_origin(f"https://{host}", host)
