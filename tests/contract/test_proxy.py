"""``MEMDUMP_AUTH=proxy``: whom the proxy names comes in, and nobody whom somebody else names."""

from __future__ import annotations

import json
import socket
import sqlite3
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import WSServerHandshakeError
from multidict import CIMultiDict

from app.access.audit import entries_in
from tests.contract.conftest import VMS
from tests.contract.speech import FEED, RECORDS, TRIGGER
from tests.nodes import node
from tests.service import Service, run_app, running_service

PROXY = "127.0.0.2"
ROLES = {"soc": "investigator", "ops": "operator", "staff": "viewer"}
NAMED = {"X-Forwarded-User": "anna"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that believes what comes from 127.0.0.2, and so not what comes from 127.0.0.1."""
    folder = tmp_path_factory.mktemp("service")
    settings = {
        "LIBVIRT_URI": node(folder / "node.xml", VMS),
        "MEMDUMP_AUTH": "proxy",
        "MEMDUMP_TRUSTED_PROXIES": f"{PROXY}/32, 2001:db8::/32",
        "MEMDUMP_GROUP_ROLES": json.dumps(ROLES),
    }
    with running_service(folder, **settings) as started:
        yield started


@pytest.fixture
async def proxy(service: Service) -> AsyncIterator[aiohttp.ClientSession]:
    """What speaks from the proxy's address."""
    connector = aiohttp.TCPConnector(local_addr=(PROXY, 0))
    async with aiohttp.ClientSession(service.url, connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield session


async def problem(answer: aiohttp.ClientResponse) -> tuple[int, str]:
    return answer.status, (await answer.json(content_type=None))["code"]


def named(*groups: str) -> dict[str, str]:
    return {**NAMED, "X-Forwarded-Groups": ", ".join(groups)}


async def logged(service: Service, count: int, event: str, **fields: Any) -> list[dict[str, Any]]:
    """The log's lines of ``event`` with these fields, once there are ``count``: it is written behind what is answered."""
    found: list[dict[str, Any]] | None = None
    async with aiohttp.ClientSession(service.url) as session:
        while found is None or len(found) < count:
            async with session.get("/healthz") as answer:
                assert answer.status == 200
            written = [json.loads(line) for line in service.log_text().splitlines() if line.endswith("}")]
            found = [line for line in written if line["event"] == event and fields.items() <= line.items()]
    return found


@pytest.mark.parametrize(
    ("groups", "status"),
    [(["staff"], 403), (["ops"], 404), (["staff", "ops"], 404), (["soc", "x"], 404), (["STAFF", "staff"], 403)],
)
async def test_a_person_whom_the_proxy_names_may_what_their_groups_may(
    service: Service, proxy: aiohttp.ClientSession, groups: list[str], status: int
) -> None:
    headers = {**named(*groups), "Origin": service.url}
    async with proxy.get(RECORDS, headers=headers) as answer:
        assert answer.status == 200
    async with proxy.post(TRIGGER, headers=headers, json={"vm_ids": ["nowhere"]}) as answer:
        assert answer.status == status
    assert await logged(service, 1, "request", path=TRIGGER, by="anna (proxy)", status=status)


async def test_who_has_no_role_learns_that_and_nothing_else(proxy: aiohttp.ClientSession) -> None:
    for groups in ([], ["other"], ["*"], ["administrator"]):
        for path in (RECORDS, "/api/nowhere", FEED):
            async with proxy.get(path, headers=named(*groups)) as answer:
                assert await problem(answer) == (403, "not-allowed")
        async with proxy.get("/memory-dumps", headers=named(*groups)) as answer:
            assert answer.status == 403
            assert "none of their groups has a role" in await answer.text()


async def test_who_has_no_role_is_written_by_name_and_for_each_thing_that_was_tried(
    service: Service, proxy: aiohttp.ClientSession
) -> None:
    for name in ("mallory", "nick"):
        headers = {"X-Forwarded-User": name, "Origin": service.url}
        async with proxy.get("/api/audit", headers=headers) as answer:
            assert answer.status == 403
        async with proxy.post(TRIGGER, headers=headers, json={"all": True}) as answer:
            assert answer.status == 403
    with sqlite3.connect(f"file:{service.state_dir / 'memory-dumps.sqlite3'}?mode=ro", uri=True) as db:
        written = [(entry.who, entry.via, entry.deed, entry.subject) for entry in entries_in(db)]
    db.close()
    assert [entry for entry in written if entry[0] in ("mallory", "nick")] == [
        (name, "proxy", "refusal", asked) for name in ("mallory", "nick") for asked in ("GET /api/audit", f"POST {TRIGGER}")
    ]


async def test_what_needs_no_login_knows_whom_the_proxy_names(service: Service, proxy: aiohttp.ClientSession) -> None:
    async with proxy.get("/readyz", headers=named("staff")) as answer:
        assert (await answer.json())["status"] in ("ready", "not-ready")
    async with proxy.get("/readyz", headers=named("other")) as answer:
        assert (answer.status in (200, 503), await answer.read()) == (True, b"")
    async with proxy.get("/login", headers=named("staff"), allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (303, "/memory-dumps")
    async with proxy.get("/logout", headers=named("staff")) as answer:
        assert "log out there" in await answer.text()
    async with proxy.post("/api/tokens", headers={**named("ops"), "Origin": service.url}, json={"label": "x"}) as answer:
        assert "There is no account 'anna'" in (await answer.json(content_type=None))["detail"]


async def test_the_page_has_no_log_out_where_the_proxy_would_let_one_in_again(proxy: aiohttp.ClientSession) -> None:
    async with proxy.get("/memory-dumps", headers=named("staff")) as answer:
        page = await answer.text()
    assert answer.status == 200
    assert 'id="log-out"' not in page
    assert 'id="open-banner"' not in page


@pytest.mark.parametrize("forged", [named("soc"), NAMED, {"X-Forwarded-Groups": "soc"}, {"x-forwarded-user": ""}])
@pytest.mark.parametrize("path", [RECORDS, "/memory-dumps", "/login", "/healthz", "/api/nowhere"])
async def test_a_forged_header_is_refused_whatever_else_comes_with_it(
    service: Service, nobody: aiohttp.ClientSession, forged: dict[str, str], path: str
) -> None:
    before = len(await logged(service, 0, "proxy_header_forged"))
    for more in ({}, service.headers, {"X-Forwarded-For": PROXY, "Forwarded": f"for={PROXY}", "X-Real-IP": PROXY}):
        async with nobody.get(path, headers={**forged, **more}, allow_redirects=False) as answer:
            assert answer.status == 403
    assert {line["remote"] for line in await logged(service, before + 3, "proxy_header_forged")} == {"127.0.0.1"}


async def test_without_the_proxys_word_there_is_no_way_in_but_a_token(
    service: Service, proxy: aiohttp.ClientSession, nobody: aiohttp.ClientSession
) -> None:
    for session in (proxy, nobody):
        for login in ({}, {"Cookie": "memory_dumps_session=x"}):
            async with session.get(RECORDS, headers=login) as answer:
                assert await problem(answer) == (401, "login-required")
            async with session.get("/memory-dumps", headers=login, allow_redirects=False) as answer:
                assert (answer.status, answer.headers["Location"]) == (303, "/login?next=%2Fmemory-dumps")
        async with session.get(RECORDS, headers=service.headers) as answer:
            assert answer.status == 200
        async with session.get("/login") as answer:
            assert "proxy" in await answer.text()
    async with proxy.get(RECORDS, headers={**named("soc"), "Authorization": "Bearer mdt_wrong"}) as answer:
        assert answer.status == 401  # a token that is given decides


async def test_a_password_is_not_looked_at(service: Service, proxy: aiohttp.ClientSession, nobody: aiohttp.ClientSession) -> None:
    made = run_app("account", "password", "admin", environment=service.environment, given="a password of some length\n")
    assert made.returncode == 0, made.stderr
    for session in (proxy, nobody):
        login = {"name": "admin", "password": "a password of some length"}
        async with session.post("/login", data=login, allow_redirects=False) as answer:
            assert (answer.status, len(answer.cookies)) == (400, 0)
            assert "Passwords open nothing here" in await answer.text()


@pytest.mark.parametrize(
    "names",
    [["anna", "boss"], [""], ["  "], ["an\x00na"], ["a" * 256], ["anna\u202e"]],
    ids=["two", "none", "blank", "nul", "long", "odd"],
)
async def test_a_name_that_is_not_one_plain_name_is_nobodys(service: Service, names: list[str]) -> None:
    """Two of them: one may be what the client wrote, and the proxy let through."""
    heads = "".join(f"X-Forwarded-User: {name}\r\n" for name in names) + "X-Forwarded-Groups: soc\r\n"
    with socket.create_connection(("127.0.0.1", service.port), timeout=20, source_address=(PROXY, 0)) as connection:
        connection.sendall(f"GET {RECORDS} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{heads}\r\n".encode())
        assert connection.makefile("rb").readline().split()[1] in (b"400", b"403")


@pytest.mark.parametrize("groups", [["staff", "soc"], ["soc", "staff"], ["soc", "soc"], ["soc", ""]], ids=str)
async def test_groups_that_are_told_twice_are_nobodys(service: Service, proxy: aiohttp.ClientSession, groups: list[str]) -> None:
    """One of the two may be what the client wrote, and the proxy let through."""
    headers = CIMultiDict([*NAMED.items(), *(("X-Forwarded-Groups", group) for group in groups)])
    async with proxy.get(RECORDS, headers=headers) as answer:
        assert await problem(answer) == (403, "proxy-not-trusted")
    assert await logged(service, 1, "proxy_header_unclear", header="X-Forwarded-Groups")


@pytest.mark.parametrize("headers", [{}, {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}])
async def test_another_sites_page_can_send_nothing_through_the_proxy(
    service: Service, proxy: aiohttp.ClientSession, headers: dict[str, str]
) -> None:
    async with proxy.post(TRIGGER, headers={**named("ops"), **headers}, json={"vm_ids": ["nowhere"]}) as answer:
        assert await problem(answer) == (403, "origin-not-allowed")
    with pytest.raises(WSServerHandshakeError) as refused:
        await proxy.ws_connect(FEED, headers={**named("ops"), **headers})
    assert refused.value.status == 403
    async with proxy.ws_connect(FEED, headers={**named("ops"), "Origin": service.url}) as feed:
        assert (await feed.receive_json(timeout=20))["type"] == "snapshot"


@pytest.mark.parametrize(
    ("told", "remote"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("127.0.0.1, 192.0.2.7", "192.0.2.7"),
        ("192.0.2.7, 2001:db8::1", "192.0.2.7"),
        ("evil, 2001:db8::1", "2001:db8::1"),
        ("not an address", PROXY),
        ("", PROXY),
    ],
)
async def test_the_log_has_the_address_that_the_proxy_saw(
    service: Service, proxy: aiohttp.ClientSession, nobody: aiohttp.ClientSession, told: str, remote: str
) -> None:
    path = f"/api/{uuid.uuid4()}"
    for session in (proxy, nobody):  # the second is no proxy: what it tells counts for nothing
        async with session.get(path, headers={"X-Forwarded-For": told}) as answer:
            assert answer.status == 401
    assert [line["remote"] for line in await logged(service, 2, "request", path=path)] == [remote, "127.0.0.1"]


def test_the_start_says_who_says_who_is_asking_and_a_login_url_is_not_made(service: Service) -> None:
    assert service.login_url == ""
    assert any(PROXY in line for line in service.printed)
    ended = run_app("login-url", environment=service.environment)
    assert (ended.returncode, ended.stdout, "MEMDUMP_AUTH=proxy" in ended.stderr) == (2, "", True)


async def test_where_no_proxy_is_asked_its_headers_mean_nothing(tmp_path: Path) -> None:
    with running_service(tmp_path, MEMDUMP_TRUSTED_PROXIES="127.0.0.0/8") as service:
        async with aiohttp.ClientSession(service.url) as session:
            async with session.get(RECORDS, headers=named("soc")) as answer:
                assert answer.status == 401
            async with session.get(RECORDS, headers={**named("soc"), **service.headers}) as answer:
                assert answer.status == 200
