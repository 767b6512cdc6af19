"""The details of a dump: as a dialog over the list, as a page of its own, and on paper."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.async_api import Locator, expect

from tests.browser.conftest import ALPHA, OpenWindow
from tests.browser.visitor import HOME, Visitor
from tests.faults.scene import memdump
from tests.nodes import node
from tests.service import Service, running_service
from tests.thorough import thorough

pytestmark = pytest.mark.asyncio(loop_scope="session")

LIST = f"{HOME}?order=asc"


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with one dump."""
    folder = tmp_path_factory.mktemp("shelf")
    with running_service(folder, LIBVIRT_URI=node(folder / "node.xml", (ALPHA,))) as started:
        dumped = memdump(started.environment, "--reason", "why <b>not</b> \u202eright", "--case", "C-7", ALPHA.name)
        assert dumped.returncode == 0, dumped.stderr
        yield started


def manifest_of(service: Service) -> dict[str, object]:
    (file,) = service.dump_dir.glob("*.manifest.json")
    found: dict[str, object] = json.loads(file.read_text())
    return found


def said_by_bash(command: str) -> str:
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30, check=True).stdout


def dialog(visitor: Visitor) -> Locator:
    return visitor.page.locator("#details-dialog")


def text(part: Locator, name: str) -> Locator:
    return part.locator(f'[data-text="{name}"]')


def view(visitor: Visitor) -> Locator:
    return visitor.page.get_by_role("link", name="View").first


async def test_view_shows_the_whole_manifest_under_its_own_address(shelf: Service, window: OpenWindow) -> None:
    manifest = manifest_of(shelf)
    address = f"{shelf.url}{HOME}/{manifest['dump_id']}"
    visitor = await window(shelf)
    await visitor.live()
    await visitor.go(LIST)
    await visitor.live()
    await view(visitor).click()
    opened = dialog(visitor)
    await expect(opened.get_by_role("heading", name=f"Dump of {ALPHA.name}")).to_be_focused()
    await expect(visitor.page).to_have_url(f"{address}?order=asc")
    for name in ("sha256", "stored_sha256", "dump_path", "reason", "uuid", "domain_xml"):
        await expect(text(opened, name)).to_have_text(str(manifest[name]))
    await expect(text(opened, "case")).to_have_text("C-7")
    as_dialog = await opened.locator("dl").all_inner_texts()

    await visitor.page.keyboard.press("Escape")
    await expect(opened).to_be_hidden()
    await expect(visitor.page).to_have_url(shelf.url + LIST)
    await expect(view(visitor)).to_be_focused()

    await visitor.page.go_forward()
    await expect(opened).to_be_visible()
    await visitor.page.go_back()
    await expect(opened).to_be_hidden()

    await view(visitor).press("Enter")  # by the keyboard, too
    await expect(text(opened, "sha256")).to_be_visible()
    await visitor.page.mouse.click(5, 5)  # beside it
    await expect(opened).to_be_hidden()
    await view(visitor).click()
    await opened.get_by_role("button", name="Close the details").click()
    await expect(opened).to_be_hidden()
    await expect(visitor.page).to_have_url(shelf.url + LIST)

    await view(visitor).click()
    await expect(text(opened, "sha256")).to_be_visible()
    await visitor.page.reload()
    await expect(visitor.page.get_by_role("heading", level=1)).to_have_text(f"Dump of {ALPHA.name}")
    assert await visitor.page.locator("main dl").all_inner_texts() == as_dialog
    await visitor.page.go_back()
    await expect(visitor.page).to_have_url(shelf.url + LIST)
    await visitor.live()


async def test_what_is_copied_is_in_the_clipboard_the_check_command_says_ok_and_paper_has_the_dialog_alone(
    shelf: Service, window: OpenWindow
) -> None:
    manifest = manifest_of(shelf)
    visitor = await window(shelf)
    await visitor.live()
    await visitor.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await view(visitor).click()
    opened = dialog(visitor)
    copied = {}
    for what in ("the path", "the SHA-256 of the image", "the SHA-256 of the file", "the check command"):
        await opened.get_by_role("button", name=f"Copy {what}").click()
        await expect(opened.get_by_text(f"{what.capitalize()[:1]}{what[1:]} is in the clipboard.").first).to_be_visible()
        copied[what] = await visitor.page.evaluate("navigator.clipboard.readText()")
    assert list(copied.values())[:3] == [manifest["dump_path"], manifest["sha256"], manifest["stored_sha256"]]
    assert said_by_bash(copied["the check command"]) == "-: OK\n"

    await visitor.page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('refused')); }")
    await opened.get_by_role("button", name="Copy the SHA-256 of the image").click()
    await expect(opened.get_by_text("does not allow copying here").first).to_be_visible()
    assert await visitor.page.evaluate("String(getSelection())") == manifest["sha256"]

    await visitor.page.emulate_media(color_scheme="dark")
    await visitor.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    await assert_fit_for_paper(visitor, manifest)
    await expect(visitor.page.locator("main")).to_be_hidden()
    assert await opened.locator(".details-body").evaluate("(body) => body.scrollHeight === body.clientHeight"), "nothing is cut off"


