"""A running dump as the page shows it: the way, the pass, what is left; and that it follows a fallback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import WebSocketRoute, expect

from demo import PrivateLibvirt
from tests.browser.conftest import ALPHA, SHOP, OpenWindow
from tests.browser.visitor import HOME, Visitor, field
from tests.faults.scene import capture_process
from tests.service import Service, running_service

pytestmark = pytest.mark.asyncio(loop_scope="session")

JOB: dict[str, Any] = {
    "job_id": "j1", "trigger_id": "t1", "vm_id": "42", "dom": ALPHA.name, "uuid": ALPHA.uuid, "phase": "capturing", "mode": "auto",
    "compression": "gzip", "max_pause_ms": None, "reason": None, "case": None, "operator": "admin",
    "requested_at": "2026-11-23T10:30:00.000000Z", "started_at": "2026-11-23T10:30:00.000000Z", "finished_at": None,
    "progress": None, "error": None, "dump_id": None, "guest_pause_ms": None, "warnings": [],
}  # fmt: skip
PROGRESS: dict[str, Any] = {
    "type": "progress", "job_id": "j1", "phase": "capturing", "bytes_done": 256 << 20, "bytes_total": 1 << 30,
    "rate_bytes_per_sec": 512.0 * (1 << 20), "eta_sec": 1.5, "guest_paused": False, "iteration": 1, "mode": "live",
}  # fmt: skip


class Feed:
    """A page's live feed, into which the test says something of its own."""

    def __init__(self) -> None:
        self._route: WebSocketRoute | None = None

    async def take(self, visitor: Visitor) -> None:
        """From the next page on."""
        await visitor.page.route_web_socket("**/api/memory-dumps/ws**", self._begin)

    def say(self, message: dict[str, Any]) -> None:
        assert self._route is not None
        self._route.send(json.dumps(message))

    def _begin(self, route: WebSocketRoute) -> None:
        route.connect_to_server()
        self._route = route


async def test_a_running_dump_shows_its_way_its_pass_and_what_is_left(small_service: Service, window: OpenWindow) -> None:
    visitor, feed = await window(small_service), Feed()
    await feed.take(visitor)
    await visitor.go(HOME)
    await visitor.live()
    card, bar = visitor.running, visitor.running.locator("progress")
    feed.say({"type": "job", "job": JOB})
    await expect(field(card, "mode")).to_have_text("auto")

    feed.say(PROGRESS)
    await expect(field(card, "mode")).to_have_text("live")
    await expect(field(card, "far")).to_have_text("25 %")
    await expect(field(card, "bytes")).to_have_text("256 MiB of 1 GiB")
    await expect(field(card, "left")).to_have_text("Remaining")
    await expect(bar).to_have_attribute("value", "25")

    feed.say({**PROGRESS, "iteration": 2})
    await expect(field(card, "far")).to_have_text("pass 2")
    await expect(field(card, "left")).to_have_text("Left in pass")
    await expect(bar).not_to_have_attribute("value", "25")
    await expect(field(visitor.vm(ALPHA.uuid), "job")).to_have_text("capturing pass 2")

    warning = f"{ALPHA.name} rewrites its memory faster than it can be read. So {ALPHA.name} was captured the paused way."
    feed.say({"type": "job", "job": {**JOB, "progress": {**PROGRESS, "iteration": 2}, "warnings": [warning]}})
    feed.say({**PROGRESS, "iteration": 0, "mode": "paused", "guest_paused": True})
    await expect(field(card, "mode")).to_have_text("paused")
    await expect(field(card, "guest")).to_have_text("guest stands still")
    await expect(field(card, "far")).to_have_text("25 %")
    await expect(field(card, "warnings")).to_have_text(warning)


@pytest.mark.parametrize("width", [1280, 390, 360])
async def test_the_longest_figures_have_room_and_move_nothing(small_service: Service, window: OpenWindow, width: int) -> None:
    visitor, feed = await window(small_service, width=width), Feed()
    await feed.take(visitor)
    await visitor.go(HOME)
    await visitor.live()
    feed.say({"type": "job", "job": JOB})
    feed.say(PROGRESS)
    await expect(field(visitor.running, "far")).to_have_text("25 %")
    before = await visitor.running.bounding_box()
    total = {"bytes_done": 1000 << 30, "bytes_total": 1023 << 30, "rate_bytes_per_sec": 0.977 * (1 << 30), "eta_sec": 3541.0}
    feed.say({**PROGRESS, **total, "iteration": 128, "mode": "paused", "guest_paused": True})
    await expect(field(visitor.running, "far")).to_have_text("pass 128")
    assert await visitor.running.bounding_box() == before
    assert await visitor.width_of_overflow() == 0
    cut = "(texts) => texts.filter((text) => text.scrollWidth > text.clientWidth).map((text) => text.textContent)"
    assert await visitor.running.locator("dt, dd").evaluate_all(cut) == []


async def test_a_live_dump_is_called_live_by_the_script_and_by_the_server(
    tmp_path: Path, rack: PrivateLibvirt, window: OpenWindow
) -> None:
    with running_service(tmp_path, LIBVIRT_URI=rack.uri) as service:
        visitor, reader = await window(service), await window(service, scripts=False)
        await visitor.live()
        await visitor.dump(SHOP)
        with capture_process(service, SHOP) as process:
            await visitor.until(
                "(way) => document.querySelector('#jobs-list [data-field=mode]')?.textContent === way",
                "live",
            )
            process.stop()
            await reader.go(HOME)
            await expect(field(reader.running, "mode")).to_have_text("live")
            await expect(field(reader.running, "guest")).to_have_text("guest runs")
        await expect(visitor.records.first).to_be_visible()
        await expect(field(visitor.records.first, "mode")).to_have_text("live")
        for one in (visitor, reader):
            await one.close()
