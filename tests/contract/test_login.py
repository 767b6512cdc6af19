"""Contract, sections 2, 7 and 8: who is let in, how one logs in and out, and what every answer has around it."""

from __future__ import annotations

import contextlib
import re
import socket
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from http.cookies import SimpleCookie
from pathlib import Path
from typing import TypeVar
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
from aiohttp import WSMsgType, WSServerHandshakeError

from app.access import accounts, tokens
from app.access.passwords import password_hash
from app.access.secrets import hash_of
from app.config import Settings
from app.foundation import make_login_url, open_beside
from app.model import rfc3339
from app.scope import WHOLE
from app.web.errors import REFERENCE
from app.web.guard import PUBLIC
from app.web.route import Route
from app.web.routes import ROUTES
from tests.contract.conftest import VMS
from tests.contract.speech import FEED, JOBS, RECORDS, TRIGGER, Api, assert_problem
from tests.nodes import node
from tests.service import Service, running_service

T = TypeVar("T")

PASSWORD = "correct horse battery"
COOKIE = "memory_dumps_session"


def code_of(login_url: str) -> str:
    return parse_qs(urlsplit(login_url).query)["code"][0]


def fresh_code(service: Service) -> str:
    """What ``python -m app login-url`` makes, without starting a Python for it."""
    return code_of(make_login_url(Settings.from_environment(service.environment)))


async def redeem(session: aiohttp.ClientSession, service: Service, code: str, **fields: str) -> aiohttp.ClientResponse:
    """Send the login form as a browser does."""
    headers = {"Origin": service.url}
    return await session.post("/login", data={"code": code, **fields}, headers=headers, allow_redirects=False)


@pytest.fixture
async def cookie(service: Service, nobody: aiohttp.ClientSession) -> str:
    """The ``Cookie`` header of somebody who has just logged in."""
    async with await redeem(nobody, service, fresh_code(service)) as answer:
        return f"{COOKIE}={answer.cookies[COOKIE].value}"


@pytest.fixture
async def browser(service: Service, cookie: str) -> AsyncIterator[aiohttp.ClientSession]:
    """A browser that is logged in, on one of the service's own pages."""
    headers = {"Cookie": cookie, "Origin": service.url}
    async with aiohttp.ClientSession(service.url, headers=headers, cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield session


# --- the gate


def path_of(route: Route) -> str:
    return re.sub(r"\{path:\.\+\}", "main.js", route.pattern).replace("{dump_id}", "x").replace("{job_id}", "x")


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.pattern}")
@pytest.mark.parametrize(
    "login", [{}, {"Authorization": "Bearer mdt_wrong"}, {"Cookie": f"{COOKIE}=wrong"}], ids=["none", "token", "cookie"]
)
async def test_every_route_that_is_not_public_needs_a_login(
    nobody: aiohttp.ClientSession, route: Route, login: dict[str, str]
) -> None:
    public = (route.method, re.sub(r":[^}]+\}", "}", route.pattern)) in PUBLIC
    headers = {**login, "Content-Type": "application/json", "Origin": str(nobody._base_url).rstrip("/")}
    async with nobody.request(route.method, path_of(route), headers=headers, allow_redirects=False) as answer:
        if public:
            assert answer.status not in (401, 303)
        elif route.pattern.startswith("/api/") and route.pattern != REFERENCE:
            assert_problem(await answer.json(content_type=None), 401)
            assert answer.status == 401
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        else:
            assert (answer.status, urlsplit(answer.headers["Location"]).path) == (303, "/login")
        for header in ("Content-Security-Policy", "X-Content-Type-Options", "X-Frame-Options", "Referrer-Policy"):
            assert header in answer.headers


async def test_what_is_public_is_no_more_than_health_login_and_the_static_files() -> None:
    assert {f"{method} {pattern}" for method, pattern in PUBLIC} == {
        "GET /healthz", "GET /readyz", "GET /login", "POST /login", "GET /login/oidc", "GET /login/oidc/back", "GET /static/{path}",
    }  # fmt: skip


@pytest.mark.parametrize("path", ["/api/nowhere", "/api/memory-dumps/trigger/", "/nowhere", "/docs"])
async def test_without_a_login_one_does_not_even_learn_what_is_there(nobody: aiohttp.ClientSession, path: str) -> None:
    async with nobody.get(path, allow_redirects=False) as answer:
        assert answer.status == (401 if path.startswith("/api/") else 303)


async def test_health_says_only_that_the_service_is_alive(nobody: aiohttp.ClientSession) -> None:
    async with nobody.get("/healthz") as answer:
        assert (answer.status, await answer.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "a@127.0.0.1", ""])
