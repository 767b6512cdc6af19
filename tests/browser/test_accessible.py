"""Nobody is shut out: axe-core finds nothing in any state, and everything can be done by keyboard alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Literal

import msgspec
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from tests.browser.feed import Feed, hypervisor, job, line, record, vm
from tests.browser.keys import UNSEEN, focus_comes_to, tab_to
from tests.browser.showcase import fill, showcase
from tests.browser.states import STATES, Watched, idle, online_again
from tests.browser.visitor import HOME, WAIT_MS, Visitor
from tests.service import Service
from tests.thorough import once, thorough

pytestmark = pytest.mark.asyncio(loop_scope="session")

FEW = 12
"""Records: enough for every shape of a row, for axe-core takes its time with each."""

Scheme = Literal["light", "dark"]
LOOKS: tuple[tuple[int, Scheme], ...] = ((1280, "light"), (360, "dark"))
"""Each state twice, by all rules: the widest and the narrowest, in every colour."""


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service for this module; the first test finds it empty."""
    with showcase(tmp_path_factory.mktemp("shown"), records=0) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def on(shown: Service, browser: Browser) -> AsyncIterator[Watched]:
    """One window for all states."""
    context = await browser.new_context(viewport={"width": LOOKS[0][0], "height": 900})
    context.set_default_timeout(WAIT_MS)
    watched = Watched(Visitor(shown, context, await context.new_page()), Feed())
    await watched.visitor.prepare()
    await watched.visitor.log_in()
    await watched.feed.take(watched.visitor.page)
    yield watched
    await watched.visitor.assert_untroubled()
    await context.close()


TOUCHED = (
    "idle", "running", "sealed", "ended", "question", "chosen", "toasts", "trouble", "nothing-matches", "details",
    "details-refused", "plots-as-tables", "details-page", "problem", "accounts", "tokens", "audit", "logout",
)  # fmt: skip
"""States with what fingers press."""


FIRST_LOOKED_AT = (
    "idle", "running", "question", "chosen", "refused", "toasts", "trouble", "details", "plots", "accounts", "tokens", "audit",
    "login",
)  # fmt: skip
"""States with a part of the page that no other of these has."""


async def assert_shuts_nobody_out(on: Watched, width: int, scheme: Scheme) -> None:
    await on.visitor.page.set_viewport_size({"width": width, "height": 900})
    await on.visitor.page.emulate_media(color_scheme=scheme)
    await on.settled()
    assert await on.visitor.axe() == []
    assert await on.visitor.too_wide() == []


async def test_axe_finds_nothing_while_there_is_nothing(on: Watched) -> None:
    await idle(on)
    await expect(on.visitor.records).to_have_count(0)
    for width, scheme in LOOKS:
        await assert_shuts_nobody_out(on, width, scheme)


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def filled(shown: Service, on: Watched) -> None:
    """From here on it has records, and has noticed them: another tab, which hears the service itself, shows them."""
    await fill(shown, FEW)
    other = await on.visitor.context.new_page()
    await other.goto(on.visitor.service.url + HOME)
    await expect(other.locator('#stats [data-field="dumps"]')).to_have_text(f"{FEW}")
    await other.close()


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize(("width", "scheme"), once(LOOKS, *LOOKS[:1]))
@pytest.mark.parametrize("state", once(STATES, *FIRST_LOOKED_AT))
async def test_axe_finds_nothing_in_any_state(on: Watched, state: str, width: int, scheme: Scheme) -> None:
    await STATES[state](on)
    await assert_shuts_nobody_out(on, width, scheme)
    await on.visitor.page.set_viewport_size({"width": LOOKS[0][0], "height": 900})
    await online_again(on)


