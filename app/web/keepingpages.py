"""The pages ``/accounts`` and ``/tokens``: tables, and forms that work without a script."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from aiohttp import web

from app.access.audit import about
from app.access.tokens import Token
from app.errors import RequestError
from app.model import rfc3339
from app.rights import ROLES, Role
from app.scope import Scope
from app.web import keys
from app.web.bodies import form_of
from app.web.keeping import change_own_password, moment_of, number_of
from app.web.templates import render_page

ACCOUNTS, TOKENS = "/accounts", "/tokens"
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


async def accounts(request: web.Request) -> web.StreamResponse:
    """``GET /accounts``."""
    return await _accounts(request)


async def end_sessions(request: web.Request) -> web.StreamResponse:
    """``POST /accounts/end-sessions``: the answer is the page, which says how many there were."""
    name = (await form_of(request)).get("name", "").strip()
    if not name:
        raise RequestError("Say whose sessions are to end.", place="$.name")
    return await _accounts(request, name, await request.app[keys.KEEPING].end_sessions(name))


async def _accounts(request: web.Request, name: str | None = None, ended: int = 0) -> web.Response:
    kept = await request.app[keys.KEEPING].accounts()
    context = {"page": "accounts", "accounts": kept, "roles": tuple(ROLES), "ended_name": name, "ended": ended}
    return render_page(request, "accounts.html", context)


async def make_account(request: web.Request) -> web.StreamResponse:
    """``POST /accounts``."""
    form = await form_of(request)
    name = form.get("name", "").strip()
    about(name)
    by = request[keys.IDENTITY]
    await request.app[keys.KEEPING].make_account(by, name, _role(form), _scope(form), form.get("password") or None)
    return _to(ACCOUNTS)


async def change_account(request: web.Request) -> web.StreamResponse:
    """``POST /accounts/{name}/change``."""
    form = await form_of(request)
    by, name = request[keys.IDENTITY], request.match_info["name"]
    await request.app[keys.KEEPING].change_account(by, name, _role(form), _scope(form))
    return _to(ACCOUNTS)


async def set_password(request: web.Request) -> web.StreamResponse:
    """``POST /accounts/{name}/password``. Who sets their own is asked to log in with it."""
    form = await form_of(request)
    await request.app[keys.KEEPING].set_password(request[keys.IDENTITY], request.match_info["name"], form.get("password", ""))
    return _to(ACCOUNTS)


async def own_password(request: web.Request) -> web.StreamResponse:
    """``POST /tokens/password``: all sessions end, and one logs in with it."""
    form = await form_of(request)
    await change_own_password(request, form.get("old", ""), form.get("password", ""))
    return _to("/login")


async def remove_account(request: web.Request) -> web.StreamResponse:
    """``POST /accounts/{name}/remove``."""
    await request.app[keys.KEEPING].remove_account(request.match_info["name"])
    return _to(ACCOUNTS)


async def tokens(request: web.Request) -> web.StreamResponse:
    """``GET /tokens``."""
    return await _tokens(request)


async def make_token(request: web.Request) -> web.StreamResponse:
    """``POST /tokens``: the answer is the page, with the secret on it this once."""
    form = await form_of(request)
    label, account = form.get("label", "").strip(), form.get("account", "").strip() or None
    about(label)
    role = _role(form) if form.get("role") else None
    made, secret = await request.app[keys.KEEPING].make_token(
        request[keys.IDENTITY], label, account, role, _scope(form), _midnight(form.get("expires", ""))
    )
    return await _tokens(request, made, secret)


async def revoke_token(request: web.Request) -> web.StreamResponse:
    """``POST /tokens/{number}/revoke``."""
    await request.app[keys.KEEPING].revoke_token(request[keys.IDENTITY], number_of(request))
    return _to(TOKENS)


async def _tokens(request: web.Request, made: Token | None = None, secret: str | None = None) -> web.Response:
    identity = request[keys.IDENTITY]
    context = {
        "page": "tokens",
        "tokens": await request.app[keys.KEEPING].tokens(identity),
        "roles": [role for role in ROLES if ROLES[role] <= ROLES[identity.role]],
        "now": rfc3339(datetime.now(UTC)),
        "made": made,
        "secret": secret,
    }
    return render_page(request, "tokens.html", context)


def _role(form: Mapping[str, str]) -> Role:
    for role in ROLES:
        if form.get("role") == role:
            return role
    raise RequestError(f"Choose a role: {', '.join(ROLES)}.", place="$.role")


def _scope(form: Mapping[str, str]) -> Scope:
    """One a line."""
    hypervisors, vms, groups = (
        tuple(line.strip() for line in form.get(kind, "").splitlines() if line.strip()) for kind in ("hypervisors", "vms", "groups")
    )
    return Scope(hypervisors=hypervisors, vms=vms, groups=groups)


def _midnight(day: str) -> str | None:
    if not day:
        return None
    if not _DAY.fullmatch(day):
        raise RequestError("The day of the end is written as 2026-12-31.", place="$.expires")
    return moment_of(f"{day}T00:00:00Z")


def _to(path: str) -> web.Response:
    return web.Response(status=303, headers={"Location": path})
