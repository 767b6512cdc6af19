"""Accounts and tokens over the API and on their pages: who may keep which, and that it counts."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from html import unescape

import aiohttp
import pytest

from app.access import accounts, sessions, tokens
from app.access.audit import entries_in
from app.access.secrets import hash_of
from app.config import Settings
from app.foundation import open_beside
from app.model import rfc3339
from app.scope import Scope
from app.web.guard import SESSION_COOKIE
from tests.contract.speech import RECORDS, TRIGGER, Api, assert_problem
from tests.service import Service

ACCOUNTS, TOKENS = "/api/accounts", "/api/tokens"
PASSWORD = "correct horse battery"
BOB, SHOP = "bob", Scope(vms=("shop-*",))
LATER = "2999-01-01T00:00:00.000000Z"
Beside = Callable[[Callable[[sqlite3.Connection], object]], object]


def now() -> str:
    return rfc3339(datetime.now(UTC))


@pytest.fixture
def beside(service: Service) -> Iterator[Beside]:
    with contextlib.closing(open_beside(Settings.from_environment(service.environment))) as state:
        yield state.run_now


@pytest.fixture(autouse=True)
def only_the_administrator_stays(beside: Beside) -> Iterator[None]:
    yield

    def remove(connection: sqlite3.Connection) -> None:
        for account in accounts.every(connection):
            if account.name != "admin":
                accounts.remove(connection, account.name, now())
        for token in tokens.every(connection):
            if token.label != "first":
                tokens.withdraw(connection, token.number, now())

    beside(remove)


@pytest.fixture
async def bob(service: Service, api: Api, beside: Beside) -> AsyncIterator[aiohttp.ClientSession]:
    """An operator of the shop, in a browser."""

    def make(connection: sqlite3.Connection) -> None:
        accounts.add(connection, BOB, "operator", SHOP, None, now())
        sessions.begin(connection, hash_of("bobs-session"), BOB, now(), LATER)

    beside(make)
    headers = {"Cookie": f"{SESSION_COOKIE}=bobs-session", "Origin": service.url}
    async with aiohttp.ClientSession(service.url, headers=headers, cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield session


@pytest.fixture
async def admin(service: Service, api: Api, beside: Beside) -> AsyncIterator[aiohttp.ClientSession]:
    """The administrator, in a browser."""
    beside(lambda connection: connection.execute("DELETE FROM sessions WHERE hash = ?", (hash_of("admins-session"),)))
    beside(lambda connection: sessions.begin(connection, hash_of("admins-session"), "admin", now(), LATER))
    headers = {"Cookie": f"{SESSION_COOKIE}=admins-session", "Origin": service.url}
    async with aiohttp.ClientSession(service.url, headers=headers, cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield session


async def said(session: aiohttp.ClientSession, method: str, path: str, **asked: object) -> tuple[int, dict[str, object]]:
    async with session.request(method, path, **asked) as answer:  # type: ignore[arg-type] # json, data
        document = {} if answer.status == 204 else await answer.json(content_type=None)
        return answer.status, document


# --- for programs


async def test_an_account_is_made_changed_given_a_password_and_removed(api: Api, service: Service, beside: Beside) -> None:
    made = {"name": "ann", "role": "operator", "vms": ["shop-*"], "groups": ["blue"], "password": PASSWORD}
    status, account = await said(api.session, "POST", ACCOUNTS, json=made)
    assert status == 201
    assert account | {"created_at": "now"} == {
        "name": "ann", "role": "operator", "hypervisors": [], "vms": ["shop-*"], "groups": ["blue"], "has_password": True,
        "created_at": "now",
    }  # fmt: skip
    status, listed = await said(api.session, "GET", ACCOUNTS)
    assert isinstance(listed["accounts"], list)
    assert [one["name"] for one in listed["accounts"]] == ["admin", "ann"]
    assert PASSWORD not in str(listed)
    status, changed = await said(api.session, "POST", f"{ACCOUNTS}/ann/change", json={"role": "viewer"})
    assert (status, changed["role"], changed["vms"]) == (200, "viewer", [])
    assert await said(api.session, "POST", f"{ACCOUNTS}/ann/password", json={"password": "another password"}) == (204, {})
    assert await said(api.session, "POST", f"{ACCOUNTS}/ann/remove") == (204, {})
    written = beside(lambda connection: list(entries_in(connection)))
    assert isinstance(written, list)
    assert [(entry.deed, entry.subject, entry.who, entry.result) for entry in written[-4:]] == [
        (deed, "ann", "admin", "done") for deed in ("account-made", "account-changed", "password-changed", "account-removed")
    ]


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        (ACCOUNTS, {"name": "Ann", "role": "viewer"}, 400, "request-invalid"),
        (ACCOUNTS, {"name": "ann", "role": "king"}, 400, "request-invalid"),
        (ACCOUNTS, {"name": "ann", "role": "viewer", "password": "short"}, 400, "request-invalid"),
        (ACCOUNTS, {"name": "ann", "role": "administrator", "vms": ["x"]}, 400, "request-invalid"),
        (ACCOUNTS, {"name": "admin", "role": "viewer"}, 409, "account-exists"),
        (f"{ACCOUNTS}/ann/change", {"role": "viewer"}, 404, "account-unknown"),
        (f"{ACCOUNTS}/admin/change", {"role": "viewer"}, 409, "last-administrator"),
        (f"{ACCOUNTS}/admin/remove", {}, 409, "last-administrator"),
        (f"{ACCOUNTS}/..%2fadmin/remove", {}, 404, "account-unknown"),
        (TOKENS, {"label": "x", "account": "ann"}, 404, "account-unknown"),
        (TOKENS, {"label": "x", "expires_at": "tomorrow"}, 400, "request-invalid"),
        (TOKENS, {"label": "x", "expires_at": "2001-01-01T00:00:00Z"}, 400, "request-invalid"),
        (TOKENS, {"label": "x", "expires_at": "0999-01-01T00:00:00Z"}, 400, "request-invalid"),
        (TOKENS, {"label": ""}, 400, "request-invalid"),
        (f"{TOKENS}/999/revoke", {}, 404, "token-unknown"),
        (f"{TOKENS}/x/revoke", {}, 404, "token-unknown"),
    ],
)
async def test_what_cannot_be_is_refused_with_its_code(
    api: Api, path: str, body: dict[str, object], status: int, code: str
) -> None:
    answered, problem = await said(api.session, "POST", path, json=body)
    assert answered == status
    assert problem["code"] == code
    assert_problem(problem, status)


async def test_a_token_is_shown_once_and_opens_until_it_is_revoked(api: Api, nobody: aiohttp.ClientSession) -> None:
    status, made = await said(api.session, "POST", TOKENS, json={"label": "nightly", "role": "viewer", "expires_at": LATER})
    assert status == 201
    token, secret = made["token"], made["secret"]
    assert isinstance(token, dict)
    assert (token["account"], token["role"], token["expires_at"]) == ("admin", "viewer", LATER)
    bearer = {"Authorization": f"Bearer {secret}"}
    assert (await said(nobody, "GET", RECORDS, headers=bearer))[0] == 200
    assert (await said(nobody, "POST", TRIGGER, headers=bearer, json={"all": True}))[0] == 403
    listed = (await said(api.session, "GET", TOKENS))[1]
    assert str(secret) not in str(listed)
    assert "nightly" in str(listed)
    assert (await said(api.session, "POST", f"{TOKENS}/{token['number']}/revoke"))[0] == 200
    assert "nightly" not in str((await said(api.session, "GET", TOKENS))[1])


async def test_one_keeps_ones_own_tokens_and_learns_of_no_others(api: Api, bob: aiohttp.ClientSession) -> None:
    status, made = await said(bob, "POST", TOKENS, json={"label": "mine"})
    assert status == 201
    token = made["token"]
    assert isinstance(token, dict)
    assert (token["account"], token["role"], token["vms"]) == (BOB, "operator", ["shop-*"])
    listed = (await said(bob, "GET", TOKENS))[1]["tokens"]
    assert isinstance(listed, list)
    assert [one["label"] for one in listed] == ["mine"]
    others, none = await said(bob, "POST", f"{TOKENS}/1/revoke", json={}), await said(bob, "POST", f"{TOKENS}/99/revoke", json={})
    assert others[0] == none[0] == 404
    assert str(others).replace("token 1,", "token 99,") == str(none)
    for account in ("admin", "nobody"):
        assert (await said(bob, "POST", TOKENS, json={"label": "x", "account": account}))[1]["code"] == "account-unknown"
    for more in ({"role": "investigator"}, {"vms": ["*"]}, {"groups": ["blue"]}):
        assert (await said(bob, "POST", TOKENS, json={"label": "x", **more}))[1]["code"] == "beyond-own-rights"
    assert (await said(bob, "POST", f"{TOKENS}/{token['number']}/revoke", json={}))[0] == 200


async def test_a_token_of_less_than_its_account_makes_and_sees_none_of_more(api: Api, nobody: aiohttp.ClientSession) -> None:
    made = (await said(api.session, "POST", TOKENS, json={"label": "less", "role": "viewer"}))[1]
    bearer = {"Authorization": f"Bearer {made['secret']}"}
    assert (await said(nobody, "POST", TOKENS, headers=bearer, json={"label": "x", "role": "operator"}))[0] == 403
    status, more = await said(nobody, "POST", TOKENS, headers=bearer, json={"label": "child"})
    assert (status, str(more["token"]).count("viewer")) == (201, 1)
    listed = (await said(nobody, "GET", TOKENS, headers=bearer))[1]["tokens"]
    assert isinstance(listed, list)
    assert {one["role"] for one in listed} == {"viewer"}
    assert (await said(nobody, "POST", f"{TOKENS}/1/revoke", headers=bearer))[0] == 404


async def test_a_token_that_expires_makes_none_that_outlives_it(api: Api, nobody: aiohttp.ClientSession) -> None:
    soon = rfc3339(datetime.now(UTC) + timedelta(hours=1))
    made = (await said(api.session, "POST", TOKENS, json={"label": "brief", "expires_at": soon}))[1]
    bearer = {"Authorization": f"Bearer {made['secret']}"}
    for asked in ({"label": "child"}, {"label": "heir", "account": "admin", "expires_at": soon}):
        status, child = await said(nobody, "POST", TOKENS, headers=bearer, json=asked)
        assert (status, child["token"]["expires_at"]) == (201, soon)  # type: ignore[index] # of a token
    status, refusal = await said(nobody, "POST", TOKENS, headers=bearer, json={"label": "x", "expires_at": LATER})
    assert (status, refusal["code"], refusal["place"]) == (400, "request-invalid", "$.expires_at")
    assert soon in str(refusal["detail"])
    assert (await said(api.session, "POST", TOKENS, json={"label": "lasting"}))[1]["token"]["expires_at"] is None  # type: ignore[index] # the first one never expires


async def test_an_administrators_token_that_expires_gives_nobody_what_would_be_there_after_it(
    api: Api, nobody: aiohttp.ClientSession
) -> None:
    soon = rfc3339(datetime.now(UTC) + timedelta(hours=1))
    made = (await said(api.session, "POST", TOKENS, json={"label": "brief", "expires_at": soon}))[1]
    bearer = {"Authorization": f"Bearer {made['secret']}"}
    ann = {"name": "ann", "role": "operator", "vms": ["shop-*"]}
    assert (await said(nobody, "POST", ACCOUNTS, headers=bearer, json=ann))[0] == 201  # as which nobody can log in
    for path, asked in (
        (ACCOUNTS, {"name": "eve", "role": "viewer", "password": PASSWORD}),
        (f"{ACCOUNTS}/ann/password", {"password": PASSWORD}),
        (f"{ACCOUNTS}/admin/password", {"password": PASSWORD}),
        (f"{ACCOUNTS}/ann/change", {"role": "investigator", "vms": ["shop-*"]}),
        (f"{ACCOUNTS}/ann/change", {"role": "administrator"}),
        (f"{ACCOUNTS}/ann/change", {"role": "operator", "vms": ["*"]}),
        (f"{ACCOUNTS}/ann/change", {"role": "viewer"}),
    ):
        status, refusal = await said(nobody, "POST", path, headers=bearer, json=asked)
        assert (status, refusal["code"], soon in str(refusal["detail"])) == (403, "beyond-own-rights", True), path
        assert_problem(refusal, 403)
    listed = (await said(nobody, "GET", ACCOUNTS, headers=bearer))[1]["accounts"]
    assert isinstance(listed, list)
    assert [(one["name"], one["has_password"]) for one in listed] == [("admin", False), ("ann", False)]
    assert (listed[1]["role"], listed[1]["vms"]) == ("operator", ["shop-*"])
    less = {"role": "viewer", "vms": ["shop-1"]}
    assert (await said(nobody, "POST", f"{ACCOUNTS}/ann/change", headers=bearer, json=less))[0] == 200
    assert (await said(nobody, "POST", f"{ACCOUNTS}/ann/remove", headers=bearer))[0] == 204


async def test_an_account_has_a_hundred_tokens_and_those_that_expired_make_room(bob: aiohttp.ClientSession, beside: Beside) -> None:
    async def make() -> tuple[int, dict[str, object]]:
        return await said(bob, "POST", TOKENS, json={"label": "one more"})

    def fill(connection: sqlite3.Connection) -> None:
        for number in range(tokens.MOST_TOKENS):
            tokens.add(connection, hash_of(f"mdt_{number}"), BOB, "x", None, SHOP, now(), LATER)

    beside(fill)
    status, refusal = await make()
    assert (status, refusal["code"]) == (409, "too-many-tokens")
    expire = "UPDATE tokens SET expires_at = '2001-01-01T00:00:00.000000Z' WHERE hash = ?"
    beside(lambda connection: connection.execute(expire, (hash_of("mdt_7"),)))
    assert [(await make())[0] for _ in range(2)] == [201, 409]


# --- on the pages


async def shown(session: aiohttp.ClientSession, path: str) -> str:
    async with session.get(path) as answer:
        assert answer.status == 200
        return unescape(await answer.text())


async def test_an_account_is_on_the_page_as_it_is_and_gone_when_it_is_removed(
    admin: aiohttp.ClientSession, nobody: aiohttp.ClientSession, service: Service
) -> None:
    ann = {"name": "ann", "role": "operator", "vms": ["shop-*", "cart-*"], "password": PASSWORD}
    assert (await said(admin, "POST", ACCOUNTS, json=ann))[0] == 201
    assert "operator · VMs shop-* cart-*" in await shown(admin, "/accounts")
    login = {"name": "ann", "password": PASSWORD}
    async with nobody.post("/login", data=login, headers={"Origin": service.url}, allow_redirects=False) as answer:
        assert answer.status == 303
        cookie = {"Cookie": f"{SESSION_COOKIE}={answer.cookies[SESSION_COOKIE].value}"}
    async with nobody.get(RECORDS, headers=cookie) as answer:
        assert answer.status == 200
    assert (await said(admin, "POST", f"{ACCOUNTS}/ann/change", json={"role": "viewer"}))[0] == 200
    assert "viewer · all VMs" in await shown(admin, "/accounts")
    assert (await said(admin, "POST", f"{ACCOUNTS}/ann/remove", json={}))[0] == 204
    assert "ann" not in re.findall(r'data-account="([^"]*)"', await shown(admin, "/accounts"))


async def test_a_token_is_on_the_page_without_its_secret(bob: aiohttp.ClientSession) -> None:
    status, made = await said(bob, "POST", TOKENS, json={"label": "nightly <b>", "role": "viewer", "expires_at": LATER})
    assert status == 201
    page = await shown(bob, "/tokens")
    assert str(made["secret"]) not in page
    (number,) = re.findall(r'data-token="(\d+)"', page)
    assert (await said(bob, "POST", f"{TOKENS}/{number}/revoke", json={}))[0] == 200
    assert "data-token" not in await shown(bob, "/tokens")


async def test_people_change_their_own_password_and_log_in_with_it(
    bob: aiohttp.ClientSession, admin: aiohttp.ClientSession, nobody: aiohttp.ClientSession, service: Service
) -> None:
    assert "Your password" in await shown(bob, "/tokens")
    assert (await said(admin, "POST", f"{ACCOUNTS}/{BOB}/password", json={"password": PASSWORD}))[0] == 204
    login = {"name": BOB, "password": PASSWORD}
    async with nobody.post("/login", data=login, headers={"Origin": service.url}, allow_redirects=False) as answer:
        session = {"Cookie": f"{SESSION_COOKIE}={answer.cookies[SESSION_COOKIE].value}", "Origin": service.url}
    for old, new, status in (
        ("another password", "a longer password", 400),
        (PASSWORD, "short", 400),
        (PASSWORD, "a longer password", 204),
    ):
        asked = {"old": old, "new": new}
        assert (await said(nobody, "POST", "/api/password", json=asked, headers=session))[0] == status
    async with nobody.get(RECORDS, headers=session) as answer:
        assert answer.status == 401
    for password, status in ((PASSWORD, 401), ("a longer password", 303)):
        login = {"name": BOB, "password": password}
        async with nobody.post("/login", data=login, headers={"Origin": service.url}, allow_redirects=False) as answer:
            assert answer.status == status


async def test_by_the_api_a_password_is_changed_by_who_knows_it(api: Api) -> None:
    answer = await api.post("/api/password", {"old": "not the password", "new": PASSWORD}, 400)
    assert answer["code"] == "password-wrong"


async def test_an_administrator_ends_every_session_of_a_name(
    bob: aiohttp.ClientSession, admin: aiohttp.ClientSession, api: Api, beside: Beside
) -> None:
    carol = "Carol O'Neil/ops"  # has no account here

    def log_in(connection: sqlite3.Connection) -> None:
        for number in range(2):
            sessions.begin_for(connection, hash_of(f"carols-{number}"), carol, "viewer", SHOP, now(), LATER)

    beside(log_in)
    assert await said(api.session, "POST", "/api/sessions/end", json={"name": carol}) == (200, {"name": carol, "ended": 2})
    assert await said(api.session, "POST", "/api/sessions/end", json={"name": carol}) == (200, {"name": carol, "ended": 0})
    assert (await said(bob, "POST", "/api/sessions/end", json={"name": "admin"}))[0] == 403
    assert await said(admin, "POST", "/api/sessions/end", json={"name": BOB}) == (200, {"name": BOB, "ended": 1})
    assert (await said(admin, "POST", "/api/sessions/end", json={"name": ""}))[0] == 400
    written = beside(lambda connection: [one for one in entries_in(connection) if one.deed == "sessions-ended"])
    assert isinstance(written, list)
    assert [(one.subject, one.who, one.details.get("ended")) for one in written if one.result == "done"] == [
        (carol, "admin", 2), (carol, "admin", 0), (BOB, "admin", 1),
    ]  # fmt: skip


async def test_a_foreign_page_keeps_nothing(admin: aiohttp.ClientSession, service: Service) -> None:
    eve = {"name": "eve", "role": "viewer", "label": "x", "password": PASSWORD}
    for path in (ACCOUNTS, f"{ACCOUNTS}/admin/password", TOKENS, "/logout"):
        async with admin.post(path, json=eve, headers={"Origin": "https://evil.example"}) as answer:
            assert answer.status == 403
        for origin, status in (("https://evil.example", 403), (service.url, 415)):  # a form is what such a page could send
            async with admin.post(path, data=eve, headers={"Origin": origin}) as answer:
                assert answer.status == status
    assert 'data-account="eve"' not in await shown(admin, "/accounts")
