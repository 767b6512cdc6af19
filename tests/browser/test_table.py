"""The table of records: its pages, its order, what slides into it and what does not, and what one does with a row."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Route, expect

from app.config import Settings
from app.foundation import SCHEMAS
from app.records.index import RecordIndex
from app.state import State
from tests.browser.axe import violations
from tests.browser.conftest import ALPHA, BETA, OpenWindow
from tests.browser.visitor import HOME, Visitor, field, isolated
from tests.faults.scene import memdump
from tests.histories import SEC_NS, manifest_at
from tests.nodes import node
from tests.service import Service, running_service, service_environment
from tests.thorough import thorough

pytestmark = pytest.mark.asyncio(loop_scope="session")

STRANGE = '<img src=x onerror="window.violations.push(1)"> \u202e🦊 ' + "long" * 40
RECORDS = "**/api/memory-dumps/records?*"
LAYOUT_SHIFTS = """
window.shift = 0;
new PerformanceObserver((list) => list.getEntries().forEach((entry) => { window.shift += entry.value; }))
  .observe({type: "layout-shift"});
"""


def fill_with(folder: Path, count: int) -> None:
    """Records of the year 2026 for a service that will run in ``folder``, one a minute."""
    state = State.open(Settings.from_environment(service_environment(folder)).state_file, *SCHEMAS)
    names = (*(f"vm-0{vm}" for vm in range(9)), STRANGE)
    begin = 1_767_225_600
    manifests = (
        replace(manifest_at((begin + 60 * number) * SEC_NS, dom=names[number % 10], vmid=str(number % 10)), sha256=f"{number:064x}")
        for number in range(count)
    )
    try:
        asyncio.run(RecordIndex(state).add_many(manifests))
    finally:
        state.close()


@pytest.fixture(scope="module")
def tabled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service for this module with 230 records, over libvirt's test driver."""
    folder = tmp_path_factory.mktemp("tabled")
    fill_with(folder, 230)
    with running_service(folder, LIBVIRT_URI=node(folder / "node.xml", (ALPHA, BETA))) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="session")
async def visitor(tabled: Service, window: OpenWindow) -> Visitor:
    found = await window(tabled)
    await found.live()
    return found