async def test_a_manifest_that_does_not_come_is_an_error_in_the_dialog_and_a_way_on(shelf: Service, window: OpenWindow) -> None:
    visitor = await window(shelf)
    visitor.expect_trouble("net::ERR_FAILED", "status of 404")
    await visitor.live()
    pattern = "**/api/memory-dumps/records/*"
    await visitor.page.route(pattern, lambda route: route.abort())
    await view(visitor).click()
    opened = dialog(visitor)
    await expect(opened.get_by_role("alert")).to_contain_text("The service cannot be reached")
    again = opened.get_by_role("button", name="Try again")
    await expect(again).to_be_focused()
    await visitor.page.unroute(pattern)
    await again.click()
    await expect(text(opened, "dom")).to_have_text(ALPHA.name)
    await expect(opened.get_by_role("heading", level=2)).to_be_focused()
    await visitor.page.evaluate(
        "history.pushState(null, '', '/memory-dumps/nothing'); dispatchEvent(new PopStateEvent('popstate'))"
    )
    await expect(opened.get_by_role("alert")).to_contain_text("There is no record of a dump 'nothing'")


@thorough
async def test_who_was_logged_out_meanwhile_comes_back_to_the_same_dump(shelf: Service, window: OpenWindow) -> None:
    visitor = await window(shelf)
    visitor.expect_trouble("status of 401")
    await visitor.live()
    await visitor.page.route(
        "**/api/memory-dumps/records/*", lambda route: route.fulfill(status=401, json={"detail": "Log in first."})
    )
    await view(visitor).click()
    await expect(visitor.page).to_have_url(f"{shelf.url}{HOME}/{manifest_of(shelf)['dump_id']}")
    await expect(visitor.page.get_by_role("heading", level=1)).to_have_text(f"Dump of {ALPHA.name}")


async def test_the_page_of_one_dump_is_read_and_printed_without_javascript(
    shelf: Service, window: OpenWindow, tmp_path: Path
) -> None:
    manifest = manifest_of(shelf)
    visitor = await window(shelf, scripts=False, width=360)
    visitor.expect_trouble("status of 404")
    await visitor.page.get_by_role("link", name="View").click()
    await expect(visitor.page).to_have_url(f"{shelf.url}{HOME}/{manifest['dump_id']}")
    await expect(text(visitor.page.locator("main"), "stored_sha256")).to_have_text(str(manifest["stored_sha256"]))
    await expect(visitor.page.get_by_role("button", name="Copy")).to_have_count(0)
    assert await visitor.width_of_overflow() == 0
    await assert_fit_for_paper(visitor, manifest)
    await visitor.go(f"{HOME}/nothing")
    await expect(visitor.page.get_by_role("main")).to_contain_text("There is no record of a dump 'nothing'")


async def assert_fit_for_paper(visitor: Visitor, manifest: dict[str, object]) -> None:
    """Black on white, whole hashes, neither bar nor buttons, and where and when at the foot."""
    page = visitor.page
    await page.emulate_media(media="print")
    await expect(page.locator(".bar")).to_be_hidden()
    await expect(page.locator(".button:visible")).to_have_count(0)
    for name in ("sha256", "stored_sha256"):
        await expect(text(page.locator("body"), name).last).to_have_text(str(manifest[name]))
        assert await text(page.locator("body"), name).last.evaluate("(code) => getComputedStyle(code).color") == "rgb(0, 0, 0)"
    foot = page.locator(".printed:visible")
    await expect(foot).to_contain_text(f"{HOME}/{manifest['dump_id']}")
    await expect(foot).to_contain_text("UTC")


@thorough
async def test_the_time_on_paper_is_the_services_and_not_that_of_a_computer_whose_clock_is_wrong(
    shelf: Service, window: OpenWindow
) -> None:
    visitor = await window(shelf)
    await visitor.page.clock.set_fixed_time("2001-01-01")
    await visitor.go(f"{HOME}/{manifest_of(shelf)['dump_id']}")
    await expect(visitor.page.locator("html[data-ready]")).to_have_count(1)
    await visitor.page.evaluate("() => dispatchEvent(new Event('beforeprint'))")
    await visitor.page.emulate_media(media="print")
    await expect(visitor.page.locator(".printed:visible")).to_contain_text(f"{datetime.now(UTC):%Y-%m-%d}")
