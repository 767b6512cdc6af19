"""What is being answered ends with the login that it was asked on, whoever ended that, in whichever process."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
from aiohttp import WSMsgType

from app.access import accounts, sessions, tokens
from app.access.secrets import hash_of
from app.config import Settings
from app.foundation import open_beside
from app.model import rfc3339
from app.scope import WHOLE, Scope
from app.web.guard import SESSION_COOKIE
from app.web.live import LOGIN_ENDED
from tests.contract.speech import ANSWER_SEC, CHANGES, FEED, RECORDS, Api
from tests.service import ROOT, Service

BOB = "bob"
TOKEN, SESSION = "mdt_bob", "bobs-session"
LATER = "2999-01-01T00:00:00.000000Z"
Beside = Callable[[Callable[[sqlite3.Connection], object]], object]


def now() -> str:
    return rfc3339(datetime.now(UTC))


@pytest.fixture
def beside(service: Service) -> Iterator[Beside]:
    """The state file as another process has it open: over a connection of its own."""
    with contextlib.closing(open_beside(Settings.from_environment(service.environment))) as state:
        yield state.run_now


@pytest.fixture
def bob(beside: Beside) -> Iterator[None]:
    """An operator with a token and a session."""

    def make(connection: sqlite3.Connection) -> None:
        accounts.add(connection, BOB, "operator", WHOLE, None, now())
        tokens.add(connection, hash_of(TOKEN), BOB, "x", None, WHOLE, now(), None)
        sessions.begin(connection, hash_of(SESSION), BOB, now(), LATER)

    def remove(connection: sqlite3.Connection) -> None:
        if any(one.name == BOB for one in accounts.every(connection)):
            accounts.remove(connection, BOB, now())
        connection.execute("DELETE FROM tokens WHERE account = ?", (BOB,))

    beside(make)
    yield
    beside(remove)


@pytest.fixture
async def program(service: Service, api: Api, bob: None) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(service.url, headers={"Authorization": f"Bearer {TOKEN}"}) as session:
        yield session


@pytest.fixture
async def browser(service: Service, api: Api, bob: None) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"Cookie": f"{SESSION_COOKIE}={SESSION}", "Origin": service.url}
    async with aiohttp.ClientSession(service.url, headers=headers, cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield session


async def close_code(socket: aiohttp.ClientWebSocketResponse) -> int | None:
    """With what the feed ends; whatever it tells before is passed over."""
    async with asyncio.timeout(ANSWER_SEC):
        while (await socket.receive()).type not in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED):
            pass
    return socket.close_code


ENDS: dict[str, Callable[[sqlite3.Connection], object]] = {
    "its password is changed": lambda connection: accounts.set_password(connection, BOB, "x"),
    "every session of its name is ended": lambda connection: sessions.end_all(connection, BOB),
    "its account is removed": lambda connection: accounts.remove(connection, BOB, now()),
    "its account has another role": lambda connection: accounts.change(connection, BOB, "viewer", WHOLE, now()),
    "its account has another scope": lambda connection: accounts.change(connection, BOB, "operator", Scope(vms=("x",)), now()),
    "it has expired": lambda connection: connection.execute("UPDATE sessions SET expires_at = ? WHERE account = ?", (now(), BOB)),
    "it was idle": lambda connection: connection.execute("UPDATE sessions SET used_at = '2001' WHERE account = ?", (BOB,)),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
async def test_a_feed_ends_with_its_session(
    browser: aiohttp.ClientSession, beside: Beside, end: Callable[[sqlite3.Connection], object]
) -> None:
    async with browser.ws_connect(FEED) as socket:
        await socket.receive_json()
        beside(end)
        assert await close_code(socket) == LOGIN_ENDED


async def test_a_feed_ends_with_its_token_and_others_go_on(
    api: Api, program: aiohttp.ClientSession, browser: aiohttp.ClientSession, beside: Beside
) -> None:
    async with program.ws_connect(FEED) as ended, browser.ws_connect(FEED) as kept, api.session.ws_connect(FEED) as admins:
        for socket in (ended, kept, admins):
            await socket.receive_json()
        mine = beside(lambda connection: tokens.every(connection, BOB))
        assert isinstance(mine, tuple)
        beside(lambda connection: tokens.withdraw(connection, mine[0].number, now()))
        assert await close_code(ended) == LOGIN_ENDED
        for socket in (kept, admins):
            assert (await socket.receive_json(timeout=ANSWER_SEC))["type"] in ("alive", "room", "stats", "activity", "vms")


@pytest.mark.parametrize(("headers", "counts"), [({}, True), ({"X-Unattended": "1"}, False)])
async def test_what_an_open_page_asks_by_itself_keeps_no_session_from_its_idle_end(
    browser: aiohttp.ClientSession, beside: Beside, headers: dict[str, str], counts: bool
) -> None:
    before = rfc3339(datetime.now(UTC) - timedelta(hours=2))
    beside(lambda connection: connection.execute("UPDATE sessions SET used_at = ? WHERE account = ?", (before, BOB)))
    async with browser.get("/api/memory-dumps/status", headers=headers) as answer:
        assert answer.status == 200
    used = beside(lambda connection: connection.execute("SELECT used_at FROM sessions WHERE account = ?", (BOB,)).fetchone()[0])
    assert (used != before) is counts


async def test_a_feed_ends_when_its_own_page_logs_out(browser: aiohttp.ClientSession) -> None:
    async with browser.ws_connect(FEED) as socket:
        await socket.receive_json()
        async with browser.post("/logout", json={}) as answer:
            assert answer.status == 204
        assert await close_code(socket) == LOGIN_ENDED


async def test_a_long_request_is_answered_at_once_when_its_login_ends(
    service: Service, browser: aiohttp.ClientSession, program: aiohttp.ClientSession
) -> None:
    async def ask(session: aiohttp.ClientSession, cursor: str) -> int:
        async with session.get(CHANGES, params={"since": cursor, "wait": "30", "topics": "job"}) as answer:
            return answer.status

    async with browser.get(CHANGES) as answer:
        cursor = (await answer.json())["cursor"]
    asked: list[Awaitable[int]] = [asyncio.create_task(ask(session, cursor)) for session in (browser, program)]
    program_of_its_own = [sys.executable, "-m", "app", "account", "remove", BOB]
    removing = await asyncio.create_subprocess_exec(*program_of_its_own, cwd=ROOT, env=dict(service.environment))
    assert await removing.wait() == 0
    async with asyncio.timeout(ANSWER_SEC):
        assert await asyncio.gather(*asked) == [401, 401]
    async with browser.get(RECORDS) as answer:
        assert answer.status == 401