async def test_one_goes_through_the_pages_and_back(visitor: Visitor) -> None:
    page, count = visitor.page, await total(visitor)
    pages = -(-count // 50)
    shown = page.locator("#records-where")
    await expect(shown).to_have_text(f"Page 1 of {pages} · {count} dumps")
    first = await visitor.records.first.get_attribute("data-dump-id")
    for name in ("First", "Previous"):
        await expect(page.get_by_role("link", name=name, exact=True)).to_be_disabled()
    nexts = page.get_by_role("link", name="Next", exact=True)
    await nexts.focus()
    for number in range(2, pages + 1):
        await page.keyboard.press("Enter")
        await expect(shown).to_have_text(f"Page {number} of {pages} · {count} dumps")
        await expect(nexts).to_be_focused()
    await expect(nexts).to_be_disabled()
    await expect(visitor.records).to_have_count(count - 50 * (pages - 1))
    await expect(field(visitor.records.last, "time")).to_have_text("2026-01-01 00:00:00 UTC")
    await page.go_back()
    await expect(shown).to_contain_text(f"Page {pages - 1} of")
    await page.get_by_role("link", name="First", exact=True).click()
    await expect(visitor.records.first).to_have_attribute("data-dump-id", first or "")
    await page.get_by_role("link", name="Last", exact=True).click()
    await expect(field(visitor.records.last, "time")).to_have_text("2026-01-01 00:00:00 UTC")
    await expect(visitor.records).to_have_count(count - 50 * (pages - 1))


async def total(visitor: Visitor) -> int:
    return int(await field(visitor.page.locator("#stats"), "dumps").inner_text())


async def test_it_is_sorted_by_time_both_ways_and_says_so(visitor: Visitor) -> None:
    page = visitor.page
    head = page.get_by_role("columnheader", name="Time")
    await expect(head).to_have_attribute("aria-sort", "descending")
    await head.get_by_role("link").click()
    await expect(head).to_have_attribute("aria-sort", "ascending")
    await expect(field(visitor.records.first, "time")).to_have_text("2026-01-01 00:00:00 UTC")
    await expect(page).to_have_url(f"{visitor.service.url}{HOME}?order=asc")
    await head.get_by_role("link").press("Enter")
    await expect(head).to_have_attribute("aria-sort", "descending")
    await expect(head.get_by_role("link")).to_be_focused()


async def test_its_head_stays_below_the_bar_while_one_scrolls(visitor: Visitor) -> None:
    await visitor.records.nth(40).scroll_into_view_if_needed()
    bar = await visitor.page.locator(".navbar").bounding_box()
    head = await visitor.page.locator("#records-time").bounding_box()
    assert bar is not None
    assert head is not None
    assert abs(head["y"] - (bar["y"] + bar["height"])) < 1.5


async def test_the_hash_is_copied_whole_and_a_refusal_shows_it(visitor: Visitor) -> None:
    row, page = visitor.records.nth(2), visitor.page
    hash_ = field(row, "sha256")
    whole = await hash_.get_attribute("title") or ""
    assert len(whole) == 64
    await expect(hash_).to_have_text(whole[:12])
    await visitor.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await row.get_by_role("button", name="Copy hash").click()
    await expect(page.locator("#announcements")).to_contain_text("is in the clipboard")
    assert await page.evaluate("navigator.clipboard.readText()") == whole
    strange = visitor.records.filter(has_text="onerror").first
    await strange.get_by_role("button", name="Copy hash").click()
    said = f"Hash of the dump of {isolated(STRANGE)} is in the clipboard."
    await expect(page.locator("#announcements")).to_contain_text(said)
    await page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('refused')); }")
    await row.get_by_role("button", name="Copy hash").click()
    await expect(hash_).to_have_text(whole)
    assert await page.evaluate("getSelection().toString()") == whole


async def test_a_strange_name_is_text_and_leads_to_the_dumps_of_its_vm(visitor: Visitor) -> None:
    page = visitor.page
    name = field(visitor.records, "dom").filter(has_text="onerror").first
    await expect(name).to_have_text(STRANGE)
    await name.click()
    await expect(page.locator('[data-chip="vm"]')).to_contain_text(STRANGE)
    await expect(page.locator("#records-where")).to_have_text("Page 1 of 1 · 23 dumps")
    assert await visitor.width_of_overflow() == 0
    await page.get_by_role("link", name="Remove: VM").click()
    await expect(page.locator('[data-chip="vm"]')).not_to_be_visible()
    await expect(visitor.records).to_have_count(50)


async def test_a_new_record_slides_in_without_a_jump_and_the_count_follows(visitor: Visitor) -> None:
    page, before = visitor.page, await total(visitor)
    await page.evaluate(LAYOUT_SHIFTS)
    made = memdump(visitor.service.environment, ALPHA.name)
    assert made.returncode == 0, made.stderr
    await expect(field(visitor.records.first, "dom")).to_have_text(ALPHA.name)
    await expect(page.locator("#records-where")).to_contain_text(f"{before + 1} dumps")
    await expect(visitor.records).to_have_count(50)
    assert await page.evaluate("window.shift") <= 0.02


