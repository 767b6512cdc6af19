"""The audit trail of a service: what is done and what is refused is written, by whom, from where, and that nobody forgets it."""

import asyncio
import contextlib
import json
import re
import sqlite3
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from app.access.audit import entries_in
from app.access.chain import Entry, look_over
from app.access.refusals import MOST_OF_ONE
from app.web.routes import ROUTES
from tests.contract.conftest import ALPHA, ONE
from tests.contract.speech import ANSWER_SEC, Api, Message
from tests.nodes import node
from tests.service import Service, run_app, running_service
from tests.thorough import thorough


def trail(service: Service) -> list[Entry]:
    with sqlite3.connect(f"file:{service.state_dir / 'memory-dumps.sqlite3'}?mode=ro", uri=True) as db:
        entries = list(entries_in(db))
    db.close()
    assert look_over(entries).first_wrong is None
    return entries


def said(entry: Entry) -> tuple[str, str, str, str]:
    return entry.deed, entry.who, entry.subject, entry.result


def stranger_at(address: str, service: Service) -> aiohttp.ClientSession:
    """Somebody without a login, from an address of this machine."""
    connector = aiohttp.TCPConnector(local_addr=(address, 0))
    return aiohttp.ClientSession(service.url, connector=connector, cookie_jar=aiohttp.DummyCookieJar())


def guessed(entry: Entry) -> bool:
    return (entry.deed, entry.subject) == ("login-refused", "admin")


@pytest.fixture
def news(service: Service) -> list[Entry]:
    """What was there before the test."""
    return trail(service)


def since(service: Service, before: list[Entry]) -> list[Entry]:
    return trail(service)[len(before) :]


def test_a_start_is_written_with_its_settings_and_no_secret(service: Service) -> None:
    (entry,) = [entry for entry in trail(service) if entry.deed == "settings"]
    assert (entry.who, entry.via, entry.details["auth"]) == ("service", "service", "token")
    assert entry.details["dump_dir"] == str(service.dump_dir)
    assert service.token not in str(entry)


async def test_a_dump_is_written_when_it_is_asked_for_and_when_it_is_sealed(api: Api, service: Service, news: list[Entry]) -> None:
    (job,) = await api.dump(ALPHA.name, reason="drill")
    asked, sealed = [entry for entry in since(service, news) if entry.deed == "dump"]
    assert said(asked) == ("dump", "admin", "alpha", "scheduled")
    assert (asked.via, asked.origin, asked.details["reason"]) == ("token", "127.0.0.1", "drill")
    assert (said(sealed), sealed.via) == (("dump", "admin", "alpha", "sealed"), "service")
    manifest = await api.get(f"/api/memory-dumps/records/{job['dump_id']}")
    assert manifest["audit_head"] == asked.hash
    assert (sealed.details["sha256"], sealed.details["stored_sha256"]) == (manifest["sha256"], manifest["stored_sha256"])


async def test_a_dump_that_is_refused_is_written_with_its_code(api: Api, service: Service, news: list[Entry]) -> None:
    await api.trigger("nobody", status=404)
    assert [said(entry) for entry in since(service, news)] == [("dump", "admin", "nobody", "vm-unknown")]


async def test_each_vm_and_each_account_that_somebody_known_reaches_for_in_vain_is_written_once(
    api: Api, service: Service, news: list[Entry]
) -> None:
    for name in ("ghost-1", "ghost-2", "ghost-1"):
        await api.trigger(name, status=404)
        await api.post(f"/api/accounts/{name}/remove", status=404)
    assert [said(entry) for entry in since(service, news)] == [
        (deed, "admin", name, code)
        for name in ("ghost-1", "ghost-2")
        for deed, code in (("dump", "vm-unknown"), ("account-removed", "account-unknown"))
    ]


async def test_a_cancel_is_written_with_its_vm(api: Api, service: Service, news: list[Entry]) -> None:
    scheduled = await api.trigger(ONE.name)
    job_id = scheduled["jobs"][0]["job_id"]
    await api.post(f"/api/memory-dumps/jobs/{job_id}/cancel")
    await api.ended([job_id])
    await api.post(f"/api/memory-dumps/jobs/{job_id}/cancel")  # which changes nothing, so there is nothing to write
    (entry,) = [entry for entry in since(service, news) if entry.deed == "cancel"]
    assert (said(entry), entry.details["job_id"]) == (("cancel", "admin", "one-42", "done"), job_id)


async def test_what_does_nothing_is_not_written(api: Api, service: Service, news: list[Entry]) -> None:
    key = {"Idempotency-Key": "written once"}
    (job,) = (await api.trigger(ALPHA.name, headers=key))["jobs"]
    await api.ended([job["job_id"]])
    assert (await api.trigger(ALPHA.name, headers=key))["jobs"] == [job]
    async with api.session.post("/logout", json={}) as answer:  # by a token, which has no session
        assert answer.status == 204
        assert [said(entry)[::3] for entry in since(service, news)] == [("dump", "scheduled"), ("dump", "sealed")]


