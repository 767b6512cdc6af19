"""Issue "who may do what": every address of the service for every role, without a login and with one that is over.

Made from the route table: a route that is added is tested by being there. One that is not in the table fails the first test.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from app.access import accounts, sessions, tokens
from app.access.secrets import hash_of
from app.application import create_app
from app.config import Settings
from app.foundation import lay_foundation, open_beside
from app.model import rfc3339
from app.rights import ROLES, Role
from app.scope import WHOLE, Scope
from app.web.errors import REFERENCE
from app.web.guard import PUBLIC, SESSION_COOKIE, route_of
from app.web.route import Route
from app.web.routes import ROUTES
from tests.contract.conftest import ALPHA, BETA, VMS
from tests.contract.speech import ANSWER_SEC, FEED, TRIGGER, Api
from tests.service import Service, service_environment

LONG_AGO, AFTER_THAT, LATER = (f"{year}-01-01T00:00:00.000000Z" for year in (2001, 2002, 2999))
NOTHING = "00000000-0000-7000-8000-000000000000"
SAMPLES = {"dump_id": NOTHING, "job_id": NOTHING, "path": "main.js", "name": "nobody", "number": "999999"}
"""What stands for the variables of an address. Nothing of the kind exists: who is let in gets 404, and changes nothing."""


@dataclass(frozen=True)
class Caller:
    """Somebody, and what they send. ``role`` None: nobody who is known, or no longer."""

    called: str
    headers: Mapping[str, str]
    role: Role | None = None


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def cookie(secret: str) -> dict[str, str]:
    return {"Cookie": f"{SESSION_COOKIE}={secret}"}


WAYS = (("token", bearer), ("session", cookie))
OUTSIDE = {
    "without a login": {},
    "an unknown token": bearer("mdt_guessed"),
    "an expired token": bearer("mdt_expired"),
    "a revoked token": bearer("mdt_revoked"),
    "an unknown session": cookie("guessed"),
    "an expired session": cookie("expired"),
    "an idle session": cookie("idle"),
    "a session of an account that was removed": cookie("orphan"),
    "a token in the address": {},
}


def _introduce(connection: sqlite3.Connection, role: Role) -> None:
    accounts.add(connection, f"a-{role}", role, WHOLE, None, LONG_AGO)
    tokens.add(connection, hash_of(f"token-{role}"), f"a-{role}", "x", None, WHOLE, LONG_AGO, LATER)
    sessions.begin(connection, hash_of(f"session-{role}"), f"a-{role}", rfc3339(datetime.now(UTC)), LATER)


def _turn_away(connection: sqlite3.Connection) -> None:
    now = rfc3339(datetime.now(UTC))
    tokens.add(connection, hash_of("mdt_expired"), "admin", "x", None, WHOLE, LONG_AGO, AFTER_THAT)
    revoked = tokens.add(connection, hash_of("mdt_revoked"), "admin", "x", None, WHOLE, LONG_AGO, None)
    tokens.withdraw(connection, revoked.number, now)
    sessions.begin(connection, hash_of("expired"), "admin", now, AFTER_THAT)
    sessions.begin(connection, hash_of("idle"), "admin", LONG_AGO, LATER)
    sessions.begin(connection, hash_of("orphan"), "nobody", now, LATER)


@pytest.fixture(scope="module")
def callers(service: Service) -> list[Caller]:
    """For each role an account with a token and a session; and everybody who has to stay outside."""
    with contextlib.closing(open_beside(Settings.from_environment(service.environment))) as state:
        for role in ROLES:
            state.run_now(partial(_introduce, role=role))
        state.run_now(_turn_away)
    known = [Caller(f"{role} by {way}", send(f"{way}-{role}"), role) for role in ROLES for way, send in WAYS]
    return known + [Caller(called, headers) for called, headers in OUTSIDE.items()]


async def test_no_address_answers_that_is_not_in_the_table(tmp_path: Path) -> None:
    foundation = lay_foundation(Settings.from_environment(service_environment(tmp_path)))
    try:
        router = create_app(foundation).router
        there = {route_of(route.method, route) for route in router.routes()}
    finally:
        foundation.close()
    assert there == {(route.method, re.sub(r":[^}]+}", "}", route.pattern)) for route in ROUTES}
    assert len(ROUTES) == len({(route.method, route.pattern) for route in ROUTES})


def path_of(route: Route, ids: Mapping[str, str]) -> str:
    return re.sub(r"{(\w+)[^}]*}", lambda variable: ids[variable[1]], route.pattern)


def is_public(route: Route) -> bool:
    return (route.method, re.sub(r":[^}]+}", "}", route.pattern)) in PUBLIC


def is_page(route: Route) -> bool:
    return route.pattern == REFERENCE or not route.pattern.startswith(("/api/", "/healthz", "/readyz"))


async def answer_to(service: Service, route: Route, caller: Caller, ids: Mapping[str, str] = SAMPLES) -> tuple[int, str, str]:
    """Status, body, and where it leads; asked as the service's own page would."""
    headers = {**caller.headers, "Origin": service.url, "Content-Type": "application/json"}
    if route.websocket:
        headers |= {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "A" * 22 + "==",
        }
    query = {"token": service.token, "access_token": service.token} if caller.called == "a token in the address" else None
    if route.pattern.endswith("/changes"):
        query = {**(query or {}), "wait": "0"}
    async with (
        aiohttp.ClientSession(service.url, cookie_jar=aiohttp.DummyCookieJar()) as session,
        session.request(route.method, path_of(route, ids), headers=headers, params=query, allow_redirects=False) as answer,
    ):
        body = "" if answer.status == 101 else await answer.text()
        return answer.status, body, urlsplit(answer.headers.get("Location", "")).path


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.pattern}")
async def test_every_address_lets_in_who_has_its_right_and_nobody_else(
    api: Api, service: Service, callers: list[Caller], route: Route
) -> None:
    wrong = []
    for caller in callers:
        status, body, leads_to = await answer_to(service, route, caller)
        if caller.role is None and not is_public(route):
            right = (status, leads_to) == (303, "/login") if is_page(route) else status == 401 and '"login-required"' in body
        elif caller.role is not None and route.right is not None and route.right not in ROLES[caller.role]:
            right = status == 403 and ("may not" in body if is_page(route) else '"not-allowed"' in body)
        else:
            right = status not in (401, 403) and status < 500
            right = right or (route.pattern, status) in ANSWERS_OF_THEIR_OWN
        if not right:
            wrong.append((caller.called, status, body[:200]))
        if route.name == "logout" and caller.called.endswith("by session"):
            renew(service, caller)
    assert not wrong


