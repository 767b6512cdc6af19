"""Issue "who may do what": every address of the service for every role, without a login and with one that is over.

Made from the route table: a route that is added is tested by being there. One that is not in the table fails the first test.
"""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus, urlencode, urlsplit

import aiohttp
import pytest

from app.access import accounts, sessions, tokens
from app.access.secrets import hash_of
from app.application import create_app
from app.changes import TOPICS
from app.config import Settings
from app.foundation import lay_foundation, open_beside
from app.model import rfc3339
from app.rights import ROLES, Role
from app.scope import WHOLE, Scope
from app.web import requests
from app.web.errors import REFERENCE
from app.web.guard import PUBLIC, SESSION_COOKIE, route_of
from app.web.route import Route
from app.web.routes import ROUTES
from app.web.subscriber import PROGRESS
from tests.contract.conftest import ALPHA, BETA, VMS
from tests.contract.speech import ANSWER_SEC, CHANGES, FEED, TRIGGER, Api
from tests.nodes import Vm
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


async def answer_to(
    service: Service, route: Route, caller: Caller, ids: Mapping[str, str] = SAMPLES, said: bytes | None = None
) -> tuple[int, str, str]:
    """Status, body, and where it leads; asked as the service's own page would."""
    headers = {**caller.headers, "Origin": service.url, "Content-Type": "application/json" if said is None else route.body_type}
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
        session.request(
            route.method, path_of(route, ids), headers=headers, params=query, data=said, allow_redirects=False
        ) as answer,
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


LIMITED: tuple[Role, ...] = tuple(role for role in ROLES if role != "administrator")
"""An administrator has no scope."""


@pytest.fixture(scope="module")
def tenants(service: Service) -> dict[Role, Caller]:
    """Somebody of each role, limited to one VM, ``alpha``."""

    def introduce(connection: sqlite3.Connection) -> None:
        for role in LIMITED:
            accounts.add(connection, f"tenant-{role}", role, Scope(vms=(ALPHA.name,)), None, LONG_AGO)
            tokens.add(connection, hash_of(f"token-tenant-{role}"), f"tenant-{role}", "x", None, WHOLE, LONG_AGO, LATER)

    with contextlib.closing(open_beside(Settings.from_environment(service.environment))) as state:
        state.run_now(introduce)
    return {role: Caller(f"tenant, {role}", bearer(f"token-tenant-{role}"), role) for role in LIMITED}


@pytest.fixture(params=LIMITED)
def tenant(request: pytest.FixtureRequest, tenants: dict[Role, Caller]) -> Caller:
    return tenants[request.param]


VM = "(a VM)"
PASSWORD = "correct horse battery"
SAID: dict[str, dict[str, object]] = {
    "trigger": {"vm_ids": [VM]},
    "cancel": {},
    "makeAccount": {"name": "eve", "role": "viewer", "vms": [VM], "password": PASSWORD},
    "changeAccount": {"role": "administrator"},
    "setPassword": {"password": PASSWORD},
    "ownPassword": {"old": "whatever it was", "new": PASSWORD},
    "removeAccount": {},
    "endSessions": {"name": "admin"},
    "makeToken": {"label": "more", "vms": [VM]},
    "revokeToken": {},
    "login": {"code": "guessed"},
    "logout": {},
}
"""What is sent where something is changed: as it has to be, so that it is the scope that it is refused by."""


def said_of(route: Route, vm: str) -> bytes | None:
    """That, about this VM; None where nothing is sent."""
    if route.method == "GET":
        return None
    if route.body_type == "application/json":
        return json.dumps(SAID[route.name]).replace(VM, vm).encode()
    return urlencode(SAID[route.name]).replace(quote_plus(VM), vm).encode()


def test_what_is_sent_to_each_address_that_changes_something_is_what_it_takes() -> None:
    changing = [route for route in ROUTES if route.method != "GET"]
    assert SAID.keys() == {route.name for route in changing}
    for route in changing:
        if route.body_type == "application/json" and route.body is not None:
            requests.body(said_of(route, BETA.uuid) or b"", route.body)


async def ids_of_a_dump(api: Api, vm: Vm) -> dict[str, str]:
    """Made by another, so that there is something to learn of."""
    async with api.session.post(TRIGGER, json={"vm_ids": [vm.uuid]}) as answer:
        (job,) = (await answer.json())["jobs"]
    async with api.feed() as feed:
        ended = await feed.ended([job["job_id"]], snapshot=await feed.next())
    return {"job_id": job["job_id"], "dump_id": ended[job["job_id"]]["dump_id"], "number": "1", "name": "admin", "path": "main.js"}