async def test_login_and_logout_are_written(service: Service, nobody: aiohttp.ClientSession, news: list[Entry]) -> None:
    code = service.fresh_login_url().partition("code=")[2]
    async with nobody.post("/login", data={"code": code}, allow_redirects=False) as answer:
        cookie = answer.cookies["memory_dumps_session"].value
    headers = {"Cookie": f"memory_dumps_session={cookie}", "Origin": service.url}
    async with nobody.post("/logout", json={}, headers=headers) as answer:
        assert answer.status == 204
    made, *entries = since(service, news)
    assert (made.deed, made.via, made.subject, made.details["account"]) == ("token-made", "command-line", "login URL", "admin")
    assert [said(entry)[:2] for entry in entries] == [("login", "admin"), ("logout", "admin")]
    assert code not in str(trail(service))


async def test_a_login_that_is_refused_is_written_once_and_then_counted(
    service: Service, nobody: aiohttp.ClientSession, news: list[Entry]
) -> None:
    for _ in range(5):
        async with nobody.post("/login", data={"code": "guess"}) as answer:
            assert answer.status == 401
    assert [said(entry) for entry in since(service, news)] == [("login-refused", "unknown", "", "refused")]
    assert "guess" not in str(since(service, news))


async def test_of_a_login_that_is_refused_only_a_name_that_is_somebodys_is_written(
    service: Service, nobody: aiohttp.ClientSession, news: list[Entry]
) -> None:
    made = run_app("account", "password", "admin", environment=service.environment, given="a password of some length\n")
    assert made.returncode == 0, made.stderr
    for name in ("my secret", "admin", "admin", "Tr0ub4dor"):
        async with nobody.post("/login", data={"name": name, "password": "guess"}) as answer:
            assert answer.status == 401
    refused = [entry for entry in since(service, news) if entry.deed == "login-refused"]
    assert [said(entry) for entry in refused] == [("login-refused", "unknown", on, "refused") for on in ("", "admin", "")]
    assert "secret" not in str(refused)


async def test_refusals_are_written_once_and_then_counted(
    service: Service, nobody: aiohttp.ClientSession, news: list[Entry]
) -> None:
    for path in ("/api/memory-dumps/records?q=a", "/api/memory-dumps/jobs", "/api/nothing", "/") * 10:
        async with nobody.get(path, allow_redirects=False) as answer:
            assert answer.status in (303, 401)
    (entry,) = since(service, news)
    assert said(entry) == ("refusal", "unknown", "GET /api/memory-dumps/records", "login-required")
    assert entry.origin == "127.0.0.1"


@thorough
async def test_a_stranger_who_tries_much_hides_neither_a_guess_nor_what_is_tried_elsewhere(
    service: Service, news: list[Entry]
) -> None:
    made = run_app("account", "password", "admin", environment=service.environment, given="a password of some length\n")
    assert made.returncode == 0, made.stderr
    async with stranger_at("127.0.8.1", service) as elsewhere, stranger_at("127.0.9.1", service) as stranger:
        for number in range(30):
            async with stranger.post(f"/api/memory-dumps/trigger?%FF{number}", data=b"{}", headers={"Host": "127.0.0.1"}) as answer:
                assert answer.status == 401
            async with stranger.post("/login", data={"code": "x"}, headers={"Host": f"{number}.example"}) as answer:
                assert answer.status == 403
        for name in [*(str(number) for number in range(8)), "admin"]:
            async with stranger.post("/login", data={"name": name, "password": "guess"}) as answer:
                assert answer.status == 401
        async with elsewhere.post("/login", data={"name": "else", "password": "guess"}) as answer:
            assert answer.status == 401
        async with asyncio.timeout(ANSWER_SEC):
            while not (guesses := [entry for entry in since(service, news) if guessed(entry)]):  # written within a second
                async with elsewhere.get("/healthz") as answer:
                    assert answer.status == 200
    assert [entry.origin for entry in guesses] == ["127.0.9.1"]
    assert [entry.deed for entry in since(service, news) if entry.origin == "127.0.8.1"] == ["login-refused"]
    assert len([entry for entry in since(service, news) if entry.origin == "127.0.9.1"]) == MOST_OF_ONE + 1


async def test_whoever_comes_under_a_foreign_name_or_from_a_foreign_page_is_written(
    service: Service, nobody: aiohttp.ClientSession, news: list[Entry]
) -> None:
    for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
        async with nobody.post("/login", data={"code": "x"}, headers=headers) as answer:
            assert answer.status == 403
    assert {(entry.deed, entry.result) for entry in since(service, news)} == {
        ("login-refused", "host-not-allowed"),
        ("refusal", "origin-not-allowed"),
    }


async def test_reading_leaves_no_entry(api: Api, service: Service, news: list[Entry]) -> None:
    await api.get("/api/memory-dumps/records")
    assert since(service, news) == []


def test_the_command_line_finds_it_whole_and_compares_it_with_the_log(service: Service) -> None:
    verified = run_app("audit", "verify", environment=service.environment)
    assert (verified.returncode, verified.stderr) == (0, "")
    assert f"The audit trail is whole: {len(trail(service))} entries" in verified.stdout
    exported = run_app("audit", "export", environment=service.environment)
    assert [json.loads(line)["hash"] for line in exported.stdout.splitlines()] == [entry.hash for entry in trail(service)]


