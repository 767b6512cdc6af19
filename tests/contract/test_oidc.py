"""``MEMDUMP_AUTH=oidc``: people log in at an OpenID provider, a real one, and their groups say what they may."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from http.cookies import SimpleCookie
from urllib.parse import parse_qs, urlsplit, urlunsplit

import aiohttp
import pytest

from app.access.attempts import TRIES
from tests.contract.conftest import VMS
from tests.contract.speech import RECORDS, TRIGGER
from tests.contract.test_audit import stranger_at, trail
from tests.nodes import node
from tests.provider import is_there, log_in, running_provider
from tests.service import Service, running_service

pytestmark = pytest.mark.skipif(not is_there(), reason="the set-up fetches the provider where npm is")

ROLES = {"soc": "investigator", "ops": "operator", "staff": "viewer"}
SESSION, LOGIN = "memory_dumps_session", "memory_dumps_login"


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    with running_provider() as found:
        yield found


@pytest.fixture(scope="module", params=["confidential", "public"])
def service(tmp_path_factory: pytest.TempPathFactory, issuer: str, request: pytest.FixtureRequest) -> Iterator[Service]:
    """A service that is a client of the provider, with a secret and without one."""
    folder = tmp_path_factory.mktemp("service")
    settings = {
        "LIBVIRT_URI": node(folder / "node.xml", VMS),
        "MEMDUMP_AUTH": "oidc",
        "MEMDUMP_OIDC_ISSUER": issuer,
        "MEMDUMP_OIDC_CLIENT_ID": request.param,
        "MEMDUMP_OIDC_CLIENT_SECRET": "very-secret" if request.param == "confidential" else "",
        "MEMDUMP_GROUP_ROLES": json.dumps(ROLES),
    }
    with running_service(folder, **settings) as started:
        yield started


@pytest.fixture
async def browser() -> AsyncIterator[aiohttp.ClientSession]:
    """Somebody's browser, with cookies of its own at the provider."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        yield session


async def begin(service: Service, nobody: aiohttp.ClientSession, target: str = "/memory-dumps") -> tuple[str, str]:
    """Where the service sends a browser, and the cookie that it keeps meanwhile."""
    async with nobody.get("/login/oidc", params={"next": target}, allow_redirects=False) as answer:
        assert answer.status == 303
        cookie: SimpleCookie = SimpleCookie(answer.headers["Set-Cookie"])
        assert cookie[LOGIN]["httponly"]
        assert cookie[LOGIN]["samesite"] == "Lax"
        return answer.headers["Location"], f"{LOGIN}={cookie[LOGIN].value}"


async def session_of(nobody: aiohttp.ClientSession, back: str, cookie: str) -> dict[str, str]:
    """The header of a session, from the way back."""
    async with nobody.get(back, headers={"Cookie": cookie}, allow_redirects=False) as answer:
        assert answer.status == 200, await answer.text()
        kept: SimpleCookie = SimpleCookie()
        for line in answer.headers.getall("Set-Cookie"):
            kept.load(line)
        assert kept[SESSION]["samesite"] == "Strict"
        assert kept[SESSION]["httponly"]
        assert kept[LOGIN].value == ""
        return {"Cookie": f"{SESSION}={kept[SESSION].value}"}


async def test_the_page_leads_to_the_provider_and_asks_for_no_password(
    service: Service, nobody: aiohttp.ClientSession, issuer: str
) -> None:
    async with nobody.get("/login?next=/logout") as answer:
        page = await answer.text()
    assert 'href="/login/oidc?next=/logout"' in page
    assert issuer in page
    assert "password" not in page.lower()
    asked = parse_qs(urlsplit((await begin(service, nobody))[0]).query)
    assert asked["response_type"] == ["code"]
    assert asked["code_challenge_method"] == ["S256"]
    assert {len(asked[name][0]) for name in ("state", "nonce", "code_challenge")} == {43}
    assert "very-secret" not in service.log_text()


@pytest.mark.parametrize(("person", "status"), [("anna+staff", 403), ("anna+x+ops", 404), ("anna+soc+staff", 404)])
async def test_a_person_logs_in_at_the_provider_and_may_what_their_groups_may(
    service: Service, nobody: aiohttp.ClientSession, browser: aiohttp.ClientSession, person: str, status: int
) -> None:
    address, cookie = await begin(service, nobody, "/memory-dumps?q=a")
    back = await log_in(browser, address, person)
    async with nobody.get(back, headers={"Cookie": cookie}, allow_redirects=False) as answer:
        page = await answer.text()
    assert 'content="0; url=/memory-dumps?q=a"' in page
    assert "anna" in page
    session = {"Cookie": answer.headers.getall("Set-Cookie")[0].partition(";")[0]}
    async with nobody.get("/memory-dumps", headers=session, allow_redirects=False) as answer:
        assert answer.status == 200
    headers = {**session, "Origin": service.url}
    async with nobody.post(TRIGGER, headers=headers, json={"vm_ids": ["nowhere"]}) as answer:
        assert answer.status == status
    async with nobody.post("/logout", headers=headers, json={}) as answer:
        assert answer.status == 204
    async with nobody.get(RECORDS, headers=session) as answer:
        assert answer.status == 401


async def test_who_is_in_no_group_with_a_role_gets_no_session(
    service: Service, nobody: aiohttp.ClientSession, browser: aiohttp.ClientSession
) -> None:
    address, cookie = await begin(service, nobody)
    back = await log_in(browser, address, "mallory+other")
    async with nobody.get(back, headers={"Cookie": cookie}, allow_redirects=False) as answer:
        assert answer.status == 403
        assert SESSION not in answer.cookies
        assert "none of their groups has a role" in await answer.text()


