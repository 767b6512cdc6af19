"""The control panel: which VMs, how, and the buttons that start dumps."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.async_api import Locator, Route, expect

from app.model import Phase, Room
from tests.browser import feed
from tests.browser.conftest import ALPHA, BETA, GONE, OpenWindow
from tests.browser.feed import GIB, Feed
from tests.browser.visitor import Visitor, field
from tests.nodes import node
from tests.service import Service, running_service
from tests.thorough import thorough

pytestmark = pytest.mark.asyncio(loop_scope="session")

TRIGGER = "**/api/memory-dumps/trigger"
OPTIONS = "**/views/options.js"
A_FRAME = "() => new Promise((done) => requestAnimationFrame(done))"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that these tests let pages come from, and that dumps nothing."""
    folder = tmp_path_factory.mktemp("stage")
    with running_service(folder, LIBVIRT_URI=node(folder / "node.xml", (ALPHA, BETA, GONE))) as started:
        yield started


async def expect_shown(visitor: Visitor, names: list[str]) -> None:
    """These VMs and no others come to be seen in the list."""
    await expect(visitor.page.locator("#vms-list > li:not([hidden]) [data-field=name]")).to_have_text(names)


def part(visitor: Visitor, name: str) -> Locator:
    return visitor.page.locator(f"#{name}")


async def jobs(visitor: Visitor) -> list[Any]:
    """What the service was asked for so far."""
    answer = await visitor.context.request.get(f"{visitor.service.url}/api/memory-dumps/jobs")
    found: list[Any] = (await answer.json())["jobs"]
    return found


async def fed(service: Service, window: OpenWindow) -> tuple[Visitor, Feed]:
    """A page whose feed the test writes."""
    visitor, says = await window(service, log_in=False), Feed()
    await says.take(visitor.page)
    await visitor.log_in()
    await says.opened()
    return visitor, says


async def test_vms_are_searched_chosen_and_dumped_together(small_service: Service, window: OpenWindow) -> None:
    visitor = await window(small_service)
    await visitor.live()
    page, search, chosen = visitor.page, part(visitor, "vms-search"), part(visitor, "vms-chosen")
    await expect_shown(visitor, [ALPHA.name, BETA.name, GONE.name])
    await expect(field(visitor.vm(ALPHA.uuid), "memory")).to_have_text("64 MiB")
    await expect(field(visitor.vm(ALPHA.uuid), "state")).to_have_text("running")
    await expect(visitor.choice(GONE.uuid)).to_be_disabled()
    await expect(visitor.vm(GONE.uuid)).to_contain_text("nothing to dump")
    await expect(visitor.dump_button).to_be_disabled()
    await expect(visitor.dump_button).to_have_text("Dump selected VM")

    await search.fill("ALP")
    await expect_shown(visitor, [ALPHA.name])
    await page.get_by_role("button", name="Select all shown").click()
    await search.fill("nobody")
    await expect_shown(visitor, [])
    await expect(part(visitor, "vms-none")).to_contain_text("No VM matches “nobody”")
    await expect(chosen).to_have_text("1 selected (1 not shown), 64 MiB")
    await search.fill("")
    await visitor.choice(BETA.uuid).check()
    await expect(visitor.dump_button).to_have_text("Dump selected VM (2)")
    await expect(chosen).to_have_text("2 selected, 160 MiB")
    await page.get_by_role("button", name="Clear the selection").click()
    await expect(visitor.dump_button).to_be_disabled()

    await visitor.dump(ALPHA.uuid, BETA.uuid)
    await expect(visitor.records).to_have_count(2)
    assert len(list(small_service.dump_dir.glob("*.mem.gz"))) == 2
    await expect(visitor.choice(ALPHA.uuid)).not_to_be_checked()  # the next press would not dump them once more
    await expect(visitor.dump_button).to_be_disabled()


