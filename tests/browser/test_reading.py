"""The pages for everybody: without JavaScript, on a narrow screen, with no login asked for, logged out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.async_api import expect

from app.web.errors import REFERENCE
from tests.browser.conftest import ALPHA, BETA, GONE, SHOP, OpenWindow
from tests.browser.visitor import HOME, Visitor, field
from tests.faults.scene import memdump
from tests.service import Service, running_service
from tests.thorough import once, thorough

pytestmark = pytest.mark.asyncio(loop_scope="session")

LINES = "(cell) => { const text = document.createRange(); text.selectNodeContents(cell); return text.getClientRects().length; }"


@pytest.fixture(scope="module")
def open_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One that asks for no login."""
    with running_service(tmp_path_factory.mktemp("open"), MEMDUMP_AUTH="none") as started:
        yield started


async def test_without_javascript_one_can_log_in_and_read_everything(small_service: Service, window: OpenWindow) -> None:
    assert memdump(small_service.environment, ALPHA.name).returncode == 0
    with_scripts = await window(small_service)
    await expect(with_scripts.records).to_have_count(1)
    visitor = await window(small_service, scripts=False)
    notice = visitor.page.locator("main > noscript > p")  # by its element: looking for text, Playwright passes noscript over
    await expect(notice).to_be_visible()
    await expect(notice).to_contain_text("Without JavaScript this page shows")
    for vm in (ALPHA, BETA, GONE):
        await expect(visitor.vm(vm.uuid).locator(".vm-name")).to_have_text(vm.name)
    await expect(visitor.records.get_by_role("rowheader")).to_have_text(ALPHA.name)
    await expect(visitor.records).to_contain_text(str(small_service.dump_dir))
    assert await visitor.activity.count() >= 1
    buttons = visitor.page.get_by_role("main").get_by_role("button")
    await expect(buttons).to_have_text(["Show"])  # that of the form with filters: no button that could not do anything
    for path, words in (
        ("/accounts", "only shows what there is"), ("/tokens", "only shows what there is"), ("/logout", "cannot log you out"),
    ):  # fmt: skip
        await visitor.go(path)
        await expect(visitor.page.locator("main noscript > p")).to_contain_text(words)
        await expect(visitor.page.locator("#log-out")).not_to_be_visible()
        await expect(visitor.page.locator("[type=submit]:enabled")).to_have_count(0)


@thorough
async def test_no_page_scrolls_sideways_at_360_pixels(service: Service, window: OpenWindow) -> None:
    visitor = await window(service, width=360)
    await visitor.live()
    async with visitor.held_while_the_guest_stands_still(SHOP):
        assert await visitor.width_of_overflow() == 0
    await expect(visitor.running).to_have_count(0)
    await expect(field(visitor.vm(SHOP), "last-dump")).to_contain_text("UTC")
    assert await visitor.width_of_overflow() == 0
    for path in ("/logout", "/login?code=x", "/nothing", REFERENCE):
        await visitor.go(path)
        assert await visitor.width_of_overflow() == 0, path
    visitor.expect_trouble("status of 404")


@thorough
async def test_the_control_panel_stays_as_it_is_when_a_dump_runs_and_ends(new_service: Service, window: OpenWindow) -> None:
    visitor = await window(new_service)
    await visitor.live()
    places = await places_of_controls(visitor)
    async with visitor.held_while_the_guest_stands_still(SHOP):
        assert await places_of_controls(visitor) == places
    await expect(field(visitor.vm(SHOP), "last-dump")).to_contain_text("UTC")
    await expect(visitor.choice(SHOP)).to_be_enabled()
    assert await places_of_controls(visitor) == places
    name = field(visitor.vm(SHOP), "name")
    assert await name.evaluate(LINES) == 1


async def places_of_controls(visitor: Visitor) -> list[float]:
    """Where what one presses or reads in the control panel begins, in pixels."""
    found: list[float] = await visitor.page.evaluate(
        "[...document.querySelectorAll('#vms :is([data-vm-uuid], input, button)')].flatMap((one) => {"
        "  const {left, top} = one.getBoundingClientRect();"
        "  return [left, top];"
        "})"
    )
    return found


@pytest.mark.parametrize("path", once([HOME, "/logout", "/login?code=x", "/nothing", REFERENCE], HOME))
async def test_every_page_says_when_no_login_is_asked_for(open_service: Service, window: OpenWindow, path: str) -> None:
    visitor = await window(open_service, log_in=False)
    visitor.expect_trouble("status of 404")
    await visitor.go(path)
    await expect(visitor.page.locator("#open-banner")).to_be_visible()


async def test_a_service_that_asks_for_a_login_has_no_such_banner(service: Service, window: OpenWindow) -> None:
    visitor = await window(service)
    await expect(visitor.page.locator("#open-banner")).to_have_count(0)


@thorough
async def test_who_logs_out_in_one_tab_is_logged_out_in_the_other(service: Service, window: OpenWindow) -> None:
    visitor = await window(service)
    other = await visitor.context.new_page()
    await other.goto(service.url + HOME)
    await visitor.page.bring_to_front()
    visitor.expect_trouble("status of 401")  # what the other tab is told, whose feed has ended
    await visitor.page.locator("#log-out").click()
    await expect(visitor.page.locator("h1")).to_have_text("Log in")
    await expect(other).to_have_url(f"{service.url}/login?next=%2Fmemory-dumps")


@thorough
async def test_the_page_of_the_api_is_read_without_javascript_and_its_links_lead_to_the_shapes(
    service: Service, window: OpenWindow
) -> None:
    visitor = await window(service, scripts=False)
    await visitor.page.get_by_role("link", name="API").click()
    await expect(visitor.page.get_by_role("heading", name="API", exact=True)).to_be_visible()
    await visitor.page.locator("#records").get_by_role("link", name="Records", exact=True).click()
    await expect(visitor.page.locator("#shape-Records")).to_be_in_viewport()
    await expect(visitor.page.locator("#shape-Records")).to_contain_text("next_cursor")
