"""What stands around the page's parts: the bar, the figures, the toasts, the activity, light and dark."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.async_api import expect

from app.model import Link, Room
from app.web.messages import Hypervisor
from tests.browser.conftest import ALPHA, BETA, GONE, OpenWindow
from tests.browser.feed import GIB, STRANGE_NAMES, Feed, ago, hypervisor, vm
from tests.browser.visitor import HOME, SERVICE_IS_AWAY, Visitor, field
from tests.faults.scene import memdump
from tests.nodes import node
from tests.service import Service, running_service
from tests.thorough import thorough

pytestmark = pytest.mark.asyncio(loop_scope="session")

SISTERS = '[{"name": "Backups", "url": "https://backups.example.org/"}, {"name": "<b>Wiki</b>", "url": "/wiki"}]'
BACKGROUND = "() => getComputedStyle(document.body).backgroundColor"
LIGHT, DARK = "rgb(241, 243, 243)", "rgb(17, 21, 23)"

SLIDES_SEEN = """() => {
  window.places = [];  // of the first toast, frame by frame
  window.ways = [];  // in which one leaves
  const note = () => {
    const toast = document.querySelector(".toast");
    if (toast) places.push(toast.getBoundingClientRect().left);
    requestAnimationFrame(note);
  };
  note();
  addEventListener("transitionrun", ({target, propertyName}) => {
    if (target.matches(".toast") && propertyName === "translate") ways.push(propertyName);
  });
}"""
A_QUESTION = """
document.body.append(Object.assign(document.createElement("dialog"), {id: "asks", className: "dialog", textContent: "Well?"}))
"""
OPENS_BELOW_THE_TOASTS = """
async () => {
  document.getElementById("asks").showModal();
  await null;  // and no longer: later they come up by themselves, when the next one comes or goes
  return document.querySelector("#asks #toasts:popover-open") !== null;
}
"""
FLOOD = """
async ([kind, count, event]) => {
  const {notify} = await import(document.querySelector("link[href$='/views/notify.js']").href);
  for (let one = 1; one <= count; one++) notify(kind, `Sentence ${one}.`, event ? {event, name: `vm-${one}`} : {});
}
"""


@pytest.fixture(scope="module")
def framed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service for this module, over libvirt's test driver, with two sister pages."""
    folder = tmp_path_factory.mktemp("framed")
    uri = node(folder / "node.xml", (ALPHA, BETA, GONE))
    with running_service(folder, LIBVIRT_URI=uri, MEMDUMP_NAV=SISTERS, MEMDUMP_COMPRESSION="none") as started:
        yield started


@thorough
async def test_the_bar_is_the_same_on_every_page_and_marks_where_one_is(framed: Service, window: OpenWindow) -> None:
    visitor = await window(framed)
    visitor.expect_trouble("status of 404")
    bar = visitor.page.get_by_role("navigation", name="Pages", exact=True)
    for path, here in (
        (HOME, "Memory dumps"),
        ("/api/docs", "API"),
        ("/audit", "Audit"),
        ("/tokens", "Tokens"),
        ("/accounts", "Accounts"),
        ("/nothing", None),
    ):
        await visitor.go(path)
        texts = await bar.get_by_role("link").all_inner_texts()
        assert [text.strip() for text in texts] == [
            "Memory dumps",
            "API",
            "Audit",
            "Tokens",
            "Accounts",
            "Activity",
            "Backups",
            "<b>Wiki</b>",
        ], path
        current = bar.locator("[aria-current=page]")
        await expect(current).to_have_text([here] if here else [])
        await expect(visitor.page.locator("#hypervisor")).to_have_text(re.compile("^libvirt .+ connected$"))
        await expect(visitor.page.locator("#history")).to_have_text("history off")
        await visitor.live()
    await expect(bar.get_by_role("link", name="Backups")).to_have_attribute("href", "https://backups.example.org/")
    await visitor.go(HOME)
    await visitor.live()
    await visitor.page.mouse.wheel(0, 5000)
    await expect(visitor.page.locator(".navbar")).to_be_in_viewport(ratio=1)