def test_whatever_changes_something_says_which_deed_it_is() -> None:
    assert all(route.deed is not None for route in ROUTES if route.method != "GET")
    with pytest.raises(ValueError, match="which deed"):
        replace(next(route for route in ROUTES if route.name == "trigger"), deed=None)


async def test_at_its_end_the_service_writes_what_it_counted_and_the_log_tells_every_head(tmp_path: Path) -> None:
    with running_service(tmp_path, LIBVIRT_URI=node(tmp_path / "node.xml", (ALPHA,))) as service:
        async with aiohttp.ClientSession(service.url, cookie_jar=aiohttp.DummyCookieJar()) as nobody:
            for _ in range(5):
                async with nobody.get("/api/memory-dumps/jobs") as answer:
                    assert answer.status == 401
        service.stop()
        entries = trail(service)
        assert [(entry.deed, entry.details.get("times")) for entry in entries if entry.deed == "refusal"] == [
            ("refusal", None),
            ("refusal", 4),
        ]
        told = [json.loads(line) for line in service.log_text().splitlines()]
        heads = [line["head"] for line in told if line["event"] == "audit"]
        assert heads == [f"0:{'0' * 64}", *(str(entry.head) for entry in entries)]
        with contextlib.closing(sqlite3.connect(service.state_dir / "memory-dumps.sqlite3")) as db:
            db.executescript("DROP TRIGGER audit_is_not_shortened; DELETE FROM audit WHERE number > 1;")
        verified = run_app("audit", "verify", environment=service.environment)
        assert verified.returncode == 1
        assert "NOT whole. Entry 2 and what followed it was removed: the log " in verified.stdout


# --- looking at it


async def all_pages(api: Api, query: str = "") -> list[Message]:
    found: list[Message] = []
    cursor = ""
    while True:
        page = await api.get(f"/api/audit?limit=3{query}{cursor}")
        found += page["entries"]
        if page["next_cursor"] is None:
            return found
        cursor = f"&cursor={page['next_cursor']}"


async def test_all_entries_are_read_a_page_at_a_time_newest_first(api: Api, service: Service, news: list[Entry]) -> None:
    found = await all_pages(api)
    assert [(each["number"], each["hash"]) for each in reversed(found)] == [(entry.number, entry.hash) for entry in news]
    assert (await api.get("/api/audit?limit=1"))["head"] == str(news[-1].head)
    names = ["number", "at", "who", "via", "from", "deed", "on", "result", "details", "previous", "hash"]
    assert list(found[0]) == names


async def test_entries_are_filtered_by_who_what_and_when(api: Api, news: list[Entry]) -> None:
    assert {each["who"] for each in await all_pages(api, "&who=unknown")} == {"unknown"}
    assert {each["deed"] for each in await all_pages(api, "&deed=dump")} == {"dump"}
    middle = news[len(news) // 2].at
    later = await all_pages(api, f"&from={middle}")
    earlier = await all_pages(api, f"&to={middle}")
    found = {each["number"] for each in (*earlier, *later)}
    assert {number for number in found if number <= news[-1].number} == {entry.number for entry in news}  # more may have come
    assert all(each["at"] >= middle for each in later)
    assert all(each["at"] < middle for each in earlier)
    assert await all_pages(api, "&who=nobody%20at%20all") == []


@pytest.mark.parametrize("query", ["deed=read", "cursor=x", "cursor=0", "cursor=1e3", "limit=0", "from=yesterday", "colour=blue"])
async def test_what_cannot_be_asked_is_refused(api: Api, query: str) -> None:
    assert (await api.get(f"/api/audit?{query}", status=400))["code"] == "request-invalid"


async def test_the_lines_are_what_the_command_line_exports(api: Api, service: Service) -> None:
    async with api.session.get("/api/audit.jsonl") as answer:
        assert (answer.status, answer.content_type) == (200, "application/jsonl")
        text = await answer.text()
    assert text == run_app("audit", "export", environment=service.environment).stdout
    async with api.session.get("/api/audit.jsonl?who=nobody") as answer:
        assert (answer.status, await answer.text()) == (200, "")
    async with api.session.head("/api/audit.jsonl") as answer:
        assert answer.status == 200


async def test_the_page_shows_filters_and_turns_pages_without_a_script(api: Api, news: list[Entry]) -> None:
    async with api.session.get("/audit?deed=dump&who=&from=&to=") as answer:
        page = await answer.text()
        assert answer.status == 200
    dumps = [entry.number for entry in reversed(news) if entry.deed == "dump"]
    assert [int(number) for number in re.findall(r'data-number="(\d+)"', page)] == dumps
    assert re.search(r"<option selected>dump</option>", page)
    async with api.session.get(f"/audit?cursor={news[1].number}") as answer:
        assert re.findall(r'data-number="(\d+)"', await answer.text()) == [f"{news[0].number}"]
    async with api.session.get("/audit?deed=nonsense&from=%3Cb%3E") as answer:
        page = await answer.text()
        assert (answer.status, "All entries are shown." in page, "<b>" in page) == (200, True, False)