@thorough
@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("width", [look[0] for look in LOOKS])
async def test_what_has_the_focus_is_never_wholly_covered_by_what_is_said_to_be_wrong(on: Watched, width: int) -> None:
    page = on.visitor.page
    await page.set_viewport_size({"width": width, "height": 900})
    await STATES["trouble"](on)
    await expect(page.locator("#notices")).to_contain_text("stands still")
    unseen = []
    await page.locator("#main").focus()
    for key in ("Tab", "Shift+Tab"):
        steps = 0
        while steps < 200:
            steps += 1
            await page.evaluate(SCROLL_TO_THE_EDGE, key == "Tab")
            await page.keyboard.press(key)
            if await page.evaluate("document.activeElement === document.body || document.activeElement.id === 'main'"):
                break
            unseen += [f"{key}: {one}" for one in await page.evaluate(UNSEEN)]
        assert FEW < steps < 200, key
    assert unseen == []
    await page.set_viewport_size({"width": LOOKS[0][0], "height": 900})


@thorough
@pytest.mark.usefixtures("filled")
async def test_on_a_phone_every_link_and_button_is_large_enough_for_a_finger(on: Watched) -> None:
    page = on.visitor.page
    await page.set_viewport_size({"width": 360, "height": 900})
    small = {}
    for state in TOUCHED:
        await STATES[state](on)
        small[state] = await page.evaluate(TOO_SMALL)
        await online_again(on)
    assert not any(small.values()), small
    await page.set_viewport_size({"width": LOOKS[0][0], "height": 900})


@pytest.mark.usefixtures("filled")
async def test_at_1280_pixels_an_administrator_sees_every_entry_beside_a_hypervisor_with_a_long_name(on: Watched) -> None:
    page, name = on.visitor.page, "hypervisor-with-a-long-name-07.example.org"
    await idle(on)
    on.feed.say("hypervisor", msgspec.structs.replace(hypervisor(), name=name))
    await expect(page.locator("#hypervisor")).to_contain_text(name)
    for width in (1280, 1600):
        await page.set_viewport_size({"width": width, "height": 900})
        await expect(page.locator(".menu-button")).not_to_be_visible()
        assert await page.locator("#menu nav").evaluate("(nav) => nav.scrollWidth <= nav.clientWidth"), width
        assert await on.visitor.too_wide() == []
    sign = await page.locator("#hypervisor strong").bounding_box()
    assert sign is not None
    assert sign["width"] < 200
    await page.set_viewport_size({"width": LOOKS[0][0], "height": 900})


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("width", once([1280, 768, 360], 360))
async def test_a_vm_whose_name_has_200_letters_and_no_space_widens_nothing(on: Watched, width: int) -> None:
    page, name = on.visitor.page, "n" * 200
    await page.set_viewport_size({"width": width, "height": 900})
    await STATES["idle"](on)
    on.feed.say("vms", [vm(1, name="web"), vm(2)])
    on.feed.say("job", job(1, dom="web"))
    await expect(on.visitor.running).to_have_count(1)
    before = await page.evaluate(WIDTHS)
    on.feed.say("vms", [vm(1, name=name), vm(2)])
    on.feed.say("job", job(1, dom=name))
    on.feed.say("record", record(1, dom=name))
    on.feed.say("activity", line(1, message=f"{name} was dumped.", dom=name))
    await expect(on.visitor.records.first).to_contain_text(name)
    assert await page.evaluate(WIDTHS) == before
    assert await on.visitor.too_wide() == []
    await page.set_viewport_size({"width": LOOKS[0][0], "height": 900})


@pytest.mark.usefixtures("filled")
async def test_choosing_vms_moves_no_list_on_a_phone(on: Watched) -> None:
    page, vms = on.visitor.page, on.visitor.page.locator("#vms-list")
    await page.set_viewport_size({"width": 360, "height": 900})
    await idle(on)
    before = await vms.bounding_box()
    await page.locator("#vms-list input:enabled").first.check()
    await expect(page.locator("#vms-chosen")).to_contain_text("1 selected")
    assert await vms.bounding_box() == before
    await page.locator("[data-action=choose]").click()
    await page.locator("#vms-search").fill("web-01")
    await expect(page.locator("#vms-chosen")).to_contain_text("not shown")
    assert await vms.bounding_box() == before
    await page.set_viewport_size({"width": LOOKS[0][0], "height": 900})


