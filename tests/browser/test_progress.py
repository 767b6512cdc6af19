"""Running dumps as the page shows them, whatever is told of them: the way, the pass, what is left, how long the guest stands
still; those that wait; how they end."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.async_api import Locator, expect

from app.model import Phase
from app.web.answers import Job
from tests.browser.conftest import ALPHA, BETA, OpenWindow
from tests.browser.feed import GIB, STRANGE_NAMES, Feed, job, progress, record, vm
from tests.browser.visitor import HOME, Visitor, field
from tests.nodes import node
from tests.service import Service, running_service
from tests.thorough import once, thorough

pytestmark = pytest.mark.asyncio(loop_scope="session")

MOST_SHIFT = 0.02
SHOWN_MS = 9000
"""A result has left by then."""

CUT = "(texts) => texts.filter((text) => text.scrollWidth > text.clientWidth).map((text) => text.textContent)"
GOES_ON = "(text) => document.querySelector('#jobs-list [data-field=%s]').textContent !== text"
TIME = re.compile(r"\d+ m?s")
TWO_FRAMES = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
NO_TOASTS = "document.getElementById('toasts').style.setProperty('display', 'none', 'important')"
SHIFTS_OF_CARDS = """
window.shifts = [];
new PerformanceObserver((list) => {
  for (const one of list.getEntries()) if (one.sources.some(({node}) => node?.closest?.("#jobs"))) window.shifts.push(one.value);
}).observe({type: "layout-shift", buffered: true});
"""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that these tests let pages come from; what happens on them comes from a feed that the tests write."""
    folder = tmp_path_factory.mktemp("stage")
    with running_service(folder, LIBVIRT_URI=node(folder / "node.xml", (ALPHA, BETA))) as started:
        yield started


async def watched(service: Service, window: OpenWindow, *, width: int = 1280, clock: bool = False) -> tuple[Visitor, Feed]:
    """A page, and what it hears. With ``clock`` its time can be turned on."""
    visitor, feed = await window(service, width=width), Feed()
    await visitor.context.add_init_script(SHIFTS_OF_CARDS)
    await feed.take(visitor.page)
    if clock:
        await visitor.page.clock.install()
    await visitor.go(HOME)
    await feed.opened()
    await visitor.live()
    feed.say("vms", [vm(number) for number in range(1, 11)])
    return visitor, feed


def results(visitor: Visitor) -> Locator:
    return visitor.page.locator("#jobs-list > .result")


async def height_of(part: Locator) -> float:
    box = await part.bounding_box()
    assert box
    return box["height"]


async def test_a_running_dump_shows_its_way_its_pass_and_what_is_left(stage: Service, window: OpenWindow) -> None:
    visitor, feed = await watched(stage, window)
    card, bar = visitor.running, visitor.running.locator("progress")
    feed.say("job", job(1, Phase.PREPARING))
    await expect(field(card, "mode")).to_have_text("auto")
    await expect(field(card, "asked")).to_contain_text("by admin")
    await expect(field(card, "asked")).to_contain_text("C-2026-17 · suspicious traffic")

    feed.send(progress(1, 0.25, eta_sec=1.5))
    await expect(card.locator("[aria-current=step]")).to_have_text("capturing")
    await expect(field(card, "mode")).to_have_text("live")
    await expect(field(card, "far")).to_have_text("25 %")
    await expect(field(card, "bytes")).to_have_text("512 MiB of 2 GiB")
    await expect(field(card, "left")).to_have_text("Remaining")
    await expect(field(card, "remaining")).to_have_text("2 s")
    await expect(field(card, "rate")).to_contain_text("MiB/s")
    await expect(field(card, "curve")).to_have_attribute("points", "59,1.0")
    await expect(field(card, "guest")).to_have_text("guest runs")
    await expect(bar).to_have_attribute("value", "25")

    feed.send(progress(1, 0.25, iteration=2))
    await expect(field(card, "far")).to_have_text("pass 2")
    await expect(field(card, "left")).to_have_text("Left in pass")
    await expect(bar).not_to_have_attribute("value", "25")

    warning = "vm-web-01 rewrites its memory faster than it can be read. So it was captured the paused way."
    feed.say("job", job(1, warnings=(warning,)))
    feed.send(progress(1, 0.25, iteration=0, mode="paused", guest_paused=True))
    await expect(field(card, "mode")).to_have_text("paused")
    await expect(field(card, "guest")).to_have_text("guest stands still")
    await expect(field(card, "far")).to_have_text("25 %")
    await expect(field(card, "warnings")).to_have_text(warning)


