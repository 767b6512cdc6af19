"""Every action by keyboard alone: nothing here is pressed by a mouse, and the focus is seen wherever it goes."""

from __future__ import annotations

import csv
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Page, Route, expect

from app.model import Phase
from tests.browser.feed import Feed, job
from tests.browser.keys import focus_comes_to, press, tab_to
from tests.browser.showcase import showcase
from tests.browser.visitor import HOME, WAIT_MS, Visitor
from tests.faults.scene import memdump
from tests.service import Service
from tests.thorough import thorough

pytestmark = pytest.mark.asyncio(loop_scope="session")

RECORDS = 60
RUNNING = 8
"""VMs of the showcase that can be dumped."""


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with showcase(tmp_path_factory.mktemp("keyboard"), records=RECORDS) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="session")
async def visitor(shown: Service, browser: Browser) -> AsyncIterator[Visitor]:
    """At a live page."""
    context = await browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(WAIT_MS)
    await context.grant_permissions(["clipboard-read", "clipboard-write"])
    visitor = Visitor(shown, context, await context.new_page())
    await visitor.prepare()
    await visitor.log_in()
    await visitor.live()
    yield visitor
    await visitor.close()


@thorough
async def test_the_question_before_all_vms_are_dumped(shown: Service, visitor: Visitor) -> None:
    page, dialog = visitor.page, visitor.page.locator("#dump-all-dialog")
    before = set(shown.dump_dir.glob("*.manifest.json"))
    await tab_to(page, "#dump-all")
    await press(page, "Enter")
    await focus_comes_to(page, "#dump-all-dialog [data-action=close]")  # what does least
    await press(page, "Escape")
    await expect(dialog).not_to_be_visible()
    await focus_comes_to(page, "#dump-all")
    await press(page, "Space")
    await focus_comes_to(page, "#dump-all-dialog [data-action=close]")
    await press(page, "Enter")
    await expect(dialog).not_to_be_visible()
    await focus_comes_to(page, "#dump-all")
    await press(page, "Enter")
    await tab_to(page, "[data-action=dump-all]", back=True)
    await press(page, "Enter")
    await expect(dialog).not_to_be_visible()
    for number in range(RUNNING):
        await page.wait_for_function(
            "(least) => document.querySelector('#stats [data-field=dumps]').textContent > least", arg=RECORDS + number
        )
    await focus_comes_to(page, "#vms-heading, #dump-all")  # the button was off meanwhile
    assert len(set(shown.dump_dir.glob("*.manifest.json")) - before) == RUNNING


@thorough
async def test_several_vms_are_chosen_and_let_go(visitor: Visitor) -> None:
    page, chosen = visitor.page, visitor.page.locator("#vms-chosen")
    await tab_to(page, "[data-action=choose]")
    await press(page, "Enter")
    await expect(chosen).to_contain_text(f"{RUNNING} selected")
    await tab_to(page, "#vms-list input")
    await press(page, "Space")
    await expect(chosen).to_contain_text(f"{RUNNING - 1} selected")
    await tab_to(page, "[data-action=clear]", back=True)
    await press(page, "Enter")
    await expect(chosen).to_have_text("")


@thorough
async def test_what_is_filtered_is_downloaded(visitor: Visitor) -> None:
    page = visitor.page
    await tab_to(page, "#filter-q")
    await page.keyboard.type("grafana")
    await expect(page).to_have_url(f"{visitor.service.url}{HOME}?q=grafana")
    await tab_to(page, "#records-csv")
    async with page.expect_download() as waiting:
        await press(page, "Enter")
    with (await (await waiting.value).path()).open(newline="") as file:
        assert {row["dom"] for row in csv.DictReader(file)} == {"grafana"}
    await focus_comes_to(page, "#records-csv")


@thorough
async def test_a_date_a_vm_and_their_removal(visitor: Visitor) -> None:
    page, date, times = visitor.page, visitor.page.locator("#filter-date"), visitor.page.locator("#records-rows time")
    day = (await times.last.inner_text())[:10]
    await tab_to(page, "#filter-date")
    await type_day(page, day)
    await expect(page).to_have_url(f"{visitor.service.url}{HOME}?date={day}")
    await expect(times.first).to_contain_text(day)
    await tab_to(page, "#filters-reset")
    await press(page, "Enter")
    await expect(date).to_have_value("")
    await expect(page).to_have_url(visitor.service.url + HOME)
    await focus_comes_to(page, "#filters-reset")  # though it leads nowhere now

    link = await tab_to(page, "#records-rows [data-field=dom]")
    name = await link.inner_text()
    await press(page, "Enter")
    await expect(page.locator("[data-chip=vm]")).to_contain_text(name)
    await tab_to(page, "[data-chip=vm] a", back=True)
    await press(page, "Enter")
    await expect(page.locator("#chips")).not_to_be_visible()
    await focus_comes_to(page, "#records-heading")

    await tab_to(page, "#filter-q")
    await page.keyboard.type("nothing-is-called-so")
    await expect(page.locator("#records-all")).to_be_visible()
    await tab_to(page, "#records-all")
    await press(page, "Enter")
    await expect(page.locator("#records-all")).not_to_be_visible()
    await focus_comes_to(page, "#records-heading")


