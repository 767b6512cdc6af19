"""``/login/oidc``: to the provider that people log in at, and back from it."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated

import structlog
from aiohttp import web
from msgspec import Meta

from app.access.audit import about
from app.access.identity import VOUCHED_FOR
from app.access.secrets import make_secret
from app.errors import TooManyLogins
from app.scope import WHOLE
from app.web import keys
from app.web.errors import ProblemError
from app.web.pages import is_https, keep_session, login_form, own_path
from app.web.proxy import role_of
from app.web.requests import Query
from app.web.templates import render_page
from app.web.vouching import Attempt, LoginProvider, NotVouchedFor, Person, ProviderUnreachable

log = structlog.get_logger()

PATH = "/login/oidc"
BACK = "/login/oidc/back"
_COOKIE = "memory_dumps_login"
_ATTEMPT_SEC = 600
_NOT_BEGUN_HERE = "This login was not begun in this browser, or longer than ten minutes ago. Begin again."
_NOT_VOUCHED_FOR = (
    "The login provider does not say who you are. Begin again; if that does not help, the service’s log has the reason."
)


class BackQuery(Query, frozen=True, kw_only=True):
    """What the provider has the browser bring. Others may come with them."""

    code: Annotated[str, Meta(description="For the provider to exchange.")] | None = None
    state: Annotated[str, Meta(description="Of the attempt.")] | None = None
    iss: Annotated[str, Meta(description="The provider.")] | None = None
    error: Annotated[str, Meta(description="Instead of a code.")] | None = None


PROVIDER: web.AppKey[LoginProvider] = web.AppKey("provider")


async def start(request: web.Request) -> web.StreamResponse:
    """``GET /login/oidc``: on to the provider. What is needed to come back stays in the browser."""
    provider, attempt = _provider(request), Attempt(make_secret())
    try:
        address = await provider.address(attempt, _back(request))
    except ProviderUnreachable as error:
        raise _unreachable(error) from None
    response = web.Response(status=303, headers={"Location": address})
    target = base64.urlsafe_b64encode(own_path(request.query.get("next")).encode()).decode()
    # Lax: a strict one would not come along when the provider sends the browser back.
    response.set_cookie(
        _COOKIE,
        f"{attempt.secret}.{target}",
        max_age=_ATTEMPT_SEC,
        path=PATH,
        httponly=True,
        samesite="Lax",
        secure=is_https(request),
    )
    return response


async def back(request: web.Request) -> web.StreamResponse:
    """``GET /login/oidc/back``: the provider's word for a session cookie."""
    provider = _provider(request)
    secret, _, kept = request.cookies.get(_COOKIE, "").partition(".")
    attempt, target = Attempt(secret), own_path(_decoded(kept))
    if not secret or not attempt.began(request.query.get("state", "")):
        return login_form(request, message=_NOT_BEGUN_HERE, target=target, status=400)
    try:
        person = await _person(request, provider, attempt)
    except TooManyLogins as error:
        return login_form(request, message=str(error), target=target, again_sec=error.retry_after_sec, status=429)
    except ProviderUnreachable as error:
        raise _unreachable(error) from None
    except NotVouchedFor as error:
        log.warning("login_not_vouched_for", reason=str(error))
        return login_form(request, message=_NOT_VOUCHED_FOR, target=target, status=401)
    vouched = {"iss": request.app[keys.SETTINGS].oidc.issuer, "sub": person.sub}
    about(person.name, kind=person.name, **vouched)
    request[keys.OCCASION].via = VOUCHED_FOR
    role = role_of(person.groups, request.app[keys.SETTINGS].group_roles)
    if role is None:
        raise ProblemError("not-allowed", f"{person.name} may come in, but none of their groups has a role in MEMDUMP_GROUP_ROLES.")
    session = await request.app[keys.ACCESS].begin_for(person.name, role, WHOLE, **vouched)
    # No redirect: the browser would not send the strict cookie on a way that began at the provider.
    response = render_page(request, "logged_in.html", {"page": "login", "name": person.name, "next": target})
    keep_session(request, response, session)
    response.del_cookie(_COOKIE, path=PATH, httponly=True, samesite="Lax", secure=is_https(request))
    return response


async def _person(request: web.Request, provider: LoginProvider, attempt: Attempt) -> Person:
    """Raises ``NotVouchedFor``, ``ProviderUnreachable``, ``TooManyLogins``: who may make up codes would have us ask the provider
    without end."""
    issuer = request.app[keys.SETTINGS].oidc.issuer
    if request.query.get("iss", issuer) != issuer:  # RFC 9207: an answer of another provider
        raise NotVouchedFor("the answer is another provider's")
    code = request.query.get("code")
    if not code:
        raise NotVouchedFor(f"it answered with {request.query.get('error', 'nothing')[:100]!r}")
    attempts, address = request.app[keys.ACCESS].attempts, request.app[keys.PROXIES].address(request) or ""
    attempts.take(address)
    try:
        person = await provider.person(attempt, code, _back(request))
    except TooManyLogins:  # the provider was not asked
        attempts.give_back(address)
        raise
    attempts.give_back(address)
    return person


def _provider(request: web.Request) -> LoginProvider:
    provider = request.app.get(PROVIDER)
    if provider is None:
        raise ProblemError("not-found", f"Nothing is at {request.path}.")
    return provider


def _back(request: web.Request) -> str:
    """Where the provider sends the browser. The gate has looked at the Host."""
    return f"{'https' if is_https(request) else 'http'}://{request.host}{BACK}"


def _unreachable(error: ProviderUnreachable) -> ProblemError:
    log.error("login_provider_unreachable", reason=str(error))
    return ProblemError(
        "login-provider-unreachable", "The login provider does not answer as it should. The service's log has the reason."
    )


def _decoded(kept: str) -> str:
    try:
        return base64.urlsafe_b64decode(kept.encode()).decode()
    except (binascii.Error, ValueError):
        return ""