async def test_the_options_go_with_the_request_and_into_the_manifest(small_service: Service, window: OpenWindow) -> None:
    visitor = await window(small_service)
    page, door = visitor.page, part(visitor, "dump-options")
    await visitor.choice(ALPHA.uuid).check()
    await door.locator("summary").click()
    await expect(part(visitor, "dump-mode")).to_have_value("auto")
    await expect(part(visitor, "dump-mode-hint")).to_contain_text("Live where that is possible")
    await page.get_by_label("Mode").select_option("paused")
    await expect(part(visitor, "dump-mode-hint")).to_contain_text("stands still while its memory is read")
    await expect(page.get_by_label("Longest pause")).to_be_disabled()
    await page.get_by_label("Mode").select_option("auto")

    await page.get_by_label("Longest pause").fill("soon")
    await visitor.dump_button.click()
    error = part(visitor, "dump-max_pause_ms-error")
    await expect(error).to_contain_text("Give a whole number of milliseconds")
    await expect(page.get_by_label("Longest pause")).to_be_focused()
    await expect(page.get_by_label("Longest pause")).to_have_attribute("aria-invalid", "true")
    assert (await jobs(visitor)) == []

    await page.get_by_label("Longest pause").fill("250")
    await expect(error).not_to_be_visible()
    await page.get_by_label("Compression").select_option("zstd")
    await page.get_by_label("Reason").fill("suspicious traffic")
    await page.get_by_label("Case", exact=True).fill("C-17")
    await expect(field(door, "said")).to_have_text("auto, zstd, 250 ms, reason, case")
    async with page.expect_request(TRIGGER) as asked:
        await visitor.dump_button.click()
    assert json.loads((await asked.value).post_data or "") == {
        "vm_ids": [ALPHA.uuid], "mode": "auto", "compression": "zstd", "max_pause_ms": 250,
        "reason": "suspicious traffic", "case": "C-17",
    }  # fmt: skip
    await expect(visitor.records).to_have_count(1)
    assert len(list(small_service.dump_dir.glob("*.mem.zst"))) == 1


async def asked_of(visitor: Visitor) -> asyncio.Queue[Any]:
    """The bodies of the requests for dumps, which start none."""
    asked: asyncio.Queue[Any] = asyncio.Queue()

    async def accept(route: Route) -> None:
        asked.put_nowait(route.request.post_data_json)
        await route.fulfill(status=202, json={"jobs": []})

    await visitor.page.route(TRIGGER, accept)
    return asked


async def choose_paused(visitor: Visitor) -> None:
    """In the options, for a reason."""
    await part(visitor, "dump-options").locator("summary").click()
    await visitor.page.get_by_label("Mode").select_option("paused")
    await visitor.page.get_by_label("Reason").fill("in a hurry")


@thorough
@pytest.mark.parametrize("closed", [False, True])
async def test_options_that_were_chosen_before_the_script_came_go_with_the_request(
    stage: Service, window: OpenWindow, closed: bool
) -> None:
    visitor = await window(stage)
    asked = await asked_of(visitor)
    async with visitor.held_back("**/main.js"):
        await visitor.page.reload(wait_until="commit")
        await choose_paused(visitor)
        if closed:
            await part(visitor, "dump-options").locator("summary").click()
    await expect(field(part(visitor, "dump-options"), "said")).to_have_text("paused, gzip, reason")
    await visitor.dump(ALPHA.uuid)
    assert await asked.get() == {"vm_ids": [ALPHA.uuid], "mode": "paused", "compression": "gzip", "reason": "in a hurry"}


@thorough
async def test_options_that_are_still_coming_are_waited_for(stage: Service, window: OpenWindow) -> None:
    visitor = await window(stage)
    asked, wish = await asked_of(visitor), {"mode": "paused", "compression": "gzip", "reason": "in a hurry"}
    await visitor.live()
    async with visitor.held_back(OPTIONS):
        await choose_paused(visitor)
        await visitor.dump(ALPHA.uuid)
        await visitor.page.evaluate(A_FRAME)
        assert asked.empty()
    assert await asked.get() == {"vm_ids": [ALPHA.uuid], **wish}

    await visitor.page.reload()
    await visitor.live()
    dialog = part(visitor, "dump-all-dialog")
    async with visitor.held_back(OPTIONS):
        await choose_paused(visitor)
        await part(visitor, "dump-all").click()
    await expect(dialog).to_contain_text("stands still while its memory is read.")
    await field(dialog, "confirm").click()
    assert await asked.get() == {"all": True, **wish}


@thorough
async def test_nothing_is_dumped_otherwise_than_chosen_where_the_options_do_not_come(stage: Service, window: OpenWindow) -> None:
    visitor = await window(stage)
    visitor.expect_trouble("net::ERR_FAILED")
    asked = await asked_of(visitor)
    await visitor.live()
    await visitor.page.route(OPTIONS, lambda route: route.abort())
    await choose_paused(visitor)
    await expect(visitor.page.locator(".toast")).to_contain_text("could not be loaded")
    await visitor.dump(ALPHA.uuid)
    await expect(visitor.page.locator(".toast")).to_have_count(2)
    await visitor.page.unroute(OPTIONS)
    await visitor.dump_button.click()
    assert (await asked.get())["mode"] == "paused"
    assert asked.empty()