@thorough
async def test_pages_and_how_long_they_are(visitor: Visitor) -> None:
    page, where = visitor.page, visitor.page.locator("#records-where")
    rows = await choose(page, "#filter-limit", "25")
    await expect(rows).to_have_value("25")
    await expect(page).to_have_url(f"{visitor.service.url}{HOME}?limit=25")
    await expect(where).to_contain_text("Page 1 of 3")
    await tab_to(page, "[data-go=next]")
    for number in (2, 3):
        await press(page, "Enter")
        await expect(where).to_contain_text(f"Page {number} of 3")
        await focus_comes_to(page, "[data-go=next]")
    for go, number in (("previous", 2), ("first", 1), ("last", 3)):
        await tab_to(page, f"[data-go={go}]", back=go != "last")
        await press(page, "Enter")
        await expect(where).to_contain_text(f"Page {number} of 3")
        await focus_comes_to(page, f"[data-go={go}]")


@thorough
async def test_running_dumps_are_cancelled_and_what_ended_is_dismissed(visitor: Visitor) -> None:
    page, feed, asked = visitor.page, Feed(), []

    async def accept(route: Route) -> None:
        asked.append(route.request.url.split("/")[-2])
        await route.fulfill(status=202, json={})

    await page.route("**/cancel", accept)
    await feed.take(page)
    await visitor.go()
    await visitor.live()
    for number in (1, 2, 3):
        feed.say("job", job(number))
    await expect(visitor.running).to_have_count(3)
    for number, ending in ((1, Phase.CANCELLED), (2, Phase.FAILED), (3, Phase.INTERRUPTED)):
        name = job(number).dom
        await tab_to(page, "#jobs-list [data-action=cancel]:not(:disabled)")
        await press(page, "Enter" if number % 2 else "Space")
        await focus_comes_to(page, "#jobs-list [data-field=dom]")
        assert await page.locator(":focus").inner_text() == name
        feed.say("job", job(number, ending))
        await expect(visitor.ended).to_have_count(number)
    assert asked == ["job-1", "job-2", "job-3"]
    await tab_to(page, "[data-action=dismiss]")
    await press(page, "Enter")
    await expect(visitor.ended).to_have_count(2)
    await tab_to(page, "#dismiss-all")
    await press(page, "Space")
    await expect(visitor.ended).to_have_count(0)
    await focus_comes_to(page, "#jobs-heading")
    await page.unroute_all()


@thorough
@pytest.mark.parametrize(
    ("asked", "way", "again", "then"),
    [
        ("**/records?*", "[data-go=last]", "#records-again", "#records-heading"),
        ("**/records/0*", "#records-rows [data-field=view]", "#details-body [role=alert] button", "#details-heading"),
        ("**/stats?*", "#plots > summary", "#plots-again", "#plots-days"),
    ],
)
async def test_what_did_not_come_is_asked_for_once_more(visitor: Visitor, asked: str, way: str, again: str, then: str) -> None:
    page = visitor.page
    visitor.expect_trouble("net::ERR_FAILED")
    await page.route(asked, lambda route: route.abort())
    below = not way.startswith("#records-rows")
    if below:
        await tab_to(page, "#activity-link")
        await press(page, "Enter")  # over all records
    await tab_to(page, way, back=below)
    await press(page, "Enter")
    await expect(page.locator(again)).to_be_visible()
    await page.unroute(asked)
    await tab_to(page, again)
    await press(page, "Enter")
    await expect(page.locator(again)).not_to_be_visible()
    await focus_comes_to(page, then)