async def test_no_address_tells_a_tenant_of_anothers_vms(api: Api, service: Service, tenant: Caller) -> None:
    there = await ids_of_a_dump(api, BETA)
    told: list[object] = []
    for route in ROUTES:
        names_vm = VM in str(SAID.get(route.name))
        ways = [(there, BETA.uuid), (SAMPLES, NOTHING)] if "{" in route.pattern or names_vm else [(there, BETA.uuid)]
        if names_vm:
            ways.append((there, BETA.name))
        answers = [await answer_to(service, route, tenant, ids, said_of(route, vm)) for ids, vm in ways]
        for (_, vm), (status, body, _) in zip(ways, answers, strict=True):
            told += [(route.name, status, found[0]) for found in FOREIGN.finditer(body.replace(vm, "…"))]
            lacking = route.right is not None and tenant.role is not None and route.right not in ROLES[tenant.role]
            told += [(route.name, status, body)] * (status >= 500 if not lacking else status != 403)
        if "{job_id}" in route.pattern or "{dump_id}" in route.pattern or names_vm:
            real, none = [
                (status, anonymous(body.replace(vm, "…"), ids))
                for (ids, vm), (status, body, _) in zip(ways[:2], answers[:2], strict=True)
            ]
            told += [(route.name, real, none)] * (real != none)
    assert not told


async def test_whatever_an_address_shows_of_a_vm_it_shows_its_tenant(api: Api, service: Service, tenant: Caller) -> None:
    """Each role's own scope, held against what an administrator is shown."""
    own = await ids_of_a_dump(api, ALPHA)
    marks = {ALPHA.uuid, own["job_id"], own["dump_id"]}
    administrator = Caller("administrator", bearer(service.token), "administrator")
    shown = 0
    for route in ROUTES:
        if route.method != "GET" or tenant.role is None or route.right not in ROLES[tenant.role]:
            continue
        told, told_all = [await answer_to(service, route, who, own) for who in (tenant, administrator)]
        assert told[0] == told_all[0], route.name
        for mark in marks:
            assert (mark in told[1]) == (mark in told_all[1]), (route.name, mark)
            shown += mark in told[1]
    assert shown > 10


def anonymous(body: str, ids: Mapping[str, str]) -> str:
    for text in (ids["job_id"], ids["dump_id"]):
        body = body.replace(text, "…")
    return body


async def test_the_feed_tells_a_tenant_of_their_own_vms_alone_whatever_they_ask_it_for(
    api: Api, service: Service, tenant: Caller
) -> None:
    """With their own jobs, by which it is seen how far it has been heard."""
    async with contextlib.AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession(service.url, headers=dict(tenant.headers)))
        wanted = {topic: f"topics={topic},job" for topic in (*TOPICS, PROGRESS)}
        sockets = {topic: await stack.enter_async_context(session.ws_connect(f"{FEED}?{ask}")) for topic, ask in wanted.items()}
        for topic, socket in sockets.items():
            first = await socket.receive_str(timeout=ANSWER_SEC)
            assert not FOREIGN.search(first), topic
            assert topic != "vms" or ALPHA.uuid in first
        cursors = {topic: (await heard(session, f"{ask}&wait=0"))["cursor"] for topic, ask in wanted.items()}
        await ids_of_a_dump(api, BETA)
        own = [(await api.dump(ALPHA.uuid))[0]["job_id"] for _ in range(2)]  # what came late of the first is there with the second
        for topic, socket in sockets.items():
            ended = False
            while not ended:
                message = json.loads(text := await socket.receive_str(timeout=ANSWER_SEC))
                assert not FOREIGN.search(text), topic
                assert message["type"] in (topic, "job", "alive")
                job = message.get("job", {})
                ended = job.get("job_id") == own[-1] and job.get("phase") == "completed"
        for topic, ask in wanted.items():
            told = await heard(session, f"{ask}&wait=0&since={cursors[topic]}")
            assert not FOREIGN.search(json.dumps(told)), topic
            assert {message["type"] for message in told["messages"]} <= {topic, "job"}


async def heard(session: aiohttp.ClientSession, query: str) -> dict[str, Any]:
    """What a long request is answered with."""
    async with session.get(f"{CHANGES}?{query}") as answer:
        assert answer.status == 200
        found: dict[str, Any] = await answer.json()
        return found