async def test_buttons_are_off_while_their_request_runs_and_a_refusal_says_what_to_do(stage: Service, window: OpenWindow) -> None:
    visitor = await window(stage)
    await visitor.live()
    page, notice = visitor.page, part(visitor, "vms-error")
    held: asyncio.Queue[Route] = asyncio.Queue()
    await page.route(TRIGGER, held.put)
    await visitor.dump(ALPHA.uuid, BETA.uuid)
    await expect(visitor.dump_button).to_be_disabled()
    await expect(part(visitor, "dump-all")).to_be_disabled()
    await expect(part(visitor, "vms")).to_have_attribute("aria-busy", "true")

    await (await held.get()).fulfill(status=409, json=refusal(ALPHA.uuid, BETA.uuid), content_type="application/problem+json")
    await expect(field(notice, "error")).to_contain_text("Nothing was started, because 2 VMs cannot be dumped now. Leave them out")
    await expect(field(notice, "faults").get_by_role("listitem")).to_have_count(2)
    await expect(page.locator("#toasts .toast")).to_contain_text("Nothing was started")
    await expect(visitor.dump_button).to_be_enabled()
    await notice.get_by_role("button", name="Leave them out").click()
    await expect(notice).not_to_be_visible()
    await expect(visitor.choice(ALPHA.uuid)).not_to_be_checked()

    await visitor.dump(ALPHA.uuid, BETA.uuid)
    await (await held.get()).fulfill(status=409, json=refusal(BETA.uuid))
    await expect(field(notice, "error")).to_have_text(f"Nothing was started: {BETA.uuid} is being dumped already.")
    await notice.get_by_role("button", name="Leave them out").click()

    full = {"type": "about:blank", "status": 429, "code": "too-many-waiting", "detail": "1000 dumps wait already. Try again later."}
    await visitor.dump_button.click()
    await (await held.get()).fulfill(status=429, json=full)
    await expect(notice).to_contain_text("1000 dumps wait already. Try again later.")
    await visitor.dump_button.click()
    await expect(notice).not_to_be_visible()
    lost = await held.get()
    await lost.fulfill(status=502, body="<h1>Bad gateway</h1>")
    await expect(notice).to_contain_text("HTTP status 502 and no explanation. Try again")
    await visitor.dump_button.click()
    again = await held.get()
    assert again.request.headers["idempotency-key"] == lost.request.headers["idempotency-key"]  # or it might be dumped twice
    await again.fulfill(status=429, json=full)
    await expect(notice).to_contain_text("1000 dumps wait already.")
    await visitor.dump_button.click()
    refused = await held.get()
    assert refused.request.headers["idempotency-key"] != lost.request.headers["idempotency-key"]
    await refused.fulfill(status=502, body="<h1>Bad gateway</h1>")
    await expect(notice).to_contain_text("HTTP status 502")
    await notice.get_by_role("button", name="Dismiss this error").click()
    await expect(notice).not_to_be_visible()
    await page.unroute(TRIGGER)
    await visitor.context.clear_cookies()  # the login ran out
    await visitor.dump_button.click()
    await page.wait_for_url("**/login?next=**")
    visitor.expect_trouble("status of 409", "status of 429", "status of 502", "status of 401")


async def test_a_button_is_off_as_soon_as_it_is_pressed(stage: Service, window: OpenWindow) -> None:
    visitor = await window(stage)
    asked = await asked_of(visitor)
    await visitor.live()
    async with visitor.held_back("**/actions.js"):
        await visitor.choice(ALPHA.uuid).check()
        await visitor.dump_button.evaluate("(button) => { button.click(); button.click(); }")
        await expect(visitor.dump_button).to_be_disabled()
        await expect(part(visitor, "vms")).to_have_attribute("aria-busy", "true")
    assert (await asked.get())["vm_ids"] == [ALPHA.uuid]
    await expect(part(visitor, "vms")).not_to_have_attribute("aria-busy", "true")
    assert asked.empty()


def refusal(*uuids: str) -> dict[str, Any]:
    """What the service says when VMs cannot be dumped now."""
    errors = [{"vm_id": uuid, "code": "already-dumping", "detail": f"{uuid} is being dumped already."} for uuid in uuids]
    return {"type": "about:blank", "status": 409, "code": "already-dumping", "detail": errors[0]["detail"], "errors": errors}