@thorough
async def test_the_bar_of_a_page_that_is_not_live_is_and_leads_to_what_happened(framed: Service, window: OpenWindow) -> None:
    visitor, feed = await window(framed), Feed()
    page, health = visitor.page, visitor.page.locator("#health")
    await feed.take(page)
    await visitor.go("/tokens")
    await visitor.live()
    await page.locator("#signs").click()
    await expect(health).to_contain_text("test:///")
    await expect(health).to_contain_text("The bar is live. What stands below it is of the moment when the page was loaded.")
    feed.say("hypervisor", hypervisor(Link.UNREACHABLE, "It is away."))
    await expect(page.locator("#hypervisor")).to_have_text("libvirt kvm-07 unreachable")
    await expect(health).to_contain_text("It is away.")
    visitor.expect_trouble(SERVICE_IS_AWAY)
    feed.refusing = True
    await feed.hang_up()
    await expect(page.locator("#connection")).to_have_attribute("data-connection", "reconnecting")
    feed.refusing = False
    await visitor.live()
    await page.keyboard.press("Escape")
    await page.get_by_role("link", name="Activity").click()
    await page.wait_for_url(f"**{HOME}#activity")
    await expect(page.locator("#activity-heading")).to_be_in_viewport()


async def test_who_is_not_logged_in_is_told_nothing_by_the_bar(framed: Service, window: OpenWindow) -> None:
    visitor = await window(framed, log_in=False)
    for path in ("/login", "/login?code=never-made"):
        await visitor.go(path)
        await expect(visitor.page.locator(".product")).to_be_visible()
        await expect(visitor.page.locator("#signs, #health, #activity-link")).to_have_count(0)


async def test_the_signs_say_in_words_how_everything_is_connected(framed: Service, window: OpenWindow) -> None:
    visitor = await window(framed)
    await visitor.live()
    signs, health = visitor.page.locator("#signs"), visitor.page.locator("#health")
    await expect(signs).to_contain_text("live")
    await expect(visitor.page.locator("#hypervisor")).to_contain_text("connected")
    await expect(visitor.page.locator("#history")).to_have_text("history off")
    await signs.focus()
    await visitor.page.keyboard.press("Enter")
    await expect(health).to_be_visible()
    await expect(health).to_contain_text("every change appears by itself")
    await expect(health).to_contain_text("test:///")
    await visitor.page.keyboard.press("Escape")
    await expect(health).not_to_be_visible()
    await expect(signs).to_be_focused()


async def test_on_a_phone_the_bar_folds_into_a_menu_that_needs_no_script(framed: Service, window: OpenWindow) -> None:
    for scripts in (True, False):
        visitor = await window(framed, width=360, scripts=scripts)
        menu, opener = visitor.page.locator("#menu"), visitor.page.get_by_role("button", name="Menu")
        await expect(menu).not_to_be_visible()
        await opener.click()
        await expect(menu.get_by_role("link", name="Backups")).to_be_visible()
        await visitor.page.keyboard.press("Escape")
        await expect(menu).not_to_be_visible()
        await expect(opener).to_be_focused()
        await opener.click()
        await visitor.page.mouse.click(10, 700)
        await expect(menu).not_to_be_visible()
        assert await visitor.width_of_overflow() == 0
        await opener.click()
        await menu.get_by_role(
            "link", name="Activity"
        ).click()  # a place on the same page, and the last visit's end without scripts
        if scripts:
            await expect(menu).not_to_be_visible()
            await assert_large_enough_for_fingers(visitor)
        await visitor.page.wait_for_url("**#activity")


async def assert_large_enough_for_fingers(visitor: Visitor) -> None:
    for part in (visitor.page.locator("#signs"), visitor.page.get_by_role("button", name="Menu"), visitor.page.locator(".product")):
        box = await part.bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) >= 44