async def test_how_many_guests_stand_still_is_said_where_not_every_card_is_in_sight(stage: Service, window: OpenWindow) -> None:
    visitor, feed = await watched(stage, window)
    count = visitor.page.locator("#jobs-count")
    for number in range(1, 5):
        feed.say("job", job(number))
    await expect(count).to_have_text("4 running")
    feed.send(progress(4, 0.25, mode="paused", guest_paused=True))
    await expect(count).to_have_text("standing still: 1 of 4")
    feed.send(progress(3, 0.25, mode="paused", guest_paused=True))
    await expect(count).to_have_text("standing still: 2 of 4")
    for number in range(2, 5):
        feed.say("job", job(number, Phase.COMPLETED))
    await expect(count).to_have_text("")


async def test_how_long_a_guest_stands_still_goes_on_while_nothing_is_told(stage: Service, window: OpenWindow) -> None:
    visitor, feed = await watched(stage, window)
    card = visitor.running
    feed.say("job", job(1, Phase.PREPARING))
    await expect(field(card, "stood")).to_have_text("0 ms")
    await expect(field(card, "still")).to_be_empty()
    feed.send(progress(1, 0.1, guest_paused=True))
    await expect(field(card, "guest")).to_have_text("guest stands still")
    await expect(field(card, "still")).not_to_be_empty()
    for name in ("still", "stood"):
        await visitor.until(GOES_ON % name, await field(card, name).inner_text())

    feed.send(progress(1, 0.2))
    await expect(field(card, "guest")).to_have_text("guest runs")
    await expect(field(card, "still")).to_be_empty()
    await expect(field(card, "stood")).to_have_text(TIME)


@thorough
@pytest.mark.parametrize("width", [1280, 390, 360])
async def test_the_longest_figures_have_room_and_move_nothing(stage: Service, window: OpenWindow, width: int) -> None:
    visitor, feed = await watched(stage, window, width=width)
    feed.say("job", job(1))
    feed.send(progress(1, 0.25))
    await expect(field(visitor.running, "far")).to_have_text("25 %")
    before = await visitor.running.bounding_box()
    total: dict[str, Any] = {
        "bytes_done": 1000 * GIB,
        "bytes_total": 1023 * GIB,
        "rate_bytes_per_sec": 0.977 * GIB,
        "eta_sec": 3541.0,
    }
    feed.send(progress(1, 0.25, **total, iteration=128, mode="paused", guest_paused=True))
    await expect(field(visitor.running, "far")).to_have_text("pass 128")
    assert await visitor.running.bounding_box() == before
    assert await visitor.running.locator("dt, dd").evaluate_all(CUT) == []

    for number, name in enumerate(STRANGE_NAMES, 2):
        feed.say("job", job(number, dom=name))
        feed.say("job", job(number + 10, Phase.QUEUED, dom=name))
    feed.say("job", job(9, Phase.FAILED, dom=STRANGE_NAMES[-1]))
    await expect(visitor.running).to_have_count(5)
    await expect(field(visitor.running, "dom").nth(1)).to_have_text(STRANGE_NAMES[0])
    await expect(visitor.page.locator("#waiting-list > li")).to_have_count(4)
    assert await visitor.too_wide() == []
    assert await visitor.axe() == []


@thorough
async def test_what_waits_for_its_turn_is_a_short_line_that_can_be_cancelled(stage: Service, window: OpenWindow) -> None:
    visitor, feed = await watched(stage, window)
    waiting = visitor.page.locator("#waiting-list > li")
    for number in range(1, 61):
        feed.say("job", job(number, Phase.QUEUED))
    await expect(visitor.running).to_have_count(2)
    await expect(waiting).to_have_count(58)
    await expect(visitor.page.locator("#waiting-heading")).to_have_text("58 waiting")
    feed.say("job", job(1, Phase.CAPTURING))
    feed.say("job", job(2, Phase.FAILED))
    await expect(waiting).to_have_count(57)
    await expect(field(visitor.running, "dom").last).to_have_text(vm(3).name)

    await visitor.page.locator("#waiting-heading").click()
    async with visitor.page.expect_request("**/jobs/job-4/cancel"):
        await waiting.first.get_by_role("button", name=f"Cancel the dump of {vm(4).name}").click()
    visitor.expect_trouble("status of 404")  # the service itself knows none of these jobs
    await expect(field(waiting.first, "asked")).to_contain_text("There is no job")


