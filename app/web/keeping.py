"""Accounts and tokens for programs: each function is one address. Who may ask was decided by the gate; whose tokens one may keep,
by ``app.access.keeping``."""

from __future__ import annotations

from datetime import UTC

from aiohttp import web

from app.access.accounts import Account as Kept
from app.access.audit import about
from app.access.tokens import Token as KeptToken
from app.errors import AccountUnknown, RequestError, TokenUnknown
from app.model import from_rfc3339, rfc3339
from app.rights import Role
from app.web import keys, requests
from app.web.answers import Answer, Moment
from app.web.api import as_json


class Account(Answer, frozen=True, kw_only=True):
    """Who may log in, and to what they are limited; nothing named is no limit."""

    name: str
    role: Role
    hypervisors: tuple[str, ...]
    vms: tuple[str, ...]
    groups: tuple[str, ...]
    has_password: bool
    created_at: Moment

    @classmethod
    def of(cls, kept: Kept) -> Account:
        return cls(
            name=kept.name,
            role=kept.role,
            hypervisors=kept.scope.hypervisors,
            vms=kept.scope.vms,
            groups=kept.scope.groups,
            has_password=kept.has_password,
            created_at=kept.created_at,
        )


class Accounts(Answer, frozen=True, kw_only=True):
    """By name."""

    accounts: tuple[Account, ...]


class EndedSessions(Answer, frozen=True, kw_only=True):
    """How many there were."""

    name: str
    ended: int


class Token(Answer, frozen=True, kw_only=True):
    """What a program shows; never its secret."""

    number: int
    account: str
    label: str
    role: Role
    hypervisors: tuple[str, ...]
    vms: tuple[str, ...]
    groups: tuple[str, ...]
    created_at: Moment
    expires_at: Moment | None
    used_at: Moment | None

    @classmethod
    def of(cls, kept: KeptToken) -> Token:
        return cls(
            number=kept.number,
            account=kept.account,
            label=kept.label,
            role=kept.role,
            hypervisors=kept.scope.hypervisors,
            vms=kept.scope.vms,
            groups=kept.scope.groups,
            created_at=kept.created_at,
            expires_at=kept.expires_at,
            used_at=kept.used_at,
        )


class Tokens(Answer, frozen=True, kw_only=True):
    """Newest first, those that have expired too; what was revoked is gone."""

    tokens: tuple[Token, ...]


class NewToken(Answer, frozen=True, kw_only=True):
    """The one time that a secret is shown."""

    token: Token
    secret: str


async def accounts(request: web.Request) -> web.StreamResponse:
    """``GET /api/accounts``."""
    requests.query(request.query, requests.Query)
    return as_json(Accounts(accounts=tuple(Account.of(one) for one in await request.app[keys.KEEPING].accounts())))


async def make_account(request: web.Request) -> web.StreamResponse:
    """``POST /api/accounts``."""
    asked = requests.body(await request.read(), requests.AccountBody)
    about(asked.name)
    by = request[keys.IDENTITY]
    made = await request.app[keys.KEEPING].make_account(by, asked.name, asked.role, asked.scope, asked.password)
    return as_json(Account.of(made), status=201)


async def change_account(request: web.Request) -> web.StreamResponse:
    """``POST /api/accounts/{name}/change``."""
    asked = requests.body(await request.read(), requests.AccountChangeBody)
    by, name = request[keys.IDENTITY], request.match_info["name"]
    return as_json(Account.of(await request.app[keys.KEEPING].change_account(by, name, asked.role, asked.scope)))


async def set_password(request: web.Request) -> web.StreamResponse:
    """``POST /api/accounts/{name}/password``."""
    asked = requests.body(await request.read(), requests.PasswordBody)
    await request.app[keys.KEEPING].set_password(request[keys.IDENTITY], request.match_info["name"], asked.password)
    return web.Response(status=204)


async def own_password(request: web.Request) -> web.StreamResponse:
    """``POST /api/password``."""
    asked = requests.body(await request.read(), requests.OwnPasswordBody)
    identity = request[keys.IDENTITY]
    if identity.account is None:
        raise AccountUnknown(identity.name)
    address = request.app[keys.PROXIES].address(request)
    await request.app[keys.ACCESS].check_password(identity.account, asked.old, address or "")
    await request.app[keys.KEEPING].set_password(None, identity.account, asked.new)
    return web.Response(status=204)


async def remove_account(request: web.Request) -> web.StreamResponse:
    """``POST /api/accounts/{name}/remove``."""
    await request.app[keys.KEEPING].remove_account(request.match_info["name"])
    return web.Response(status=204)


async def end_sessions(request: web.Request) -> web.StreamResponse:
    """``POST /api/sessions/end``."""
    asked = requests.body(await request.read(), requests.SessionsBody)
    return as_json(EndedSessions(name=asked.name, ended=await request.app[keys.KEEPING].end_sessions(asked.name)))


async def tokens(request: web.Request) -> web.StreamResponse:
    """``GET /api/tokens``."""
    requests.query(request.query, requests.Query)
    kept = await request.app[keys.KEEPING].tokens(request[keys.IDENTITY])
    return as_json(Tokens(tokens=tuple(Token.of(one) for one in kept)))


async def make_token(request: web.Request) -> web.StreamResponse:
    """``POST /api/tokens``."""
    asked = requests.body(await request.read(), requests.TokenBody)
    about(asked.label)
    made, secret = await request.app[keys.KEEPING].make_token(
        request[keys.IDENTITY], asked.label, asked.account, asked.role, asked.scope, _moment_of(asked.expires_at)
    )
    return as_json(NewToken(token=Token.of(made), secret=secret), status=201)


async def revoke_token(request: web.Request) -> web.StreamResponse:
    """``POST /api/tokens/{number}/revoke``."""
    revoked = await request.app[keys.KEEPING].revoke_token(request[keys.IDENTITY], _number_of(request))
    return as_json(Token.of(revoked))


def _number_of(request: web.Request) -> int:
    """Raises ``TokenUnknown``."""
    text = request.match_info["number"]
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise TokenUnknown(0)
    return int(text)


def _moment_of(text: str | None) -> str | None:
    """Raises ``RequestError``."""
    if text is None:
        return None
    try:
        moment = from_rfc3339(text)
    except (ValueError, OverflowError):
        raise RequestError("expires_at is no moment in RFC 3339, such as 2026-12-31T00:00:00Z.", place="$.expires_at") from None
    return rfc3339(moment.astimezone(UTC))