async def test_the_trail_tells_people_of_the_provider_from_accounts_of_the_same_name(
    service: Service, nobody: aiohttp.ClientSession, browser: aiohttp.ClientSession, issuer: str
) -> None:
    address, cookie = await begin(service, nobody)
    session = await session_of(nobody, await log_in(browser, address, "admin+staff"), cookie)
    async with nobody.post(TRIGGER, headers={**session, "Origin": service.url}, json={"all": True}) as answer:
        assert answer.status == 403
    login, refused = [entry for entry in trail(service) if entry.who == "admin" and entry.via == "oidc"]
    assert (login.deed, login.details["iss"], refused.result) == ("login", issuer, "not-allowed")
    assert login.details["sub"]
    address, cookie = await begin(service, nobody)
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as other:
        back = await log_in(other, address, "admin+other")
    async with nobody.get(back, headers={"Cookie": cookie}) as answer:
        assert answer.status == 403
    turned_away = trail(service)[-1]
    assert (turned_away.deed, turned_away.via, turned_away.subject) == ("login-refused", "oidc", "admin")
    assert turned_away.details["iss"] == issuer
    assert turned_away.details["sub"]


async def test_a_login_that_another_browser_began_or_that_was_used_is_worth_nothing(
    service: Service, nobody: aiohttp.ClientSession, browser: aiohttp.ClientSession
) -> None:
    address, cookie = await begin(service, nobody)
    _, other = await begin(service, nobody)
    back = await log_in(browser, address, "anna+soc")
    for kept in ("", other, f"{LOGIN}=", f"{LOGIN}=x.y", f"{LOGIN}=.L2xvZ291dA=="):
        async with nobody.get(back, headers={"Cookie": kept}, allow_redirects=False) as answer:
            assert answer.status == 400
            assert SESSION not in answer.cookies
    await session_of(nobody, back, cookie)
    async with nobody.get(back, headers={"Cookie": cookie}, allow_redirects=False) as answer:  # the code is used up
        assert answer.status == 401
        assert SESSION not in answer.cookies


async def test_an_answer_that_is_not_the_providers_is_refused(service: Service, nobody: aiohttp.ClientSession) -> None:
    address, cookie = await begin(service, nobody)
    (state,) = parse_qs(urlsplit(address).query)["state"]
    for params, status in (
        ({}, 400),
        ({"code": "x"}, 400),
        ({"code": "x", "state": state[:-1]}, 400),
        ({"code": "x", "state": "ü"}, 400),
        ({"state": state}, 401),
        ({"error": "access_denied", "state": state}, 401),
        ({"code": "forged", "state": state}, 401),
        ({"code": "forged", "state": state, "iss": "https://evil.example"}, 401),
    ):
        async with nobody.get("/login/oidc/back", params=params, headers={"Cookie": cookie}, allow_redirects=False) as answer:
            assert (answer.status, SESSION in answer.cookies) == (status, False)


async def test_a_code_is_worth_nothing_to_a_login_with_another_verifier(
    service: Service, nobody: aiohttp.ClientSession, browser: aiohttp.ClientSession
) -> None:
    """Somebody who saw the code on its way puts it into a login of their own: PKCE and the nonce are for that."""
    address, _ = await begin(service, nobody)
    stolen = parse_qs(urlsplit(await log_in(browser, address, "anna+soc")).query)["code"][0]
    own, cookie = await begin(service, nobody)
    (state,) = parse_qs(urlsplit(own).query)["state"]
    params = {"code": stolen, "state": state}
    async with nobody.get("/login/oidc/back", params=params, headers={"Cookie": cookie}, allow_redirects=False) as answer:
        assert (answer.status, SESSION in answer.cookies) == (401, False)


async def test_after_ten_codes_in_vain_an_address_has_to_wait_and_nobody_else(
    service: Service, nobody: aiohttp.ClientSession, browser: aiohttp.ClientSession
) -> None:
    address, cookie = await begin(service, nobody)
    (state,) = parse_qs(urlsplit(address).query)["state"]
    forged = {"code": "forged", "state": state}
    async with stranger_at("127.0.9.1", service) as stranger:
        for status in (*[401] * TRIES, 429):
            async with stranger.get("/login/oidc/back", params=forged, headers={"Cookie": cookie}) as answer:
                assert (answer.status, SESSION in answer.cookies) == (status, False)
    assert 0 < int(answer.headers["Retry-After"]) <= 30
    for _ in range(TRIES + 1):  # a login uses nothing up
        address, cookie = await begin(service, nobody)
        await session_of(nobody, await log_in(browser, address, "anna+soc"), cookie)


async def test_a_password_is_no_way_around_the_provider_and_a_login_url_is_one_for_whoever_has_the_machine(
    service: Service, nobody: aiohttp.ClientSession
) -> None:
    async with nobody.post("/login", data={"name": "admin", "password": "x"}, allow_redirects=False) as answer:
        assert answer.status == 400
    code = parse_qs(urlsplit(service.fresh_login_url()).query)["code"][0]
    async with nobody.post("/login", data={"code": code}, allow_redirects=False) as answer:
        assert answer.status == 303
    async with nobody.get(RECORDS, headers=service.headers) as answer:
        assert answer.status == 200


async def test_a_provider_that_is_away_is_said_and_the_service_runs_on(service: Service, nobody: aiohttp.ClientSession) -> None:
    parts = urlsplit(service.url)
    service.stop()
    service.restart(MEMDUMP_OIDC_ISSUER="http://127.0.0.1:1")
    try:
        assert urlunsplit(parts) == service.url
        async with nobody.get("/login/oidc", allow_redirects=False) as answer:
            assert answer.status == 503
            assert "login provider" in await answer.text()
        async with nobody.get("/healthz") as answer:
            assert answer.status == 200
    finally:
        service.stop()