ANSWERS_OF_THEIR_OWN = {("/login", 401), ("/readyz", 503)}
"""An empty login is refused; and a service whose hypervisor has just been started may not be ready."""


def renew(service: Service, caller: Caller) -> None:
    """Who logged out is in again, for the other addresses."""
    with contextlib.closing(open_beside(Settings.from_environment(service.environment))) as state:
        secret, now = hash_of(f"session-{caller.role}"), rfc3339(datetime.now(UTC))
        state.run_now(lambda connection: sessions.begin(connection, secret, f"a-{caller.role}", now, LATER))


async def test_an_address_that_there_is_not_tells_nobody_so_who_is_not_logged_in(service: Service, callers: list[Caller]) -> None:
    async with aiohttp.ClientSession(service.url, cookie_jar=aiohttp.DummyCookieJar()) as session:
        for caller in callers:
            async with session.get("/api/nowhere", headers=caller.headers) as answer:
                assert (caller.called, answer.status) == (caller.called, 401 if caller.role is None else 404)


# --- scopes

FOREIGN = re.compile(
    "|".join(
        re.escape(text) for vm in VMS if vm is not ALPHA for text in (vm.uuid, vm.name) if len(text) > 3 and text != ALPHA.uuid
    )
)


@pytest.fixture(scope="module")
def tenant(service: Service) -> Caller:
    """An operator of one VM, ``alpha``."""

    def introduce(connection: sqlite3.Connection) -> None:
        accounts.add(connection, "tenant", "operator", Scope(vms=(ALPHA.name,)), None, LONG_AGO)
        tokens.add(connection, hash_of("token-tenant"), "tenant", "x", None, WHOLE, LONG_AGO, LATER)

    with contextlib.closing(open_beside(Settings.from_environment(service.environment))) as state:
        state.run_now(introduce)
    return Caller("tenant", bearer("token-tenant"), "operator")


async def ids_of_a_foreign_dump(api: Api) -> dict[str, str]:
    """Made by another, so that there is something to learn of."""
    async with api.session.post(TRIGGER, json={"vm_ids": [BETA.uuid]}) as answer:
        (job,) = (await answer.json())["jobs"]
    async with api.feed() as feed:
        ended = await feed.ended([job["job_id"]], snapshot=await feed.next())
    return {"job_id": job["job_id"], "dump_id": ended[job["job_id"]]["dump_id"], "number": "1", "name": "admin", "path": "main.js"}


async def test_no_address_tells_a_tenant_of_anothers_vms(api: Api, service: Service, tenant: Caller) -> None:
    there = await ids_of_a_foreign_dump(api)
    told: list[object] = []
    for route in ROUTES:
        for ids in (there, SAMPLES):
            status, body, _ = await answer_to(service, route, tenant, ids)
            told += [(route.name, status, found[0]) for found in FOREIGN.finditer(body)]
        if "{job_id}" in route.pattern or "{dump_id}" in route.pattern:
            real, none = [await answer_to(service, route, tenant, ids) for ids in (there, SAMPLES)]
            told += [(route.name, real, none)] * (real[0] != none[0] or anonymous(real[1], there) != anonymous(none[1], SAMPLES))
    assert not told


def anonymous(body: str, ids: Mapping[str, str]) -> str:
    for text in (ids["job_id"], ids["dump_id"]):
        body = body.replace(text, "…")
    return body


async def test_the_feed_tells_a_tenant_of_their_own_vms_alone(api: Api, service: Service, tenant: Caller) -> None:
    async with aiohttp.ClientSession(service.url, headers=dict(tenant.headers)) as session, session.ws_connect(FEED) as socket:
        first = await socket.receive_str()
        assert ALPHA.uuid in first
        assert not FOREIGN.search(first)
        await ids_of_a_foreign_dump(api)
        async with session.post(TRIGGER, json={"all": True}) as answer:
            (job,) = (await answer.json())["jobs"]
        while '"completed"' not in (text := await socket.receive_str(timeout=ANSWER_SEC)) or job["job_id"] not in text:
            assert not FOREIGN.search(text), text
