"""A page whose connection breaks says so, comes back by itself, and has missed nothing."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from urllib.parse import quote

import pytest
from playwright.async_api import WebSocketRoute, expect

from app.model import rfc3339
from tests.browser.conftest import ALPHA, BETA, GONE, OpenWindow
from tests.browser.visitor import HOME, SERVICE_IS_AWAY, Visitor
from tests.faults.scene import memdump
from tests.nodes import node
from tests.service import Service, running_service
from tests.thorough import thorough

pytestmark = pytest.mark.asyncio(loop_scope="session")

FEED = "**/api/memory-dumps/ws*"
OF_ANOTHER_VERSION = "import app, runpy; app.__version__ = '99.0.0'; runpy.run_module('app', run_name='__main__')"
WORDS_SEEN = """
window.words = [];
addEventListener("DOMContentLoaded", () => {
  const sign = document.getElementById("connection");
  const look = new MutationObserver(() => window.words.push(sign.textContent));
  if (sign) look.observe(sign, {childList: true, characterData: true, subtree: true});
});
"""


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service for this module, over libvirt's test driver."""
    folder = tmp_path_factory.mktemp("watched")
    uri = node(folder / "node.xml", (ALPHA, BETA, GONE))
    with running_service(folder, LIBVIRT_URI=uri, MEMDUMP_COMPRESSION="none") as started:
        yield started


def dump_elsewhere(service: Service, name: str) -> None:
    made = memdump(service.environment, name)
    assert made.returncode == 0, made.stderr


async def lines_of(visitor: Visitor) -> list[str]:
    """The activity as it is shown, oldest first."""
    return (await visitor.activity.all_inner_texts())[::-1]


async def test_a_page_outlives_its_service_and_neither_misses_nor_doubles_anything(
    small_service: Service, window: OpenWindow
) -> None:
    visitor = await window(small_service)
    await visitor.context.add_init_script(WORDS_SEEN)
    await visitor.page.reload()
    await visitor.live()
    visitor.expect_trouble(SERVICE_IS_AWAY)
    dumps = int(await visitor.page.locator('#stats [data-field="dumps"]').inner_text())
    connection = visitor.page.locator("#connection")
    small_service.kill()
    await expect(connection).to_have_attribute("data-connection", "offline")
    await expect(visitor.page.locator("#stale-notice")).to_be_visible()
    await expect(visitor.page.locator("html")).to_have_attribute("data-stale", "")
    dump_elsewhere(small_service, ALPHA.name)
    small_service.restart()
    await visitor.live()
    await expect(visitor.page.locator("#stale-notice")).not_to_be_visible()
    await expect(visitor.page.locator('#stats [data-field="dumps"]')).to_have_text(str(dumps + 1))
    words = await visitor.page.evaluate("window.words")
    assert any("again in" in word for word in words), words

    fresh = await window(small_service)
    await fresh.live()
    assert await lines_of(visitor) == await lines_of(fresh)
    assert len(set(await lines_of(visitor))) == len(await lines_of(visitor))


async def test_where_websockets_are_blocked_the_page_follows_by_requests_and_says_so(watched: Service, window: OpenWindow) -> None:
    visitor = await window(watched)
    await visitor.context.route_web_socket(FEED, refuse)
    await visitor.page.reload()
    connection, dumps = visitor.page.locator("#connection"), visitor.page.locator('#stats [data-field="dumps"]')
    await expect(connection).to_have_text("live by requests")
    before = int(await dumps.inner_text())
    dump_elsewhere(watched, BETA.name)
    await expect(dumps).to_have_text(str(before + 1))
    dump_elsewhere(watched, ALPHA.name)  # another line than the one before, which may be of the same second
    await expect(dumps).to_have_text(str(before + 2))
    await visitor.page.locator("#signs").click()
    await expect(visitor.page.locator("#health")).to_contain_text("blocks websockets")
    lines = await lines_of(visitor)
    assert len(set(lines)) == len(lines)


async def refuse(socket: WebSocketRoute) -> None:
    """As a proxy that does not know upgrades."""
    await socket.close(code=1006)


