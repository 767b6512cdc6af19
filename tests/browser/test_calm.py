"""The page stays calm: nothing moves while ten dumps report, nothing piles up, and a visit costs little."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Page, Response, expect

from app.model import Phase, Stats
from tests.browser.conftest import ALPHA, BETA, GONE, OpenWindow
from tests.browser.feed import Feed, ago, job, line, progress, record, vm
from tests.browser.showcase import VMS, showcase
from tests.browser.visitor import HOME, Visitor
from tests.contract.speech import Api
from tests.faults.scene import memdump
from tests.nodes import node
from tests.service import Service, running_service
from tests.thorough import thorough

pytestmark = pytest.mark.asyncio(loop_scope="session")

MOST_BYTES = 150 * 1024
MOST_SHIFT = 0.02
ALIKE = 0.1
JOBS = range(1, 11)

SHIFTS_SEEN = """
window.shifts = [];
new PerformanceObserver((list) => {
  for (const one of list.getEntries()) {
    window.shifts.push([one.value, ...one.sources.map(({node}) => node?.outerHTML?.slice(0, 80) ?? node?.nodeName ?? "?")]);
  }
}).observe({type: "layout-shift", buffered: true});
"""
"""Shifts soon after a click do not count by themselves, and here they do: nobody clicks."""

TWO_FRAMES = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
FETCHED_AGAIN = """
() => performance.getEntriesByType("resource").filter(({name, transferSize}) => name.includes("/static/") && transferSize > 0)
  .map(({name}) => name)
"""
CHARTS = "uPlot"
MARKUP = "(rows) => rows.innerHTML"


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service for this module, over libvirt's test driver, with three VMs and two records."""
    folder = tmp_path_factory.mktemp("quiet")
    uri = node(folder / "node.xml", (ALPHA, BETA, GONE))
    with running_service(folder, LIBVIRT_URI=uri, MEMDUMP_COMPRESSION="none") as started:
        for name in (ALPHA.name, BETA.name):
            assert memdump(started.environment, name).returncode == 0
        asyncio.run(knows(started, 2))
        yield started