async def test_a_vm_that_is_unknown_by_now_is_said_in_the_services_words(stage: Service, window: OpenWindow) -> None:
    visitor = await window(stage)
    await visitor.page.route(TRIGGER, lambda route: route.continue_(post_data='{"vm_ids": ["nobody"]}'))
    await visitor.dump(ALPHA.uuid)
    await expect(part(visitor, "vms-error")).to_contain_text("nobody")
    visitor.expect_trouble("status of 404")


async def test_before_all_are_dumped_the_page_says_what_that_means(stage: Service, window: OpenWindow) -> None:
    visitor, says = await fed(stage, window)
    dialog, text = part(visitor, "dump-all-dialog"), part(visitor, "dump-all-text")
    says.say("vms", [feed.vm(1, memory_bytes=GIB), feed.vm(2, memory_bytes=2 * GIB), feed.vm(3, id=None, state="shutoff")])
    says.say("room", Room(dump_dir="/var/dumps", free_bytes=2 * GIB, total_bytes=9 * GIB, message=None))
    await part(visitor, "dump-all").click()
    await expect(text).to_contain_text("The memory of 2 VMs will be captured, 3 GiB in all. 2 GiB are left in /var/dumps.")
    await expect(text).to_contain_text("Each guest stands still for a moment")
    await expect(field(dialog, "warning")).to_contain_text("may be more than there is room for")
    await expect(dialog.get_by_role("button", name="Do nothing")).to_be_focused()
    assert await visitor.axe() == []

    says.say("job", feed.job(1))  # meanwhile somebody else has begun
    await expect(dialog.get_by_role("button", name="Dump 1 VM")).to_be_enabled()
    await expect(field(dialog, "warning")).not_to_be_visible()
    says.say("job", feed.job(2, Phase.QUEUED))
    await expect(field(dialog, "confirm")).to_be_disabled()
    await visitor.page.keyboard.press("Escape")
    await expect(dialog).not_to_be_visible()
    await expect(part(visitor, "dump-all")).to_be_disabled()


@thorough
async def test_five_hundred_vms_and_strange_names_keep_the_panel_as_it_is(stage: Service, window: OpenWindow) -> None:
    visitor, says = await fed(stage, window)
    dump = visitor.dump_button
    before = await dump.bounding_box()
    odd = [feed.vm(501 + place, name=name) for place, name in enumerate(feed.STRANGE_NAMES)]
    says.say("vms", [*(feed.vm(number) for number in range(1, 501)), *odd])
    await expect(visitor.page.locator("#vms-list > li")).to_have_count(504)
    assert await dump.bounding_box() == before
    await part(visitor, "vms-search").fill("img src")
    await expect_shown(visitor, [feed.STRANGE_NAMES[0]])
    await part(visitor, "vms-search").fill("vm-499")
    await visitor.page.get_by_role("button", name="Select all shown").click()
    await expect(part(visitor, "vms-chosen")).to_contain_text("1 selected")

    box = visitor.choice(feed.vm(401).uuid)  # what is chosen, and the focus, outlive what is pushed
    await part(visitor, "vms-search").fill("")
    await box.focus()
    await visitor.page.keyboard.press("Space")
    says.say("vms", [feed.vm(number) for number in range(400, 420)])
    await expect(visitor.page.locator("#vms-list > li")).to_have_count(20)
    await expect(box).to_be_focused()
    await expect(box).to_be_checked()
    says.say("job", feed.job(401))
    says.send(feed.progress(401, 0.5))
    await expect(field(visitor.vm(feed.vm(401).uuid), "job")).to_contain_text("capturing 50 %")
    await expect(box).to_be_disabled()
    await expect(part(visitor, "vms-heading")).to_be_focused()
    await expect(dump).to_be_disabled()


@thorough
async def test_the_panel_says_when_there_is_nothing_or_nothing_new_to_choose_from(stage: Service, window: OpenWindow) -> None:
    visitor, says = await fed(stage, window)
    unreachable = {"name": "kvm-07", "uri": "test:///", "state": "unreachable", "message": "It is away.", "since": feed.ago(1)}
    says.send({"type": "hypervisor", "hypervisor": unreachable})
    await expect(part(visitor, "vms-old")).to_be_visible()
    assert await visitor.axe() == []
    says.say("vms", [])
    await expect(part(visitor, "vms-empty")).to_be_visible()
    await expect(part(visitor, "dump-all")).to_be_disabled()
