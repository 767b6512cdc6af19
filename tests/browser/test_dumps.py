"""Dumps as the page starts, shows and ends them."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import expect

from demo import PrivateLibvirt
from tests.browser.conftest import ALPHA, BETA, GONE, SHOP, OpenWindow
from tests.browser.keys import tab_to
from tests.browser.visitor import Visitor, field, isolated
from tests.service import Service
from tests.thorough import thorough

pytestmark = pytest.mark.asyncio(loop_scope="session")

FRAMES = 600
STOOD = re.compile(r"(still)\n[\d.:]+ (?:ms|s|min)$", re.MULTILINE | re.IGNORECASE)


async def test_dump_all_asks_first_and_then_dumps_every_running_vm(small_service: Service, window: OpenWindow) -> None:
    visitor = await window(small_service)
    page, dialog = visitor.page, visitor.page.locator("#dump-all-dialog")
    await page.locator("#dump-all").click()
    await expect(page.locator("#dump-all-text")).to_contain_text("The memory of 2 VMs will be captured, 160 MiB in all.")
    await dialog.get_by_role("button", name="Do nothing").click()
    await expect(dialog).not_to_be_visible()
    await expect(page.locator("#dump-all")).to_be_focused()

    await page.locator("#dump-all").click()
    await dialog.get_by_role("button", name="Dump 2 VMs").click()
    await expect(visitor.records).to_have_count(2)
    assert sorted(await field(visitor.records, "dom").all_inner_texts()) == [ALPHA.name, BETA.name]
    await expect(visitor.choice(GONE.uuid)).to_be_disabled()


async def test_a_dump_that_is_cancelled_on_the_page_is_shown_as_cancelled_and_its_guest_runs(
    rack: PrivateLibvirt, service: Service, window: OpenWindow
) -> None:
    visitor = await window(service)
    records = await visitor.records.count()
    async with visitor.held_while_the_guest_stands_still(SHOP) as process:
        await expect(visitor.choice(SHOP)).to_be_disabled()
        await visitor.running.locator('[data-action="cancel"]').click()
        await expect(visitor.running.get_by_role("button", name="Cancelling…")).to_be_disabled()
        process.go_on()
    await expect(visitor.ended).to_have_attribute("data-phase", "cancelled")
    await expect(visitor.running).to_have_count(0)
    await expect(visitor.records).to_have_count(records)
    await expect(visitor.choice(SHOP)).to_be_enabled()
    await expect(field(visitor.vm(SHOP), "state")).to_have_text("running")
    with rack.connection() as connection:
        assert connection.lookupByName(SHOP.name).isActive()
        assert connection.lookupByName(SHOP.name).state()[0] == 1

    await visitor.ended.get_by_role("button", name="Dismiss").click()
    await expect(visitor.ended).to_have_count(0)


@thorough
async def test_a_dump_that_fails_says_why_in_words_and_by_its_code(small_service: Service, window: OpenWindow) -> None:
    small_service.dump_dir.rmdir()
    visitor = await window(small_service)
    await visitor.dump(ALPHA.uuid)
    await expect(visitor.ended).to_have_attribute("data-phase", "failed")
    await expect(field(visitor.ended, "code")).to_have_text("dump-dir-unusable")
    await expect(field(visitor.ended, "message")).to_contain_text(str(small_service.dump_dir))
    await expect(visitor.activity.first).to_contain_text(str(small_service.dump_dir))
    await expect(visitor.page.locator("#announcements")).to_contain_text(f"The dump of {isolated(ALPHA.name)} failed.")


@thorough
async def test_two_pages_show_the_same_while_a_dump_runs_and_afterwards(service: Service, window: OpenWindow) -> None:
    one, other = await window(service), await window(service)
    async with one.held_while_the_guest_stands_still(SHOP):
        await expect(other.running).to_have_attribute("data-guest", "paused")
        await assert_same(one, other)
    for visitor in (one, other):
        await expect(visitor.running).to_have_count(0)
        await expect(field(visitor.vm(SHOP), "last-dump")).to_contain_text("UTC")
        await expect(visitor.choice(SHOP)).to_be_enabled()
    await assert_same(one, other)


async def assert_same(one: Visitor, other: Visitor) -> None:
    """All that two pages say, but for how long the guest has stood still: that goes on while they are read. The one may be a few
    frames behind the other."""
    for _ in range(FRAMES):
        texts = [await visitor.page.locator("#stats, main section").all_inner_texts() for visitor in (one, other)]
        texts = [[STOOD.sub(r"\1 …", text) for text in page] for page in texts]
        if texts[0] == texts[1]:
            return
        await other.page.evaluate("new Promise(requestAnimationFrame)")
    assert texts[0] == texts[1]


@thorough
async def test_the_place_of_the_keyboard_is_kept_while_progress_is_shown(service: Service, window: OpenWindow) -> None:
    visitor = await window(service)
    await visitor.live()

    async def ask() -> None:
        await visitor.choice(SHOP).focus()
        await visitor.page.keyboard.press("Space")
        await tab_to(visitor.page, "#dump-selected")
        await visitor.page.keyboard.press("Enter")
        await expect(visitor.page.locator("#vms-heading")).to_be_focused()  # the button is off now

    async with visitor.held_while_the_guest_stands_still(SHOP, ask) as process:
        await tab_to(visitor.page, f"[aria-label='Cancel the dump of {SHOP.name}']")
        cancel = visitor.running.locator('[data-action="cancel"]')
        before = await field(visitor.running, "bytes").inner_text()
        process.go_on()
        await visitor.until("(text) => document.querySelector('#jobs-list [data-field=bytes]').textContent !== text", before)
        process.stop()
        await expect(cancel).to_be_focused()
    await expect(visitor.running).to_have_count(0)
    await expect(visitor.page.locator("#jobs-heading")).to_be_focused()