@thorough
async def test_a_dump_is_opened_as_a_page_and_printed(visitor: Visitor) -> None:
    page = visitor.page
    await visitor.context.add_init_script("window.print = () => { window.printed = true; }")
    await tab_to(page, "#records-rows [data-field=view]")
    await press(page, "Enter")
    await focus_comes_to(page, "#details-heading")
    await tab_to(page, "#details-link", back=True)
    async with visitor.context.expect_page() as opening:
        await press(page, "Enter")
    opened = await opening.value
    await expect(opened).to_have_url(page.url)
    await tab_to(opened, "#print")
    await press(opened, "Enter")
    assert await opened.evaluate("window.printed")
    await opened.close()


@thorough
async def test_the_switches_and_what_came_meanwhile(shown: Service, visitor: Visitor) -> None:
    page, news = visitor.page, visitor.page.locator("#records-news")
    await tab_to(page, "#filter-sizes")
    for said in ("Compressed size", "Original size"):
        await press(page, "Space")
        await expect(page.locator("#records-size")).to_have_text(said)
        await focus_comes_to(page, "#filter-sizes")
    await tab_to(page, "#auto-refresh", back=True)
    await press(page, "Space")
    assert memdump(shown.environment, "vpn-01").returncode == 0
    await expect(news).to_be_visible()
    await expect(news).to_have_text("1 new")
    await tab_to(page, "#records-news", back=True)
    await press(page, "Enter")
    await expect(page.locator("#records-rows [data-field=dom]").first).to_have_text("vpn-01")
    await focus_comes_to(page, "#records-heading")
    await expect(news).not_to_be_visible()
    await tab_to(page, "#auto-refresh")
    await press(page, "Space")
    await expect(page.locator("#auto-refresh")).to_be_checked()


@thorough
async def test_what_stands_in_the_details_is_copied(visitor: Visitor) -> None:
    page, dialog = visitor.page, visitor.page.locator("#details-dialog")
    await tab_to(page, "#records-rows [data-field=copy]")
    await press(page, "Enter")
    await expect(page.locator(":focus")).to_have_text("Copied")
    sha256 = await page.locator("#records-rows [data-field=sha256]").first.get_attribute("title")
    assert await page.evaluate("navigator.clipboard.readText()") == sha256
    await tab_to(page, "#records-rows [data-field=view]", back=True)
    await press(page, "Enter")
    await expect(dialog.locator(".details")).to_be_visible()
    await focus_comes_to(page, "#details-heading")
    for name in ("dump_path", "sha256", "stored_sha256", "check", "dump_id"):
        await tab_to(page, f"[data-copy={name}]")
        await press(page, "Enter")
        await expect(page.locator(":focus")).to_have_text("Copied")
        text = await dialog.locator(f'[data-text="{name}"]').text_content()
        assert await page.evaluate("navigator.clipboard.readText()") == text
    await tab_to(page, ".domain-xml summary")
    await press(page, "Enter")
    await expect(dialog.locator(".domain-xml pre")).to_be_visible()
    await tab_to(page, ".toast-close")
    await press(page, "Enter")
    await tab_to(page, "#details-close")
    await press(page, "Space")
    await expect(dialog).not_to_be_visible()
    await focus_comes_to(page, "#records-rows [data-field=view]")


@thorough
async def test_plots_their_range_and_their_tables(visitor: Visitor) -> None:
    page, said, grid = visitor.page, visitor.page.locator("#plots-said"), visitor.page.locator("#plots-grid")
    await tab_to(page, "#activity-link")
    await press(page, "Enter")  # over all records
    await tab_to(page, "#plots > summary", back=True)
    await press(page, "Enter")
    await expect(grid).to_be_visible()
    await expect(page.locator("#plots-table-days tbody tr")).to_have_count(30)
    await choose(page, "#plots-days", "7")
    await expect(page.locator("#plots-table-days tbody tr")).to_have_count(7)
    await tab_to(page, "#plots-days")
    await press(page, "End")
    for end, day in (("from", "2026-02-28"), ("to", "2026-03-01")):
        await tab_to(page, f"#plots-{end}")
        await type_day(page, day)
    await expect(said).to_contain_text("from 2026-02-28 to 2026-03-01")
    await tab_to(page, "#plots-tables")
    await press(page, "Space")
    await tab_to(page, "#plots-table-days")  # which scrolls
    await tab_to(page, "#plots-table-vms")
    await tab_to(page, "#plots-tables", back=True)
    await press(page, "Space")
    await expect(grid.locator("canvas").first).to_be_visible()
    await tab_to(page, "#plots > summary", back=True)
    await press(page, "Space")
    await expect(grid).not_to_be_visible()