async def test_a_connection_that_fell_silent_is_made_again(watched: Service, window: OpenWindow) -> None:
    visitor = await window(watched)
    sockets: list[WebSocketRoute] = []
    await visitor.context.route_web_socket(FEED, lambda socket: deafen(socket, sockets))
    await visitor.page.clock.install()
    await visitor.page.reload()
    await visitor.live()
    await visitor.page.clock.fast_forward(14_000)
    await visitor.live()
    for _ in range(600):
        if len(sockets) > 1:
            return
        await visitor.page.clock.run_for(100)
    raise AssertionError("the page never gave the silent connection up")


def deafen(socket: WebSocketRoute, sockets: list[WebSocketRoute]) -> None:
    """The first one is open and says nothing more; a later one is the service's."""
    sockets.append(socket)
    if len(sockets) > 1:
        socket.connect_to_server()
    else:
        socket.send(json.dumps({"type": "alive", "now": rfc3339(datetime.now(UTC))}))


async def test_a_connection_on_which_nothing_comes_is_not_called_live(watched: Service, window: OpenWindow) -> None:
    visitor, opened = await window(watched), asyncio.Event()
    await visitor.context.route_web_socket(FEED, lambda _: opened.set())
    await visitor.page.reload()
    await opened.wait()
    await expect(visitor.page.locator("html")).to_have_attribute("data-ready", "")
    await expect(visitor.page.locator("#connection")).to_have_text("connecting…")
    dumps = visitor.page.locator('#stats [data-field="dumps"]')
    before = int(await dumps.inner_text())
    await expect(visitor.page.locator("#connection")).to_have_text("live by requests")
    dump_elsewhere(watched, BETA.name)
    await expect(dumps).to_have_text(str(before + 1))


@thorough
async def test_a_page_that_is_older_than_its_service_asks_to_be_reloaded(small_service: Service, window: OpenWindow) -> None:
    visitor = await window(small_service)
    notice, usual = visitor.page.locator("#updated-notice"), small_service.program
    await visitor.live()
    visitor.expect_trouble(SERVICE_IS_AWAY)
    try:
        small_service.program = (sys.executable, "-c", OF_ANOTHER_VERSION)
        await expect(notice).not_to_be_visible()
        small_service.kill()
        small_service.restart()
        await expect(notice).to_be_visible()
        await visitor.live()
        await notice.get_by_role("link").click()
        await visitor.live()
        await expect(visitor.page.locator("footer")).to_have_text("Memory Dumps 99.0.0")
        await expect(notice).not_to_be_visible()
    finally:
        small_service.program = usual
        small_service.kill()
        small_service.restart()


@thorough
async def test_a_page_whose_requests_are_swallowed_says_so_and_comes_back(small_service: Service, window: OpenWindow) -> None:
    visitor = await window(small_service)
    await visitor.page.clock.install()
    await visitor.page.reload()
    await visitor.live()
    dumps = int(await visitor.page.locator('#stats [data-field="dumps"]').inner_text())
    small_service.process.send_signal(signal.SIGSTOP)  # the system accepts connections in its name, and nobody answers
    try:
        await visitor.page.clock.fast_forward(14_000)
        await expect(visitor.page.locator("#connection")).to_have_attribute("data-connection", "offline")
        await expect(visitor.page.locator("#stale-notice")).to_be_visible()
    finally:
        small_service.process.send_signal(signal.SIGCONT)
    await visitor.live()
    dump_elsewhere(small_service, ALPHA.name)
    await expect(visitor.page.locator('#stats [data-field="dumps"]')).to_have_text(str(dumps + 1))


@thorough
async def test_who_is_logged_out_is_led_to_the_login_and_back_to_the_same_view(small_service: Service, window: OpenWindow) -> None:
    visitor = await window(small_service)
    visitor.expect_trouble(SERVICE_IS_AWAY, "status of 401", "WebSocket connection")
    view = f"{HOME}?q=alpha"
    await visitor.go(view)
    await visitor.live()
    await visitor.context.clear_cookies()
    small_service.kill()
    small_service.restart()
    await expect(visitor.page).to_have_url(f"{small_service.url}/login?next={quote(view, safe='')}")
    await visitor.page.get_by_label("Login link").fill(small_service.fresh_login_url())
    await visitor.page.get_by_role("button", name="Use this link").click()
    await expect(visitor.page).to_have_url(small_service.url + view)
    await visitor.live()