async def add(visitor: Visitor, name: str) -> None:
    """A record that another program keeps just now."""
    state = State.open(Settings.from_environment(visitor.service.environment).state_file, *SCHEMAS)
    try:
        await RecordIndex(state).add(manifest_at(time.time_ns() // 1000 * 1000, dom=name))
    finally:
        state.close()


async def test_nothing_moves_under_somebody_who_reads(visitor: Visitor) -> None:
    page, news, first = visitor.page, visitor.page.locator("#records-news"), visitor.records.first
    top = await first.get_attribute("data-dump-id") or ""
    await visitor.records.nth(5).hover()
    await add(visitor, BETA.name)
    await expect(news).to_have_text("1 new")
    await visitor.records.last.scroll_into_view_if_needed()
    await expect(news).to_be_in_viewport(ratio=1)  # wherever in the table one reads
    await expect(first).to_have_attribute("data-dump-id", top)
    await page.mouse.move(640, 20)
    await page.evaluate("scrollTo(0, 0)")  # and when one has read, it comes
    await expect(field(first, "dom")).to_have_text(BETA.name)
    await expect(news).not_to_be_visible()

    await visitor.records.nth(2).get_by_role("link", name="View").focus()
    top = await first.get_attribute("data-dump-id") or ""
    await add(visitor, ALPHA.name)
    await expect(news).to_have_text("1 new")
    await expect(first).to_have_attribute("data-dump-id", top)
    await news.click(delay=300)  # a person's finger: the button stays under it
    await expect(field(first, "dom")).to_have_text(ALPHA.name)
    await expect(page.locator("#records-heading")).to_be_focused()


async def test_without_auto_refresh_news_wait_for_a_click_also_after_a_reload(visitor: Visitor) -> None:
    page, news, first = visitor.page, visitor.page.locator("#records-news"), visitor.records.first
    await page.get_by_label("Auto-refresh").uncheck()
    await page.reload()
    await visitor.live()
    await expect(page.get_by_label("Auto-refresh")).not_to_be_checked()
    top = await first.get_attribute("data-dump-id") or ""
    for number, name in enumerate((ALPHA.name, BETA.name), 1):
        await add(visitor, name)
        await expect(news).to_have_text(f"{number} new")
        await expect(first).to_have_attribute("data-dump-id", top)
    await news.click()
    await expect(news).not_to_be_visible()
    assert await field(visitor.records, "dom").nth(1).inner_text() == ALPHA.name

    await add(visitor, ALPHA.name)
    await expect(news).to_have_text("1 new")
    await page.get_by_label("Auto-refresh").check()
    await expect(field(first, "dom")).to_have_text(ALPHA.name)


@thorough
async def test_a_record_that_could_not_slide_in_before_somebody_reads_is_said_to_be_new(visitor: Visitor) -> None:
    page, before = visitor.page, await total(visitor)
    await page.mouse.move(0, 0)
    async with visitor.held_back("**/glide.js"):
        await add(visitor, ALPHA.name)
        await expect(field(page.locator("#stats"), "dumps")).to_have_text(f"{before + 1}")
        await visitor.records.first.hover()
    await expect(page.locator("#records-news")).to_have_text("1 new")


@thorough
async def test_on_another_page_only_the_count_follows(visitor: Visitor) -> None:
    page, before = visitor.page, await total(visitor)
    await page.get_by_role("link", name="Next", exact=True).click()
    await visitor.reads_page(re.compile("^Page 2 of"))
    rows = await visitor.records.evaluate_all("(rows) => rows.map((row) => row.dataset.dumpId)")
    await add(visitor, ALPHA.name)
    await expect(page.locator("#records-where")).to_contain_text(f"{before + 1} dumps")
    assert await visitor.records.evaluate_all("(rows) => rows.map((row) => row.dataset.dumpId)") == rows


@thorough
async def test_oldest_first_new_records_come_at_the_end_of_the_last_page(visitor: Visitor) -> None:
    page, news, last = visitor.page, visitor.page.locator("#records-news"), visitor.records.last
    await page.get_by_role("columnheader", name="Time").get_by_role("link").click()
    await expect(field(visitor.records.first, "time")).to_have_text("2026-01-01 00:00:00 UTC")
    await page.get_by_role("link", name="Last", exact=True).click()
    await visitor.reads_page(re.compile(r"^Page ([2-9]) of \1 "))
    await page.mouse.move(640, 20)
    await page.locator("#records-heading").focus()
    await page.evaluate("scrollTo(0, 0)")
    before = await visitor.records.count()
    await add(visitor, "comes-last")
    await expect(field(last, "dom")).to_have_text("comes-last")
    await expect(visitor.records).to_have_count(before + 1)

    await page.get_by_label("Auto-refresh").uncheck()
    await add(visitor, "waits")
    await expect(news).to_have_text("1 new")
    await expect(field(last, "dom")).to_have_text("comes-last")
    await news.click()
    await expect(field(last, "dom")).to_have_text("waits")


@thorough
async def test_with_filters_only_what_fits_slides_in(visitor: Visitor) -> None:
    page = visitor.page
    await visitor.go(f"{HOME}?vm={ALPHA.name}")
    await visitor.live()
    shown = page.locator("#records-where")
    before = await visitor.records.count()
    await add(visitor, BETA.name)
    await add(visitor, ALPHA.name)
    await expect(shown).to_contain_text(f"{before + 1} dump")
    await expect(visitor.records).to_have_count(before + 1)
    assert set(await field(visitor.records, "dom").all_inner_texts()) == {ALPHA.name}


async def test_an_error_stays_in_the_table_and_one_can_try_again(visitor: Visitor) -> None:
    page, error = visitor.page, visitor.page.locator("#records-error")
    visitor.expect_trouble("status of 503")

    async def refuse(route: Route) -> None:
        await route.fulfill(status=503, json={"detail": "The state file is in use.", "code": "state-in-use"})

    await page.route(RECORDS, refuse)
    await page.get_by_role("link", name="Last", exact=True).click()
    await expect(error).to_contain_text("The state file is in use.")
    await expect(page.locator("#records-table")).not_to_be_visible()
    assert await violations(page) == []
    await page.unroute(RECORDS, refuse)
    await error.get_by_role("button", name="Try again").click()
    await expect(error).not_to_be_visible()
    await expect(field(visitor.records.last, "time")).to_have_text("2026-01-01 00:00:00 UTC")
    await expect(page.locator("#records-heading")).to_be_focused()


@thorough
async def test_the_last_page_that_was_asked_for_is_shown_whichever_answer_comes_first(visitor: Visitor) -> None:
    page, late = visitor.page, asyncio.Event()

    async def hold(route: Route) -> None:
        await late.wait()
        await route.continue_()

    await page.route("**/records?*offset=50&*", hold)
    await page.get_by_role("link", name="Next", exact=True).click()
    await expect(page.locator("#records-area")).to_have_attribute("aria-busy", "true")
    await page.get_by_role("link", name="Last", exact=True).click()
    await expect(field(visitor.records.last, "time")).to_have_text("2026-01-01 00:00:00 UTC")
    late.set()
    await expect(page.locator("#records-area")).not_to_have_attribute("aria-busy", "true")
    await expect(field(visitor.records.last, "time")).to_have_text("2026-01-01 00:00:00 UTC")
    await page.unroute_all()


@thorough
async def test_no_width_scrolls_sideways_and_on_a_phone_each_record_is_a_stack_with_labels(visitor: Visitor) -> None:
    page, row = visitor.page, visitor.records.first
    for width in (1100, 800, 600, 360):
        await page.set_viewport_size({"width": width, "height": 900})
        assert await visitor.width_of_overflow() == 0, width
    box = await row.get_by_role("link", name="View").bounding_box()
    assert box is not None
    assert box["height"] >= 44
    label = await field(row, "vmid").evaluate("(cell) => getComputedStyle(cell, '::before').content")
    assert label == '"VM ID"'
    assert await violations(page) == []
    await page.get_by_role("columnheader", name="Time").get_by_role("link").click()
    await expect(field(row, "time")).to_have_text("2026-01-01 00:00:00 UTC")