@pytest.mark.usefixtures("filled")
async def test_a_dump_is_made_found_read_and_filtered_by_keyboard_alone(shown: Service, browser: Browser) -> None:
    context = await browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(WAIT_MS)
    visitor = Visitor(shown, context, await context.new_page())
    try:
        await visitor.prepare()
        await visitor.log_in()
        await visitor.live()
        before = await visitor.records.first.get_attribute("data-dump-id")
        await dumps_a_vm(visitor.page)
        await expect(visitor.records.first).not_to_have_attribute("data-dump-id", before or "")
        await reads_its_details(visitor.page)
        await searches_and_turns_the_order(visitor)
        await chooses_dark(visitor.page)
        await visitor.assert_untroubled()
    finally:
        await context.close()


async def dumps_a_vm(page: Page) -> None:
    """From the top of the page: over the bar, to a VM, its options and the button."""
    await tab_to(page, ".skip-link")
    await page.keyboard.press("Enter")
    await expect(page.locator("#main")).to_be_focused()
    await tab_to(page, "#vms-search")
    await page.keyboard.type("web-02")
    await tab_to(page, "#vms-list input")
    await page.keyboard.press("Space")
    await tab_to(page, "#dump-options > summary")
    await page.keyboard.press("Enter")
    await tab_to(page, "#dump-reason")
    await page.keyboard.type("by keyboard")
    await tab_to(page, "#dump-selected")
    await page.keyboard.press("Enter")


async def reads_its_details(page: Page) -> None:
    """The dialog takes the focus, keeps it, and gives it back."""
    await tab_to(page, "#records-rows tr:first-child [data-field=view]")
    await page.keyboard.press("Enter")
    dialog = page.locator("#details-dialog")
    await expect(dialog.locator('[data-text="reason"]')).to_have_text("by keyboard")
    await tab_to(page, "#details-close")
    await page.keyboard.press("Shift+Tab")
    await tab_to(page, "[data-copy=sha256]")
    await page.keyboard.press("Escape")
    await expect(dialog).not_to_be_visible()
    await focus_comes_to(page, "#records-rows tr:first-child [data-field=view]")


async def searches_and_turns_the_order(visitor: Visitor) -> None:
    page = visitor.page
    await tab_to(page, "#filter-q", back=True)
    await page.keyboard.type("grafana")
    await expect(page).to_have_url(f"{visitor.service.url}{HOME}?q=grafana")
    await expect(page.locator("#records-rows [data-field=dom]").first).to_have_text("grafana")
    await tab_to(page, "#filters-reset")
    await page.keyboard.press("Enter")
    await expect(page.locator("#filter-q")).to_have_value("")
    await tab_to(page, "#records-sort")
    await page.keyboard.press("Enter")
    await expect(page.locator("#records-time")).to_have_attribute("aria-sort", "ascending")


async def chooses_dark(page: Page) -> None:
    await tab_to(page, "#theme", back=True)
    await page.keyboard.press("End")
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")


WIDTHS = """
() => [".panel", "#vms-list", "#vms-list > li:nth-child(2) *", "#jobs-list > li", ".records-table thead th"].map((parts) =>
  [...document.querySelectorAll(parts)].map((one) => [one.getBoundingClientRect().x, one.getBoundingClientRect().width]))
"""
TOO_SMALL = """
() => [...document.querySelectorAll(":is(main, dialog[open], #messages, #notices) :is(a, button, summary, select)")]
  .map((one) => [one.getBoundingClientRect(), one])
  .filter(([{width, height}]) => width > 0 && Math.min(width, height) < 43.9)
  .map(([{width, height}, one]) => `${one.outerHTML.slice(0, 160)}: ${width} x ${height}`)
"""
SCROLL_TO_THE_EDGE = """
(atTheFoot) => {
  const place = (part) => part.getBoundingClientRect(), one = document.activeElement;
  const below = () => place(one).bottom - place(document.querySelector(".notices")).top;
  if (one.closest("main > *")) scrollBy(0, atTheFoot ? below() : place(one).top - place(document.querySelector(".navbar")).bottom);
}
"""
"""What has the focus is just seen: what gets it next lies where something else does."""