async def test_a_foreign_host_is_refused_even_with_a_token_and_even_where_no_login_is_needed(api: Api, host: str) -> None:
    for path in ("/healthz", RECORDS, "/login"):
        async with api.session.get(path, headers={"Host": host}) as answer:
            assert answer.status == 403
    async with api.session.get(RECORDS, headers={"Host": host}) as answer:
        assert (await answer.json(content_type=None))["code"] == "host-not-allowed"


# --- login and logout


async def test_looking_at_a_login_link_does_not_use_it_up_and_using_it_does(
    service: Service, nobody: aiohttp.ClientSession
) -> None:
    code = fresh_code(service)
    for _ in range(2):
        async with nobody.get(f"/login?code={code}") as answer:
            assert answer.status == 200
            assert code in await answer.text()
    async with await redeem(nobody, service, code) as answer:
        assert (answer.status, answer.headers["Location"]) == (303, "/memory-dumps")
    async with await redeem(nobody, service, code) as answer:
        assert answer.status == 401
        assert COOKIE not in answer.cookies


async def test_the_session_cookie_is_for_the_browser_alone(service: Service, nobody: aiohttp.ClientSession) -> None:
    async with await redeem(nobody, service, fresh_code(service)) as answer:
        flags = {part.strip().lower() for part in answer.headers["Set-Cookie"].split(";")}
    assert {"httponly", "samesite=strict", "path=/"} <= flags
    assert "secure" not in flags  # it is plain http on loopback


async def test_the_cookie_insists_on_https_where_people_use_that(tmp_path: Path) -> None:
    with running_service(tmp_path, MEMDUMP_PUBLIC_URL="https://dumps.example.org") as service:
        printed = "\n".join(service.printed)
        assert "serves at https://dumps.example.org" in printed
        found = re.search(r"https://dumps\.example\.org/login\?code=(\S+)", printed)
        assert found
        names = {"Host": "dumps.example.org", "Origin": "https://dumps.example.org"}
        address = f"http://127.0.0.1:{listening_port(service)}"
        async with aiohttp.ClientSession(address, cookie_jar=aiohttp.DummyCookieJar()) as session:
            async with session.post("/login", data={"code": found[1]}, headers=names, allow_redirects=False) as answer:
                assert answer.status == 303
                cookie: SimpleCookie = SimpleCookie(answer.headers["Set-Cookie"])
                assert cookie[COOKIE]["secure"] is True
            for host, status in (("dumps.example.org", 200), ("other.example.org", 403), ("127.0.0.1", 200)):
                async with session.get(RECORDS, headers={**service.headers, "Host": host}) as answer:
                    assert answer.status == status


