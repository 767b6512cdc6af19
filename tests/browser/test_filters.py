"""What one types and chooses to find records: it stands in the address, which can be shared and gone back to."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Route, expect

from tests.browser.axe import violations
from tests.browser.conftest import ALPHA, OpenWindow
from tests.browser.test_table import fill_with
from tests.browser.visitor import HOME, Visitor, field
from tests.nodes import node
from tests.service import Service, running_service
from tests.thorough import thorough

pytestmark = pytest.mark.asyncio(loop_scope="session")

RECORDS = "**/api/memory-dumps/records?*"


@pytest.fixture(scope="module")
def filtered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service for this module with 120 records."""
    folder = tmp_path_factory.mktemp("filtered")
    fill_with(folder, 120)
    with running_service(folder, LIBVIRT_URI=node(folder / "node.xml", (ALPHA,))) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="session")
async def visitor(filtered: Service, window: OpenWindow) -> Visitor:
    found = await window(filtered)
    await found.live()
    return found


async def shows(visitor: Visitor, count: int) -> None:
    await expect(visitor.page.locator("#records-where")).to_contain_text(f"· {count} dump")


def rows_of(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(file.read_text(), newline="")))


async def test_what_is_typed_filters_at_once_and_one_step_back_leads_to_what_was_before(visitor: Visitor) -> None:
    page, search, home = visitor.page, visitor.page.get_by_label("Search records"), visitor.service.url + HOME
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/records?" in request.url else None)
    await search.press_sequentially("VM-03")
    await shows(visitor, 12)
    await expect(page).to_have_url(f"{home}?q=VM-03")
    await expect(search).to_be_focused()
    assert len(asked) < 5  # not one for each letter
    await search.press("Enter")
    await search.fill(f"{17:064x}")
    await shows(visitor, 1)
    await expect(field(visitor.records, "dom")).to_have_text("vm-07")
    await search.blur()
    await page.go_back()
    await expect(search).to_have_value("VM-03")
    await shows(visitor, 12)
    await page.go_back()
    await expect(search).to_have_value("")
    await expect(page).to_have_url(home)
    await shows(visitor, 120)
    await page.go_forward()
    await shows(visitor, 12)


@thorough
async def test_what_was_typed_and_chosen_before_the_script_came_counts(visitor: Visitor) -> None:
    page, search, home = visitor.page, visitor.page.get_by_label("Search records"), visitor.service.url + HOME
    async with visitor.held_back("**/main.js"):
        await page.reload(wait_until="commit")
        await search.fill("vm-03")
        await page.get_by_label("Rows per page").select_option("25")
        await page.get_by_label("Show compressed size").check()
        await page.get_by_label("Auto-refresh").uncheck()
    await visitor.live()
    await shows(visitor, 12)
    await expect(page).to_have_url(f"{home}?q=vm-03&limit=25&sizes=stored")
    await expect(search).to_have_value("vm-03")
    await expect(field(visitor.records.first, "dom")).to_have_text("vm-03")
    await expect(field(visitor.records.first, "size")).to_have_text("100 B")
    await expect(page.get_by_label("Auto-refresh")).not_to_be_checked()
    await page.go_back()
    await shows(visitor, 120)
    await expect(search).to_have_value("")


async def test_an_address_that_is_shared_opens_the_same_view(visitor: Visitor, window: OpenWindow) -> None:
    page = visitor.page
    await page.get_by_label("Date (UTC)").fill("2026-01-01")
    await expect(page).to_have_url(re.compile("date=2026-01-01"))
    await page.get_by_label("Show compressed size").check()
    await page.get_by_label("Rows per page").select_option("25")
    await page.get_by_role("columnheader", name="Time").get_by_role("link").click()
    await page.get_by_role("link", name="Next", exact=True).click()
    await visitor.reads_page("Page 2 of 5 · 120 dumps")
    await expect(field(visitor.records.first, "size")).to_have_text("100 B")
    rows = "(rows) => rows.map((row) => row.querySelector('a.button').pathname)"
    shown = await visitor.records.evaluate_all(rows)
    for scripts in (True, False):
        other = await window(visitor.service, scripts=scripts)
        await other.page.goto(page.url)
        await expect(other.records).to_have_count(25)
        assert await other.records.evaluate_all(rows) == shown
        await expect(other.page.get_by_label("Date (UTC)")).to_have_value("2026-01-01")
        await expect(other.page.get_by_label("Show compressed size")).to_be_checked()
        await expect(other.records.first.locator("td:nth-child(7)")).to_have_text("100 B")