@thorough
async def test_a_result_stays_for_a_while_and_as_long_as_it_is_looked_at(stage: Service, window: OpenWindow) -> None:
    visitor, feed = await watched(stage, window, clock=True)
    result = results(visitor)
    feed.say("job", job(1))
    feed.say("job", job(2))
    await expect(visitor.running).to_have_count(2)
    height = await height_of(visitor.running.first)
    done = record(1)
    feed.say("record", done)
    feed.say("job", job(1, Phase.COMPLETED, dump_id=done.dump_id))
    await expect(field(result, "result")).to_have_text("Sealed in 18.0 s; the guest stood still for 14 ms; 512 MiB of 2 GiB.")
    await expect(result.get_by_role("link")).to_have_attribute("href", f"/memory-dumps/{done.dump_id}")
    await expect(visitor.running).to_have_count(1)
    assert await height_of(result) == height

    await result.hover()
    await visitor.page.clock.run_for(SHOWN_MS)
    await expect(result).to_be_visible()
    await visitor.page.mouse.move(0, 0)
    await visitor.page.clock.run_for(SHOWN_MS)
    await expect(result).to_have_count(0)
    await expect(visitor.running).to_have_count(1)


@pytest.mark.parametrize("width", once([1280, 360], 1280))
async def test_a_result_is_as_high_as_the_card_that_it_follows(stage: Service, window: OpenWindow, width: int) -> None:
    visitor, feed = await watched(stage, window, width=width)
    warning = "vm-web-01 rewrites its memory faster than it can be read. So it was captured the paused way."
    feed.say("job", job(1, warnings=(warning,)))
    await expect(field(visitor.running, "warnings")).to_have_text(warning)
    height = await height_of(visitor.running)
    feed.say("job", job(1, Phase.COMPLETED, warnings=(warning,)))
    await expect(results(visitor)).to_have_count(1)
    assert await height_of(results(visitor)) == height


async def test_what_ended_badly_stays_until_it_is_put_away_and_says_what_to_do(stage: Service, window: OpenWindow) -> None:
    visitor, feed = await watched(stage, window)
    for number, phase in enumerate((Phase.FAILED, Phase.CANCELLED, Phase.INTERRUPTED), 1):
        feed.say("job", job(number))
        await expect(visitor.running).to_have_count(1)
        feed.say("job", job(number, phase))
        await expect(visitor.running).to_have_count(0)
    await expect(visitor.ended).to_have_count(3)
    await expect(visitor.running).to_have_count(0)
    assert await field(results(visitor), "phase").all_inner_texts() == ["failed", "cancelled", "interrupted"]
    failed = visitor.page.locator("#ended-list > [data-phase=failed]")
    await expect(field(failed, "code")).to_have_text("capture-failed")
    await expect(field(failed, "message")).to_contain_text("Try again.")

    await failed.get_by_role("button", name="Dismiss").press("Enter")
    await expect(visitor.ended).to_have_count(2)
    await expect(visitor.page.locator("#jobs-heading")).to_be_focused()
    await visitor.page.get_by_role("button", name="Dismiss all").click()
    await expect(visitor.ended).to_have_count(0)
    await expect(visitor.page.locator("#ended")).to_be_hidden()


async def test_no_card_moves_what_is_read_when_it_comes_advances_or_ends(stage: Service, window: OpenWindow) -> None:
    visitor, feed = await watched(stage, window)
    await visitor.page.evaluate(NO_TOASTS)

    async def tell(*jobs: Job) -> None:
        for one in jobs:
            feed.say("job", one)
        await visitor.page.evaluate(TWO_FRAMES)

    await tell(*(job(number, Phase.QUEUED) for number in range(1, 6)))
    await expect(visitor.page.locator("#waiting-list > li")).to_have_count(3)
    await visitor.page.evaluate("window.shifts.length = 0")  # the inventory came with them
    await tell(job(1), job(2))
    for number in (1, 2):
        feed.send(progress(number, 0.5, guest_paused=True, iteration=number))
    await expect(field(visitor.running, "far").last).to_have_text("pass 2")
    await tell(job(2, warnings=("vm-web-02 rewrites its memory faster than it can be read.",)))
    await tell(job(1, Phase.COMPLETED))
    await tell(job(3))
    await tell(job(2, Phase.FAILED))
    await tell(job(4))
    await expect(results(visitor)).to_have_count(2)
    await expect(visitor.ended).to_have_count(1)
    shifts: list[float] = await visitor.page.evaluate("window.shifts")
    assert sum(shifts) <= MOST_SHIFT, shifts