def listening_port(service: Service) -> int:
    """The port that the process listens on, as the kernel says."""
    inodes = set()
    for link in Path(f"/proc/{service.process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
            inodes.add(link.readlink().name)
    for line in Path(f"/proc/{service.process.pid}/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
            return int(fields[1].split(":")[1], 16)
    raise AssertionError("the service listens nowhere")


@pytest.mark.parametrize(
    ("wanted", "given"),
    [("/memory-dumps", "/memory-dumps"), ("/logout", "/logout"), ("//evil.example", "/memory-dumps"),
     ("https://evil.example", "/memory-dumps"), ("/\\evil.example", "/memory-dumps"), ("", "/memory-dumps"),
     ("/memory-dumps?q=a%20b+c&from=2026-11-01T00:00:00Z", "/memory-dumps?q=a%20b+c&from=2026-11-01T00:00:00Z"),
     ("/memory-dumps/0199?page=2", "/memory-dumps/0199?page=2"), ("//evil.example?q=/memory-dumps", "/memory-dumps"),
     ("/memory-dumps?q=\r\nSet-Cookie:+a=b", "/memory-dumps"), ("/memory-dumps?q=<b>", "/memory-dumps"),
     ("/memory-dumps?q=" + "a" * 5000, "/memory-dumps")],
)  # fmt: skip
async def test_a_login_leads_to_a_page_of_the_service_and_nowhere_else(
    service: Service, nobody: aiohttp.ClientSession, wanted: str, given: str
) -> None:
    async with await redeem(nobody, service, fresh_code(service), next=wanted) as answer:
        assert (answer.status, answer.headers["Location"]) == (303, given)


async def test_the_whole_link_does_what_its_code_does(service: Service, nobody: aiohttp.ClientSession) -> None:
    link = f"  https://dumps.example.org/login?code={fresh_code(service)}\n"
    async with await redeem(nobody, service, link, next="/logout") as answer:
        assert (answer.status, answer.headers["Location"]) == (303, "/logout")


async def test_somebody_who_is_sent_to_the_login_comes_back(nobody: aiohttp.ClientSession) -> None:
    async with nobody.get("/logout", allow_redirects=False) as answer:
        assert answer.headers["Location"] == "/login?next=%2Flogout"


async def test_a_session_reads_the_page_and_the_api(browser: aiohttp.ClientSession) -> None:
    async with browser.get("/", allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (302, "/memory-dumps")
    async with browser.get("/memory-dumps") as answer:
        assert answer.status == 200
        assert "alpha" in await answer.text()
    async with browser.get(RECORDS) as answer:
        assert answer.status == 200


async def test_logout_ends_the_session_at_once(browser: aiohttp.ClientSession) -> None:
    async with browser.get(RECORDS) as answer:
        assert answer.status == 200
    async with browser.post("/logout", json={}) as answer:
        assert answer.status == 204
        assert answer.cookies[COOKIE].value == ""
    async with browser.get(RECORDS) as answer:
        assert answer.status == 401


@pytest.mark.parametrize(
    "kind", ["multipart/form-data; boundary=x", "multipart/mixed; boundary=x", "text/plain", "application/json"]
)
@pytest.mark.parametrize("by_token", [False, True])
async def test_the_login_form_has_one_type_whoever_sends_it(
    api: Api, browser: aiohttp.ClientSession, kind: str, by_token: bool
) -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\nann\r\n--x--\r\n'
    session = api.session if by_token else browser
    async with session.post("/login", data=part, headers={"Content-Type": kind}) as answer:
        assert (answer.status, answer.headers["Accept"]) == (415, "application/x-www-form-urlencoded")


async def test_reading_the_logout_page_ends_nothing(browser: aiohttp.ClientSession) -> None:
    async with browser.get("/logout") as answer:
        assert answer.status == 200
    async with browser.get(RECORDS) as answer:
        assert answer.status == 200


# --- accounts


def with_state(service: Service, work: Callable[[sqlite3.Connection], T]) -> T:
    """What the command line does, without starting a Python for it."""
    with contextlib.closing(open_beside(Settings.from_environment(service.environment))) as state:
        return state.run_now(work)


@pytest.fixture
def viewer(service: Service) -> Iterator[str]:
    """An account that may only see; its name."""
    now, hashed = rfc3339(datetime.now(UTC)), password_hash(PASSWORD)
    with_state(service, lambda connection: accounts.add(connection, "viewer", "viewer", WHOLE, hashed, now))
    yield "viewer"
    with_state(service, lambda connection: accounts.remove(connection, "viewer", now))


async def log_in(session: aiohttp.ClientSession, service: Service, name: str, password: str) -> aiohttp.ClientResponse:
    form = {"name": name, "password": password, "next": "/logout"}
    return await session.post("/login", data=form, headers={"Origin": service.url}, allow_redirects=False)


async def test_a_name_and_its_password_log_in_and_a_viewer_may_see_and_no_more(
    service: Service, nobody: aiohttp.ClientSession, viewer: str
) -> None:
    async with await log_in(nobody, service, " Viewer ", PASSWORD) as answer:
        assert (answer.status, answer.headers["Location"]) == (303, "/logout")
        headers = {"Cookie": f"{COOKIE}={answer.cookies[COOKIE].value}", "Origin": service.url}
    async with nobody.get(RECORDS, headers=headers) as answer:
        assert answer.status == 200
    async with nobody.post(TRIGGER, json={"all": True}, headers=headers) as answer:
        assert answer.status == 403
        assert (await answer.json(content_type=None))["code"] == "not-allowed"


async def test_a_viewers_token_may_see_and_no_more(service: Service, nobody: aiohttp.ClientSession, viewer: str) -> None:
    now = rfc3339(datetime.now(UTC))
    with_state(service, lambda connection: tokens.add(connection, hash_of("mdt_v"), viewer, "x", None, WHOLE, now, None))
    headers = {"Authorization": "Bearer mdt_v"}
    async with nobody.get(RECORDS, headers=headers) as answer:
        assert answer.status == 200
    async with nobody.post(TRIGGER, json={"all": True}, headers=headers) as answer:
        assert answer.status == 403


async def test_a_login_that_is_refused_does_not_say_what_was_wrong_and_after_ten_it_has_to_wait(
    tmp_path: Path,
) -> None:
    with running_service(tmp_path, LIBVIRT_URI=node(tmp_path / "node.xml", VMS)) as service:
        now, hashed = rfc3339(datetime.now(UTC)), password_hash(PASSWORD)
        with_state(service, lambda connection: accounts.add(connection, "viewer", "viewer", WHOLE, hashed, now))
        async with aiohttp.ClientSession(service.url, cookie_jar=aiohttp.DummyCookieJar()) as session:
            said = []
            for name, password in [("viewer", "wrong password"), ("nobody", PASSWORD), ("admin", PASSWORD)] * 3:
                async with await log_in(session, service, name, password) as answer:
                    said.append((answer.status, await answer.text()))
            assert set(said) == {said[0]}
            assert said[0][0] == 401
            async with await log_in(session, service, "x", PASSWORD) as answer:
                assert answer.status == 401
            async with await log_in(session, service, "viewer", PASSWORD) as answer:
                assert answer.status == 429
                assert 0 < int(answer.headers["Retry-After"]) <= 30
                assert "Too many logins" in await answer.text()
        assert PASSWORD not in service.log_text() + service.stderr_text()


# --- what a page of somebody else may send


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "none"}, 403),
        ({"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 404),
        ({"Origin": "own"}, 404),
    ],
)
async def test_a_cookie_changes_something_only_from_the_services_own_page(
    service: Service, nobody: aiohttp.ClientSession, cookie: str, headers: dict[str, str], status: int
) -> None:
    headers = {name: service.url if value == "own" else value for name, value in headers.items()}
    async with nobody.post(f"{JOBS}/x/cancel", json={}, headers={**headers, "Cookie": cookie}) as answer:
        assert answer.status == status
        if status == 403:
            problem = await answer.json(content_type=None)
            assert problem["code"] == "origin-not-allowed"
            assert ("Bearer" in problem["detail"]) is (not headers)  # what a script would send


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_a_cookie_changes_something_only_by_json(browser: aiohttp.ClientSession, content_type: str) -> None:
    async with browser.post(TRIGGER, data=b'{"all":true}', headers={"Content-Type": content_type}) as answer:
        assert answer.status == 415
        assert (await answer.json(content_type=None))["code"] == "media-type-unsupported"


async def test_a_login_from_a_foreign_page_is_refused(service: Service, nobody: aiohttp.ClientSession) -> None:
    code = fresh_code(service)
    async with nobody.post("/login", data={"code": code}, headers={"Origin": "https://evil.example"}) as answer:
        assert answer.status == 403
    async with await redeem(nobody, service, code) as answer:  # and it did not use the code up
        assert answer.status == 303


async def test_a_token_needs_neither_origin_nor_content_type(api: Api) -> None:
    async with api.session.post(TRIGGER, data=b'{"vm_ids":["nowhere"]}', headers={"Origin": "https://evil.example"}) as answer:
        assert answer.status == 404


async def test_a_token_that_is_wrong_is_not_made_good_by_a_cookie(nobody: aiohttp.ClientSession, cookie: str) -> None:
    async with nobody.get(RECORDS, headers={"Authorization": "Bearer mdt_wrong", "Cookie": cookie}) as answer:
        assert answer.status == 401


# --- the live feed's door


@pytest.mark.parametrize(
    ("headers", "status"),
    [({}, 403), ({"Origin": "https://evil.example"}, 403), ({"Origin": "null"}, 403), ({"Sec-Fetch-Site": "same-origin"}, 403)],
)
async def test_a_cookie_with_a_foreign_or_missing_origin_gets_no_feed(
    nobody: aiohttp.ClientSession, cookie: str, headers: dict[str, str], status: int
) -> None:
    with pytest.raises(WSServerHandshakeError) as refused:
        await nobody.ws_connect(FEED, headers={**headers, "Cookie": cookie})
    assert refused.value.status == status


async def test_without_a_login_there_is_no_feed(service: Service, nobody: aiohttp.ClientSession) -> None:
    with pytest.raises(WSServerHandshakeError) as refused:
        await nobody.ws_connect(FEED, headers={"Origin": service.url})
    assert refused.value.status == 401


async def test_a_cookie_from_the_own_page_and_a_token_from_anywhere_get_the_feed(api: Api, browser: aiohttp.ClientSession) -> None:
    for session, headers in ((browser, {}), (api.session, {}), (api.session, {"Origin": "https://evil.example"})):
        async with session.ws_connect(FEED, headers=headers) as socket:
            assert (await socket.receive(20)).type is WSMsgType.TEXT


# --- MEMDUMP_AUTH=none


async def test_an_open_service_lets_everybody_in_but_not_foreign_pages(tmp_path: Path) -> None:
    settings = {"LIBVIRT_URI": node(tmp_path / "node.xml", VMS), "MEMDUMP_AUTH": "none"}
    with running_service(tmp_path, **settings) as service:
        assert (service.token, service.login_url) == ("", "")
        async with aiohttp.ClientSession(service.url) as anybody:
            async with anybody.get(RECORDS) as answer:
                assert answer.status == 200
            for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
                async with anybody.post(TRIGGER, json={"vm_ids": ["nowhere"]}, headers=headers) as answer:
                    assert answer.status == 403
                with pytest.raises(WSServerHandshakeError):
                    await anybody.ws_connect(FEED, headers=headers)
            async with anybody.post(TRIGGER, data=b'{"vm_ids":["nowhere"]}', headers={"Content-Type": "text/plain"}) as answer:
                assert answer.status == 415
            async with anybody.post(TRIGGER, json={"vm_ids": ["nowhere"]}) as answer:
                assert answer.status == 404
            async with anybody.get(RECORDS, headers={"Host": "evil.example"}) as answer:
                assert answer.status == 403
            async with anybody.post("/login", data={"name": "admin", "password": "guess"}, allow_redirects=False) as answer:
                assert answer.status == 400  # nobody looked at it


# --- around every answer


async def test_answers_are_not_kept_and_static_files_are(service: Service, browser: aiohttp.ClientSession) -> None:
    async with browser.get(RECORDS) as answer:
        assert answer.headers["Cache-Control"] == "no-store"
    async with browser.get("/memory-dumps") as answer:
        assert answer.headers["Cache-Control"] == "no-store"
        page = await answer.text()
    found = re.search(r'src="(/static/(\w+)/main\.js)"', page)
    assert found
    addresses = re.findall(r'"(/static/[^"]*)"', page)
    assert {address.split("/")[2] for address in addresses} == {found[2]}
    async with browser.get(found[1]) as answer:
        assert (answer.status, answer.headers["Cache-Control"]) == (200, "public, max-age=31536000, immutable")
        assert answer.content_type == "text/javascript"
        tag = answer.headers["ETag"]
    async with browser.get("/static/of-an-earlier-version/main.js") as answer:
        assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-cache")
    async with browser.get("/static/of-an-earlier-version/main.js", headers={"If-None-Match": tag}) as answer:
        assert (answer.status, await answer.read()) == (304, b"")
    tree = f"/static/{found[2]}"
    for path in (f"{tree}/none.js", f"{tree}/../app/__init__.py", f"{tree}/%2e%2e/__init__.py", f"{tree}/css", "/static/main.js"):
        async with browser.get(path) as answer:
            assert answer.status == 404


async def test_a_page_runs_nothing_but_the_services_own_scripts(browser: aiohttp.ClientSession) -> None:
    async with browser.get("/memory-dumps") as answer:
        policy = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == "'self'"
        assert policy["style-src"] == policy["connect-src"] == policy["form-action"] == "'self'"
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        assert policy["frame-ancestors"] == "'none'"
        assert (answer.headers["X-Content-Type-Options"], answer.headers["X-Frame-Options"]) == ("nosniff", "DENY")
        assert "aiohttp" not in answer.headers["Server"].lower()
        text = await answer.text()
    assert not re.search(r"<script(?![^>]*(\ssrc=|application/json))", text)
    assert not re.search(r"\sstyle=|<style", text)
    assert not re.search(r"\son\w+=", text)


async def test_secrets_are_neither_logged_nor_shown_again(service: Service, api: Api, browser: aiohttp.ClientSession) -> None:
    code = fresh_code(service)
    async with browser.get(f"/login?code={code}") as answer:
        assert answer.status == 200
    await api.get(RECORDS)
    cookie = browser.headers["Cookie"].partition("=")[2]
    for path in (f"/nowhere?code={code}", f"/api/nowhere?token={service.token}", f"{RECORDS}?{COOKIE}={cookie}", "/login"):
        async with browser.get(path, headers=service.headers) as answer:
            assert answer.status in (200, 400, 404)
    async with browser.post("/login", data={"code": code, "next": f"/login?code={code}"}) as answer:
        assert answer.status == 200  # at the end of its redirect
    for malformed in (f"Authorization: Bearer {service.token}\0", f"Cookie: {COOKIE}={cookie}\0"):
        with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
            connection.sendall(f"GET {RECORDS} HTTP/1.1\r\nHost: 127.0.0.1\r\n{malformed}\r\n\r\n".encode())
            assert connection.recv(1000).startswith(b"HTTP/1.0 400 ")
    while service.log_text().count("request_not_parsed") < 2:  # the log is written behind what is answered
        await api.get("/healthz")
    for place in (service.log_text(), service.stderr_text()):
        for secret in (service.token, code, code_of(service.login_url), cookie):
            assert secret not in place