@thorough
async def test_the_theme_is_chosen_kept_and_followed_by_another_tab(framed: Service, window: OpenWindow) -> None:
    visitor = await window(framed)
    page = visitor.page
    other = await visitor.context.new_page()
    await other.goto(framed.url + HOME)
    await page.emulate_media(color_scheme="dark")
    assert await page.evaluate(BACKGROUND) == DARK
    await page.get_by_label("Theme").select_option("Light")
    assert await page.evaluate(BACKGROUND) == LIGHT
    await page.reload()
    await expect(page.get_by_label("Theme")).to_have_value("light")
    assert await page.evaluate(BACKGROUND) == LIGHT
    await page.get_by_label("Theme").select_option("Dark")
    await other.wait_for_function("document.documentElement.dataset.theme === 'dark'")
    assert await other.evaluate(BACKGROUND) == DARK
    await page.get_by_label("Theme").select_option("System")
    await page.emulate_media(color_scheme="light")
    assert await page.evaluate(BACKGROUND) == LIGHT


async def test_the_figures_and_the_activity_follow_a_dump_that_is_made_elsewhere(framed: Service, window: OpenWindow) -> None:
    visitor = await window(framed)
    page, stats, badge = visitor.page, visitor.page.locator("#stats"), visitor.page.locator("#activity-badge")
    await visitor.live()
    await page.set_viewport_size({"width": 1280, "height": 320})  # the activity is out of sight
    await expect(page.locator("#activity-heading")).not_to_be_in_viewport()
    await expect(field(stats, "vms")).to_have_text("3")
    await expect(field(stats, "free")).to_contain_text("iB")
    lines = await visitor.activity.count()
    before = int(await field(stats, "dumps").inner_text())
    assert memdump(framed.environment, ALPHA.name).returncode == 0
    await expect(field(stats, "dumps")).to_have_text(str(before + 1))
    await expect(field(stats, "last")).to_have_text("just now")
    await expect(field(stats, "last").locator("time")).to_have_attribute("title", re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"))
    await expect(visitor.activity).to_have_count(lines + 1)
    await expect(badge).to_have_text("1")
    await page.set_viewport_size({"width": 900, "height": 320})
    await expect(page.get_by_role("button", name="Menu, 1 new")).to_have_text("Menu 1")  # the entry is in it
    await page.set_viewport_size({"width": 1280, "height": 320})
    newest = await visitor.activity.first.inner_text()

    await page.reload()
    await visitor.live()
    await expect(visitor.activity.first).to_have_text(newest, use_inner_text=True)
    await expect(badge).to_be_visible()
    await page.locator("#activity-link").click()
    await expect(visitor.activity.first).to_be_in_viewport()
    await expect(badge).not_to_be_visible()
    await page.reload()
    await visitor.live()
    await expect(badge).not_to_be_visible()


@thorough
async def test_a_browser_whose_clock_is_wrong_still_says_how_long_ago(framed: Service, window: OpenWindow) -> None:
    assert memdump(framed.environment, BETA.name).returncode == 0
    visitor = await window(framed)
    await visitor.context.add_init_script("{ const now = Date.now.bind(Date); Date.now = () => now() - 30 * 86400e3; }")
    await visitor.page.reload()
    await visitor.live()
    await expect(field(visitor.page.locator("#stats"), "last")).to_have_text("just now")


async def test_toasts_are_said_stacked_held_and_closed(framed: Service, window: OpenWindow) -> None:
    visitor = await window(framed)
    page, toasts = visitor.page, visitor.page.locator(".toast")
    await visitor.live()
    await page.clock.install()
    await page.evaluate(FLOOD, ["error", 7, None])
    await expect(toasts).to_have_count(5)
    await expect(page.locator(".toast-more")).to_have_text("and 2 more")
    await page.clock.run_for(100)
    await expect(page.locator("#announcements")).to_contain_text("Sentence 7.")

    await toasts.first.hover()
    await page.clock.run_for(20_000)
    await expect(toasts).to_have_count(5)  # while one reads
    await page.mouse.move(5, 600)
    await page.clock.run_for(9_000)
    await expect(toasts).to_have_count(2)  # those that waited
    await page.clock.run_for(9_000)
    await expect(toasts).to_have_count(0)

    await page.evaluate(FLOOD, ["success", 1, None])
    await expect(toasts).to_have_count(1)
    await page.locator("#signs").focus()
    await toasts.get_by_role("button", name="Close this message").focus()
    await page.clock.run_for(9_000)
    await expect(toasts).to_have_count(1)
    await page.keyboard.press("Enter")
    await page.clock.run_for(500)
    await expect(toasts).to_have_count(0)
    await expect(page.locator("#signs")).to_be_focused()

    await page.evaluate(FLOOD, ["error", 3, "failed"])
    await expect(toasts).to_have_count(1)
    await expect(toasts).to_contain_text("3 dumps failed")
    await expect(toasts).to_contain_text("vm-2")


@thorough
async def test_a_toast_slides_in_and_out(framed: Service, window: OpenWindow) -> None:
    visitor = await window(framed)
    page, toasts = visitor.page, visitor.page.locator(".toast")
    await visitor.live()
    await page.evaluate(SLIDES_SEEN)
    await page.evaluate(FLOOD, ["success", 1, None])
    await expect(toasts).to_have_count(1)
    await toasts.get_by_role("button").click()
    await expect(toasts).to_have_count(0)
    assert await page.evaluate("[places[0] > Math.min(...places), ways]") == [True, ["translate"]]


@thorough
async def test_a_toast_is_seen_and_closed_above_an_open_question(framed: Service, window: OpenWindow) -> None:
    visitor = await window(framed)
    page, toast = visitor.page, visitor.page.locator(".toast")
    await visitor.live()
    await page.evaluate(A_QUESTION)
    await page.evaluate("document.getElementById('asks').showModal()")
    await page.evaluate(FLOOD, ["error", 2, None])
    await expect(toast).to_have_count(2)  # the second pushes the first aside when it comes
    await toast.first.get_by_role("button").click()
    await expect(toast).to_have_count(1)
    await page.keyboard.press("Escape")
    await expect(page.locator("#asks")).not_to_be_visible()
    await expect(toast).to_be_visible()


@thorough
async def test_a_toast_is_seen_heard_and_closed_above_a_question_that_comes_after_it(framed: Service, window: OpenWindow) -> None:
    visitor = await window(framed)
    page, toast = visitor.page, visitor.page.locator(".toast")
    await visitor.live()
    await page.evaluate(A_QUESTION)
    await page.evaluate(FLOOD, ["error", 2, None])
    await expect(toast).to_have_count(2)
    height = await toast.first.evaluate("(toast) => toast.offsetHeight")
    assert await page.evaluate(OPENS_BELOW_THE_TOASTS)
    await expect(page.locator("#asks #announcements")).to_have_count(1)
    assert await toast.first.evaluate("(toast) => toast.offsetHeight") == height
    await toast.first.get_by_role("button").click()
    await expect(toast).to_have_count(1)
    await page.keyboard.press("Escape")
    await expect(page.locator("#asks")).not_to_be_visible()
    await expect(toast).to_be_visible()
    await expect(page.locator("body > #messages")).to_have_count(1)


async def test_what_is_wrong_is_said_at_the_foot_of_the_window_and_moves_nothing(framed: Service, window: OpenWindow) -> None:
    visitor = await window(framed)
    page, feed, stats = visitor.page, Feed(), visitor.page.locator("#stats")
    await feed.take(page)
    await page.reload()
    await feed.opened()
    await visitor.live()
    before = await stats.bounding_box()
    feed.say("room", Room(dump_dir="/var/dumps", free_bytes=3 * GIB, total_bytes=400 * GIB, message=None))
    notices = page.locator("#notices")
    await expect(notices).to_contain_text("Less than a tenth of the room in /var/dumps is left: 3 GiB.")
    await expect(page.locator("#room")).to_have_attribute("data-room", "low")
    feed.say("room", Room(dump_dir="/var/dumps", free_bytes=None, total_bytes=None, message="/var/dumps is gone. Mount it."))
    await expect(field(stats, "free")).to_have_text("not known")
    await expect(notices).to_contain_text("/var/dumps is gone. Mount it.")
    away = Hypervisor(name="kvm-07", uri="qemu:///system", state=Link.UNREACHABLE, since=ago(5), message="Start libvirtd.")
    feed.say("hypervisor", away)
    await expect(page.locator("#hypervisor")).to_have_text("libvirt kvm-07 unreachable")
    await expect(notices).to_contain_text("Start libvirtd.")
    feed.say("vms", [vm(1, name=STRANGE_NAMES[0], alarm="stands still and could not be resumed. Resume it.")])
    await expect(notices.get_by_role("alert")).to_contain_text(f"{STRANGE_NAMES[0]} stands still")
    await expect(notices.locator(".notice:visible").first).to_contain_text("stands still")  # nothing is as urgent
    await expect(notices).to_be_in_viewport(ratio=1)
    await page.evaluate("scrollTo(0, 0)")
    assert await stats.bounding_box() == before


@thorough
async def test_the_page_says_so_when_its_scripts_are_stopped_on_their_way(framed: Service, window: OpenWindow) -> None:
    visitor = await window(framed)
    await visitor.live()
    await expect(visitor.page.locator(".script-notice")).not_to_be_visible()
    await visitor.context.route("**/main.js", lambda route: route.abort())
    visitor.expect_trouble("net::ERR_FAILED")
    await visitor.page.reload()
    await visitor.page.evaluate("document.getAnimations().forEach((one) => one.finish())")  # six seconds later
    await expect(visitor.page.locator(".script-notice")).to_be_visible()


@thorough
@pytest.mark.parametrize(("kind", "shown_ms"), [("success", 3000), ("info", 3000), ("warning", 3000), ("error", 8000)])
async def test_a_toast_stays_for_its_time(framed: Service, window: OpenWindow, kind: str, shown_ms: int) -> None:
    visitor = await window(framed)
    page, toasts = visitor.page, visitor.page.locator(".toast")
    await visitor.live()
    await page.clock.install()
    await page.evaluate(FLOOD, [kind, 1, None])
    await expect(toasts).to_have_count(1)
    await page.clock.run_for(shown_ms - 500)
    await expect(toasts).to_have_count(1)
    await page.clock.run_for(1000)
    await expect(toasts).to_have_count(0)


MOVES = """
async () => {
  const {glide} = await import(new URL("glide.js", document.querySelector("link[href$='/views/notify.js']").href));
  const heading = document.getElementById("records-heading");
  const motions = glide(() => [heading], () => heading.style.setProperty("margin-block-start", "40px"));
  const styled = getComputedStyle(document.querySelector(".toast"));
  return [motions.map((motion) => motion.effect.getTiming().duration), styled.animationDuration, styled.transitionDuration];
}
"""


@thorough
async def test_nothing_moves_for_who_wants_no_motion(framed: Service, window: OpenWindow) -> None:
    visitor = await window(framed)
    await visitor.page.emulate_media(reduced_motion="reduce")
    await visitor.live()
    await visitor.page.evaluate(FLOOD, ["info", 1, None])
    await expect(visitor.page.locator(".toast")).to_have_count(1)
    motions, animated, moved = await visitor.page.evaluate(MOVES)
    assert motions == [1]
    assert (animated, moved) == ("1e-05s", "0s")