async def knows(service: Service, dumps: int) -> None:
    """Wait until it has told of so many: of what another process recorded it hears within a second."""
    async with Api.of(service) as api, api.feed("topics=stats") as feed:
        while (await feed.next())["stats"]["total_dumps"] < dumps:
            pass


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that has been used: ten VMs, most of them dumped some times, and a full first page of records."""
    with showcase(tmp_path_factory.mktemp("full"), records=60) as started:
        asyncio.run(dump_all(started))
        yield started


async def dump_all(service: Service) -> None:
    async with Api.of(service) as api:
        await api.connected()
        for _ in range(3):
            await api.dump(all=True)


async def test_nothing_moves_while_ten_dumps_begin_report_and_end(quiet: Service, window: OpenWindow) -> None:
    visitor, feed = await window(quiet), Feed()
    await visitor.context.add_init_script(SHIFTS_SEEN)
    await feed.take(visitor.page)
    for width in (1280, 360):
        await visitor.page.set_viewport_size({"width": width, "height": 900})
        await visitor.go()
        await feed.opened()
        feed.say("vms", [vm(number) for number in JOBS])
        await visitor.page.evaluate(TWO_FRAMES)
        await visitor.page.evaluate("window.shifts.length = 0")  # that there are other VMs at all is none of the page's doing
        await ten_dumps(visitor, feed)
        shifts: list[list[Any]] = await visitor.page.evaluate("window.shifts")
        assert sum(shift[0] for shift in shifts) <= MOST_SHIFT, (width, sorted(shifts, reverse=True)[:5])


async def ten_dumps(visitor: Visitor, feed: Feed) -> None:
    """From the request to the record, a frame between what is told."""
    for number in JOBS:
        feed.say("job", job(number, Phase.QUEUED))
    for phase in (Phase.PREPARING, Phase.CAPTURING):
        for number in JOBS:
            feed.say("job", job(number, phase))
        await visitor.page.evaluate(TWO_FRAMES)
    for step in range(20):
        for number in JOBS:
            feed.send(progress(number, step / 19, guest_paused=step == 18, iteration=1 + step // 15))
        await visitor.page.evaluate(TWO_FRAMES)
    for number in JOBS:
        feed.say("job", job(number, Phase.COMPLETED if number % 3 else Phase.FAILED))
        feed.say("activity", line(number))
        feed.say("record", record(number))
        await visitor.page.evaluate(TWO_FRAMES)


@thorough
async def test_what_a_night_of_dumps_leaves_on_the_page_is_no_more_than_the_first_hour_did(
    quiet: Service, window: OpenWindow
) -> None:
    visitor, feed = await window(quiet), Feed()
    await feed.take(visitor.page)
    await visitor.go()
    await feed.opened()
    counter = await visitor.context.new_cdp_session(visitor.page)

    async def nodes_after(dumps: range) -> int:
        for count in dumps:
            await one_dump(feed, count)
        await expect(visitor.records.first).to_have_attribute("data-dump-id", dump_id(dumps[-1]))  # all has come
        await expect(visitor.records).to_have_count(50)
        await expect(visitor.page.locator("#jobs-list > *, .toast")).to_have_count(0)  # and what passes has gone
        await counter.send("HeapProfiler.collectGarbage")
        found: int = (await counter.send("Memory.getDOMCounters"))["nodes"]
        return found

    early = await nodes_after(range(50))  # as many as fill the table's page
    late = await nodes_after(range(50, 200))
    assert abs(late - early) <= ALIKE * early, (early, late)


async def one_dump(feed: Feed, count: int) -> None:
    number = 1 + count % len(JOBS)
    name = {"job_id": f"job-{count}"}
    feed.say("job", job(number, Phase.CAPTURING, **name))
    for step in range(3):
        feed.send(progress(number, step / 3, **name))
    feed.say("job", job(number, Phase.COMPLETED, **name))
    feed.say("record", record(number, dump_id=dump_id(count), timestamp=ago(0)))  # the newest of all
    feed.say("activity", line(count))
    feed.say("stats", Stats(total_dumps=count, total_vms=10, total_size_bytes=count << 30, avg_duration_sec=2.0, last_dump=ago(0)))
    await asyncio.sleep(0)


def dump_id(count: int) -> str:
    return f"0199bbbb-0000-7000-8000-{count:012d}"


async def test_a_first_visit_is_small_flat_and_asks_for_nothing_twice(quiet: Service, browser: Browser, window: OpenWindow) -> None:
    visitor = await window(quiet)  # has what is needed to be logged in
    async with first_visit(visitor, browser) as (page, answers):
        sizes = await sizes_of(answers)
        assert sum(sizes.values()) <= MOST_BYTES, sorted(sizes.items(), key=lambda item: -item[1])
        assert not [path for path in sizes if CHARTS in path]

        document = await answers[0].text()
        deeper = [path for path in sizes if path.startswith("/static/") and path not in document]
        assert deeper == [], "the page itself names all that it needs"
        for answer in answers:
            if "/static/" in answer.url:
                assert "immutable" in (answer.headers.get("cache-control") or ""), answer.url
        assert {urlsplit(answer.url).netloc for answer in answers} == {urlsplit(quiet.url).netloc}

        await page.goto(quiet.url + HOME)
        await expect(page.locator("#connection")).to_have_attribute("data-connection", "live")
        assert await page.evaluate(FETCHED_AGAIN) == []


@thorough
async def test_a_first_visit_is_small_where_there_is_much_to_show(full: Service, browser: Browser, window: OpenWindow) -> None:
    visitor = await window(full)
    async with first_visit(visitor, browser) as (page, answers):
        await expect(page.locator("#records-rows > tr")).to_have_count(50)
        await expect(page.locator("#vms-list > li")).to_have_count(len(VMS))
        await expect(page.locator("#activity-list > li")).to_have_count(20)
        sizes = await sizes_of(answers)
        assert sum(sizes.values()) <= MOST_BYTES, sorted(sizes.items(), key=lambda item: -item[1])


@thorough
async def test_what_the_script_read_from_the_rows_is_what_the_service_knows(full: Service, window: OpenWindow) -> None:
    visitor, stranger = await window(full), await window(full)
    rows, news = visitor.page.locator("#records-rows"), stranger.page.locator("#records-rows")
    await visitor.live()
    written = await rows.evaluate(MARKUP)
    await visitor.page.get_by_label("Show compressed size").check()
    await stranger.go(f"{HOME}?sizes=stored&q=-")  # all of them, asked for at the API
    await expect(stranger.page.locator("#filters-reset")).to_have_attribute("href", f"{HOME}?sizes=stored")
    await stranger.page.locator("#filters-reset").click()
    await expect(news.locator("tr")).to_have_count(50)
    assert await rows.inner_text() == await news.inner_text()
    await visitor.page.get_by_label("Show compressed size").uncheck()
    assert await rows.evaluate(MARKUP) == written


@contextlib.asynccontextmanager
async def first_visit(visitor: Visitor, browser: Browser) -> AsyncIterator[tuple[Page, list[Response]]]:
    """The page, live, in a browser that has nothing of it but the login of ``visitor``; and every answer."""
    answers: list[Response] = []
    context = await browser.new_context(storage_state=await visitor.context.storage_state())
    try:
        page = await context.new_page()
        page.on("response", lambda answer: answers.append(answer))  # noqa: PLW0108 - Playwright cannot take a built-in
        await page.goto(visitor.service.url + HOME)
        await expect(page.locator("#connection")).to_have_attribute("data-connection", "live")
        yield page, answers
    finally:
        await context.close()


async def sizes_of(answers: list[Response]) -> dict[str, int]:
    """How many bytes came from each path."""
    return {urlsplit(answer.url).path: len(await answer.body()) for answer in answers}


async def test_the_page_can_be_used_before_its_scripts_have_come(quiet: Service, window: OpenWindow) -> None:
    visitor = await window(quiet)
    held = asyncio.Event()
    await visitor.page.route("**/main.js", lambda route: hold(route, held))
    await visitor.page.goto(quiet.url + HOME, wait_until="commit")
    await expect(visitor.records).to_have_count(2)
    await visitor.page.get_by_role("link", name="API", exact=True).focus()
    held.set()
    await visitor.live()


async def hold(route: Any, until: asyncio.Event) -> None:
    await until.wait()
    await route.continue_()