@thorough
@pytest.mark.parametrize("width", [1280, 360])
async def test_the_theme_and_the_way_out_and_in_again(visitor: Visitor, width: int) -> None:
    page, html = visitor.page, visitor.page.locator("html")
    await page.set_viewport_size({"width": width, "height": 900})
    if width == 360:
        await tab_to(page, ".menu-button")
        await press(page, "Enter")
        await tab_to(page, "#menu a")
        await press(page, "Escape")
        await expect(page.locator("#menu")).not_to_be_visible()
        await focus_comes_to(page, ".menu-button")
        await press(page, "Space")
    await tab_to(page, "#theme")
    await press(page, "End")
    await expect(html).to_have_attribute("data-theme", "dark")
    await press(page, "ArrowUp")
    await expect(html).to_have_attribute("data-theme", "light")
    await press(page, "Home")
    await expect(html).not_to_have_attribute("data-theme", "light")
    await tab_to(page, "#log-out")
    await press(page, "Enter")
    await page.wait_for_url("**/login**")
    await tab_to(page, "#code")
    await page.keyboard.type(visitor.service.fresh_login_url())
    await press(page, "Enter")
    await page.wait_for_url(f"**{HOME}")
    await visitor.live()


@thorough
async def test_an_account_is_made_changed_and_removed(visitor: Visitor) -> None:
    page, account = visitor.page, visitor.page.locator("[data-account=carol]")
    await visitor.go("/accounts")
    await tab_to(page, "#new-name")
    await page.keyboard.type("carol")
    await choose(page, "#new-role", "operator")
    await tab_to(page, "#new-password")
    await page.keyboard.type("long enough for this")
    await press(page, "Enter")
    await expect(account).to_contain_text("operator")
    await tab_to(page, "[data-account=carol] summary")
    await press(page, "Enter")
    await choose(page, "[data-account=carol] [name=role]", "viewer")
    await tab_to(page, "[data-account=carol] [action$=change] button")
    await press(page, "Enter")
    await expect(page.locator("#said")).to_have_text("Role and limits of \u2068carol\u2069 are saved.")
    await focus_comes_to(page, "[data-account=carol] [action$=change] button")
    await expect(account.locator("> p")).to_have_text("viewer · all VMs")
    await tab_to(page, "[data-account=carol] [name=password]")
    await page.keyboard.type("longer than it was before")
    await press(page, "Enter")
    await expect(page.locator("#said")).to_contain_text("The new password is set.")
    await focus_comes_to(page, "[data-account=carol] [action$=password] button")
    await tab_to(page, "[data-account=carol] [popovertarget$=remove]")
    await answers_the_question(page)
    await expect(account).to_have_count(0)


@thorough
async def test_a_token_is_made_copied_and_revoked(visitor: Visitor) -> None:
    page, token = visitor.page, visitor.page.locator("[data-token]").filter(has_text="nightly")
    await visitor.go("/tokens")
    await tab_to(page, "#new-label")
    await page.keyboard.type("nightly")
    await choose(page, "#new-role", "viewer")
    await tab_to(page, "#new-vms")
    await page.keyboard.type("vm-web-*")
    await tab_to(page, "[data-deed=make-token] [type=submit]")
    await press(page, "Enter")
    await expect(token).to_contain_text("VMs vm-web-*")
    await tab_to(page, "[data-copy=secret]")
    await press(page, "Enter")
    await expect(page.locator("#said")).to_have_text("The token is in the clipboard.")
    await tab_to(page, "[data-token] [popovertarget]")
    await answers_the_question(page)
    await expect(token).to_have_count(0)


async def answers_the_question(page: Page) -> None:
    """At first with no, by two ways; each leads back to the button that asked."""
    question, asks = (
        page.locator("[popover]:popover-open"),
        f"[popovertarget={await page.locator(':focus').get_attribute('popovertarget')}]",
    )
    for key in ("Escape", "Enter"):
        await press(page, "Enter")
        await focus_comes_to(page, "[popover] [autofocus]")
        await press(page, key)
        await expect(question).to_have_count(0)
        await focus_comes_to(page, asks)
    await press(page, "Space")
    await focus_comes_to(page, "[popover] [autofocus]")
    await tab_to(page, "[popover] [type=submit]", back=True)
    await press(page, "Enter")


async def choose(page: Page, selector: str, value: str) -> Locator:
    """With the arrows, from the first one on."""
    field = await tab_to(page, selector)
    await press(page, "Home")
    for _ in range(10):
        if await field.input_value() == value:
            break
        await press(page, "ArrowDown")
    return field


async def type_day(page: Page, day: str) -> None:
    """Into a field for a date, as the browser's language writes it."""
    year, month, date = day.split("-")
    await page.keyboard.type(month + date + year)
