"""The plots: drawn when they are opened, the same as tables, and fresh while they are open."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from playwright.async_api import Locator, expect

from app.config import Settings
from app.foundation import SCHEMAS
from app.model import Manifest
from app.records.index import RecordIndex
from app.state import State
from tests.browser.conftest import ALPHA, OpenWindow
from tests.browser.visitor import Visitor, field
from tests.faults.scene import memdump
from tests.histories import SEC_NS, manifest_at
from tests.nodes import node, numbered_uuid
from tests.service import Service, running_service, service_environment
from tests.thorough import thorough

pytestmark = pytest.mark.asyncio(loop_scope="session")

STATS = "**/api/memory-dumps/stats?*"
NAMES = ("web-01", "<i>db</i>", "\u202eright \U0001f98a", "n" * 200)
OLD_DAY = "2024-02-29"


def recorded() -> list[Manifest]:
    """Three dumps of each VM two days ago, and one long ago."""
    day = datetime.now(UTC).replace(hour=6, minute=0, second=0, microsecond=0) - timedelta(days=2)
    begin_ns, long_ago_ns = (int(moment.timestamp()) * SEC_NS for moment in (day, datetime.fromisoformat(f"{OLD_DAY}T12:00Z")))
    made = [
        replace(
            manifest_at(begin_ns + (number * len(NAMES) + place) * SEC_NS, dom=name, vmid=str(place)),
            uuid=numbered_uuid(10 + place),
            gzip_size_bytes=2**20,
            guest_pause_ms=100.0 * (place + 1) * number,
        )
        for place, name in enumerate(NAMES)
        for number in range(3)
    ]
    return [*made, manifest_at(long_ago_ns)]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that finds these records, and has a VM to dump."""
    folder = tmp_path_factory.mktemp("shelf")
    environment = {"LIBVIRT_URI": node(folder / "node.xml", (ALPHA,))}
    state = State.open(Settings.from_environment(service_environment(folder)).state_file, *SCHEMAS)
    try:
        asyncio.run(RecordIndex(state).add_many(recorded()))
    finally:
        state.close()
    with running_service(folder, **environment) as started:
        yield started


def plots(visitor: Visitor) -> Locator:
    return visitor.page.locator("#plots")


def row(visitor: Visitor, head: str) -> Locator:
    return plots(visitor).get_by_role("row").filter(has=visitor.page.get_by_role("rowheader", name=head, exact=True))


async def test_plots_are_loaded_when_they_are_opened_and_say_what_the_records_say(shelf: Service, window: OpenWindow) -> None:
    visitor = await window(shelf)
    asked: list[str] = []
    visitor.page.on("request", lambda request: asked.append(request.url))
    await visitor.page.reload()
    await visitor.live()
    assert not [url for url in asked if "plot" in url.lower() and not url.endswith(".css")], "nothing is loaded before"
    await plots(visitor).locator("summary").click()
    await expect(plots(visitor).locator("canvas")).to_have_count(2)
    await expect(visitor.page.locator("#plots-said")).to_contain_text(f"12 dumps of {len(NAMES)} VMs from ")

    # A screen reader has the tables from the beginning; whoever wants to can see them.
    day = (datetime.now(UTC) - timedelta(days=2)).date().isoformat()
    await expect(row(visitor, day)).to_have_text(f"{day}1212 MiB")
    await expect(plots(visitor).get_by_role("rowheader")).to_have_count(30 + len(NAMES))
    await expect(row(visitor, NAMES[1])).to_have_text(f"{NAMES[1]}33 MiB5.00 s200 ms400 ms")
    await expect(plots(visitor).locator('[data-plot="pause"] .bar-line').first).to_contain_text(NAMES[3])
    await visitor.page.get_by_role("switch", name="As tables").check()
    await expect(plots(visitor).locator("canvas").first).to_be_hidden()
    await expect(plots(visitor).get_by_role("table").first).to_be_in_viewport()
    await visitor.page.get_by_role("switch", name="As tables").uncheck()
    await visitor.page.emulate_media(media="print")
    await expect(plots(visitor).locator("canvas").first).to_be_hidden()
    for table in await plots(visitor).get_by_role("table").all():
        printed = await table.bounding_box()
        assert printed is not None
        assert printed["width"] > 400
    await visitor.page.emulate_media(media="screen")

    await visitor.page.get_by_label("Range").select_option("7 days")
    await expect(plots(visitor).get_by_role("rowheader")).to_have_count(7 + len(NAMES))
    await visitor.page.get_by_label("Range").select_option("From … to …")
    await visitor.page.get_by_label("From", exact=True).fill("2024-02-28")
    await visitor.page.get_by_label("To (inclusive)").fill("2024-03-01")
    await expect(row(visitor, OLD_DAY)).to_have_text(f"{OLD_DAY}1100 B")
    await expect(row(visitor, "2024-03-01")).to_have_text("2024-03-0100 B")
    await visitor.page.get_by_label("To (inclusive)").fill("2024-02-01")
    await expect(plots(visitor).get_by_role("alert")).to_contain_text("The last day is before the first one")