async def test_a_day_without_dumps_says_so_and_reset_shows_all_again(visitor: Visitor) -> None:
    page, reset = visitor.page, visitor.page.get_by_role("link", name="Reset")
    await expect(reset).to_be_disabled()
    await page.get_by_label("Date (UTC)").fill("2020-02-29")
    await expect(page.locator("#records-none")).to_be_visible()
    await expect(page.locator("#records-table")).not_to_be_visible()
    await reset.click()
    await shows(visitor, 120)
    await expect(page.get_by_label("Date (UTC)")).to_have_value("")
    await expect(page).to_have_url(visitor.service.url + HOME)
    await expect(reset).to_be_focused()


async def test_what_the_server_wrote_is_taken_over_and_not_asked_for_again(visitor: Visitor) -> None:
    page, show_all, asked = visitor.page, visitor.page.locator("#records-all"), []
    page.on("request", lambda request: asked.append(request.url))
    await visitor.go(f"{HOME}?q=nothing-is-called-so")
    await visitor.live()
    await show_all.focus()
    await expect(page.locator("#records-none")).to_be_visible()
    await expect(page.locator("#records-table")).not_to_be_visible()
    await visitor.go(f"{HOME}?order=asc&limit=25")
    await visitor.live()
    await visitor.reads_page("Page 1 of 5 · 120 dumps")
    assert not [url for url in asked if "/records" in url and "/static/" not in url]
    await page.get_by_role("link", name="Next", exact=True).click()
    await visitor.reads_page("Page 2 of 5 · 120 dumps")
    assert "cursor=" in next(url for url in asked if "/api/memory-dumps/records" in url)


@thorough
async def test_what_an_address_says_wrong_is_said_and_the_rest_counts(visitor: Visitor) -> None:
    page = visitor.page
    await visitor.go(f"{HOME}?vm=vm-01&date=tomorrow&page=77&colour=red&from=2026-01-01T01:00:00Z")
    await visitor.live()
    said = page.locator("#address-problems")
    for sentence in ("date='tomorrow' is not a date", "“colour” is nothing", "There is no page 77"):
        await expect(said).to_contain_text(sentence)
    await expect(visitor.records).to_have_count(6)
    await expect(page.locator('[data-chip="from"]')).to_contain_text("2026-01-01T01:00:00Z")
    assert await violations(page) == []
    await page.get_by_role("link", name="Remove: from").click()
    await shows(visitor, 12)
    await expect(said).not_to_be_visible()


async def test_the_table_downloads_as_it_is_filtered_and_a_refusal_is_said(visitor: Visitor) -> None:
    page, link = visitor.page, visitor.page.get_by_role("link", name="Download CSV")
    visitor.expect_trouble("status of 503")
    await page.get_by_label("Search records").fill("vm-05")
    await shows(visitor, 12)
    async with page.expect_download() as waiting:
        await link.click()
    download = await waiting.value
    rows = rows_of(await download.path())
    assert {row["dom"] for row in rows} == {"vm-05"}
    assert len(rows) == 12

    async def refuse(route: Route) -> None:
        await route.fulfill(status=503, json={"detail": "The state file is in use.", "code": "state-in-use"})

    await page.route(RECORDS, refuse)
    await link.click()
    await expect(page.locator(".toast").first).to_contain_text("Nothing is downloaded. The state file is in use.")
    await expect(page).to_have_url(re.compile("q=vm-05"))
    await page.unroute(RECORDS, refuse)


async def test_without_javascript_the_form_the_links_and_the_table_do_the_same(filtered: Service, window: OpenWindow) -> None:
    visitor = await window(filtered, scripts=False)
    page = visitor.page
    await page.get_by_label("Search records").fill("vm-0")
    await page.get_by_label("Rows per page").select_option("25")
    await page.get_by_role("button", name="Show").click()
    await expect(page.locator("#records-where")).to_have_text("Page 1 of 5 · 108 dumps")
    await page.get_by_role("link", name="Last", exact=True).click()
    await expect(page.locator("#records-where")).to_have_text("Page 5 of 5 · 108 dumps")
    await page.get_by_role("columnheader", name="Time").get_by_role("link").click()
    await expect(visitor.records.first.locator("time")).to_have_text("2026-01-01 00:00:00 UTC")
    await visitor.records.first.get_by_role("rowheader").get_by_role("link").click()
    await shows(visitor, 12)
    await page.get_by_role("link", name="Remove: VM").click()
    await shows(visitor, 108)
    await page.get_by_role("link", name="Reset").click()
    await shows(visitor, 120)


@thorough
async def test_who_has_to_log_in_again_comes_back_to_the_same_view(visitor: Visitor) -> None:
    page = visitor.page
    visitor.expect_trouble("status of 401")
    await page.get_by_label("Search records").fill("vm-02")
    await shows(visitor, 12)
    await visitor.context.clear_cookies()
    await page.get_by_label("Rows per page").select_option("250")
    await page.wait_for_url("**/login?next=*")
    ways_back = await page.locator('input[name="next"]').evaluate_all("(fields) => fields.map((field) => field.value)")
    assert set(ways_back) == {f"{HOME}?q=vm-02&limit=250"}