@thorough
async def test_plots_that_were_opened_before_the_script_came_are_drawn(shelf: Service, window: OpenWindow) -> None:
    visitor = await window(shelf)
    async with visitor.held_back("**/main.js"):
        await visitor.page.reload(wait_until="commit")
        await plots(visitor).locator("summary").click()
        await expect(plots(visitor)).to_have_js_property("open", True)
    await expect(plots(visitor).locator("canvas")).to_have_count(2)


@thorough
async def test_plots_that_do_not_come_say_so_and_those_that_came_follow_dumps_theme_and_width(
    shelf: Service, window: OpenWindow
) -> None:
    visitor = await window(shelf)
    visitor.expect_trouble("net::ERR_FAILED")
    await visitor.live()
    await visitor.page.route(STATS, lambda route: route.abort())
    await plots(visitor).locator("summary").click()
    await expect(plots(visitor).get_by_role("alert")).to_contain_text("The service cannot be reached")
    await visitor.page.unroute(STATS)
    await plots(visitor).get_by_role("button", name="Try again").click()
    await expect(plots(visitor).get_by_role("alert")).to_be_hidden()

    canvas = plots(visitor).locator("canvas").first
    await expect(canvas).to_be_visible()
    light = await canvas.evaluate("(canvas) => canvas.toDataURL()")
    await visitor.page.locator("#theme").select_option("dark")
    await visitor.until("(light) => document.querySelector('#plots canvas').toDataURL() !== light", light)
    await visitor.page.set_viewport_size({"width": 360, "height": 900})
    await visitor.until("(most) => document.querySelector('#plots canvas').clientWidth < most", "330")
    assert await visitor.width_of_overflow() == 0
    dumps = plots(visitor).locator("[data-plot=dumps]")
    await dumps.locator(".u-over").hover()
    says = await field(dumps, "says").inner_text()
    assert says.endswith(": 0")
    assert memdump(shelf.environment, ALPHA.name).returncode == 0
    await expect(visitor.page.locator("#plots-said")).to_contain_text(f"13 dumps of {len(NAMES) + 1} VMs")
    await expect(field(dumps, "says")).to_have_text(says)  # of what lies under the pointer


async def test_without_javascript_the_figures_are_a_link_away(shelf: Service, window: OpenWindow) -> None:
    visitor = await window(shelf, scripts=False)
    await plots(visitor).locator("summary").click()
    links = plots(visitor).locator("noscript a")
    await expect(links).to_have_text(["by day", "by VM", "all records as CSV"])
    answer = await visitor.context.request.get(f"{shelf.url}{await links.first.get_attribute('href')}")
    assert OLD_DAY in await answer.text()


@thorough
async def test_a_table_has_five_hundred_days_at_most_and_is_written_anew_only_where_its_figures_changed(
    shelf: Service, window: OpenWindow
) -> None:
    visitor = await window(shelf)
    await visitor.live()
    await plots(visitor).locator("summary").click()
    await visitor.page.get_by_label("Range").select_option("From … to …")
    await visitor.page.get_by_label("To (inclusive)").fill("2024-03-01")
    await visitor.page.get_by_label("From", exact=True).fill("1980-01-01")
    days = plots(visitor).get_by_role("table").first
    await expect(days.locator("caption")).to_contain_text("The last 500 days, UTC; 15632 before them")
    await expect(days.get_by_role("rowheader")).to_have_count(500)
    await expect(days.get_by_role("rowheader").first).to_have_text("2024-03-01")
    await expect(row(visitor, OLD_DAY)).to_have_text(f"{OLD_DAY}1100 B")

    await plots(visitor).locator("table, canvas").evaluate_all("(parts) => parts.forEach((part) => { part.dataset.old = '' })")
    assert memdump(shelf.environment, ALPHA.name).returncode == 0
    await expect(plots(visitor).locator("canvas[data-old]")).to_have_count(0)  # drawn anew
    await expect(plots(visitor).locator("table[data-old]")).to_have_count(2)  # nothing of it is in that range
