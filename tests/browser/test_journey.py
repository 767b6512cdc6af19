"""The way of a new user: from the URL that the terminal shows to a sealed dump, without reading anything else."""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path
from typing import TypedDict

import pytest
from playwright.async_api import expect

from tests.browser.conftest import SHOP, OpenWindow
from tests.browser.visitor import Visitor, field, isolated, login_path
from tests.service import Service
from tests.thorough import thorough

pytestmark = pytest.mark.asyncio(loop_scope="session")

WATCH = """
window.seen = {percent: new Set(), bytes: new Set(), guest: [], phase: []};
const look = (card) => {
  const field = (name) => card.querySelector(`[data-field=${name}]`).textContent;
  const {percent, bytes, guest, phase} = window.seen;
  percent.add(field("far"));
  bytes.add(field("bytes"));
  if (guest.at(-1) !== card.dataset.guest) guest.push(card.dataset.guest);
  if (phase.at(-1) !== card.dataset.phase) phase.push(card.dataset.phase);
};
new MutationObserver(() => document.querySelectorAll("#jobs-list > [data-job-id]").forEach(look))
  .observe(document.getElementById("jobs"), {subtree: true, childList: true, characterData: true, attributes: true});
"""
WHAT_WAS_SEEN = "Object.fromEntries(Object.entries(window.seen).map(([name, values]) => [name, [...values]]))"


class Seen(TypedDict):
    """What a running dump showed, each different text in the order in which it came."""

    percent: list[str]
    bytes: list[str]
    guest: list[str]
    phase: list[str]


async def test_a_new_user_gets_from_the_printed_url_to_a_sealed_dump(new_service: Service, window: OpenWindow) -> None:
    visitor = await window(new_service, log_in=False)
    page = visitor.page
    await page.goto(new_service.login_url)
    await page.get_by_role("button", name="Log in").click()
    await page.wait_for_url("**/memory-dumps")
    await visitor.live()
    await expect(page.locator("#hypervisor")).to_have_attribute("data-state", "connected")
    await expect(field(visitor.vm(SHOP), "name")).to_have_text(SHOP.name)
    await expect(field(visitor.vm(SHOP), "state")).to_have_text("running")
    await expect(field(visitor.vm(SHOP), "last-dump")).to_have_text("never dumped")
    await expect(page.locator("#records-empty")).to_be_visible()

    await page.evaluate(WATCH)
    await expect(visitor.dump_button).to_be_disabled()
    await visitor.choice(SHOP).check()
    await page.get_by_role("button", name="Dump selected VM").click()
    await expect(visitor.records).to_have_count(1)

    await expect(page.locator("#announcements")).to_contain_text(f"The dump of {isolated(SHOP.name)} is complete")
    assert_progress_was_seen(await page.evaluate(WHAT_WAS_SEEN))  # which a reload would have forgotten
    await assert_record_is_true(visitor)
    await expect(page.locator('#stats [data-field="dumps"]')).to_have_text("1")
    await expect(field(visitor.vm(SHOP), "last-dump")).to_contain_text("UTC")
    await expect(visitor.running).to_have_count(0)
    await expect(visitor.choice(SHOP)).to_be_enabled()
    await expect(page.locator('#activity-list > li[data-kind="success"]')).to_contain_text(SHOP.name)


@thorough
async def test_a_login_url_works_once_and_says_so_the_second_time(service: Service, window: OpenWindow) -> None:
    path = login_path(service)
    first, second = await window(service, log_in=False), await window(service, log_in=False)
    for visitor in (first, second):
        await visitor.go(path)
        await visitor.page.get_by_role("button", name="Log in").click()
    await expect(second.page.get_by_role("alert")).to_contain_text("has been used already")
    await expect(second.page.locator('input[type="hidden"][name="code"]')).to_have_count(0)
    await expect(second.page.get_by_label("Login link")).to_be_visible()  # for another one
    await second.go()
    await expect(second.page).to_have_url(f"{service.url}/login?next=%2Fmemory-dumps")
    second.expect_trouble("status of 401")


def assert_progress_was_seen(seen: Seen) -> None:
    """It moved, and the guest's stop was shown while it lasted and no longer."""
    assert len([text for text in seen["percent"] if text.endswith("%")]) >= 2, seen
    assert len([text for text in seen["bytes"] if " of " in text]) >= 2, seen
    assert seen["phase"][-1] in ("sealing", "recording"), seen
    assert seen["guest"][:2] == ["runs", "paused"], seen
    assert seen["guest"][-1] == "runs", seen


async def assert_record_is_true(visitor: Visitor) -> None:
    """The hash on the page is what ``zcat | sha256sum`` makes of the file that the page names."""
    record = visitor.records.first
    path = Path(await field(record, "path").inner_text())
    assert path.parent == visitor.service.dump_dir
    shown = await field(record, "sha256").get_attribute("title")
    assert shown == await unpacked_sha256(path)
    await expect(field(record, "dom")).to_have_text(SHOP.name)
    await expect(field(record, "sha256")).to_have_text(shown[:12])
    for name in ("time", "duration", "how"):
        await expect(field(record, name)).not_to_contain_text("–")
    await expect(field(record, "size")).to_have_text("512 MiB")
    await visitor.page.get_by_label("Show compressed size").check()
    await expect(field(record, "size")).not_to_have_text("512 MiB")


async def unpacked_sha256(path: Path) -> str:
    """What a user types."""
    command = f"zcat {shlex.quote(str(path))} | sha256sum"
    process = await asyncio.create_subprocess_shell(command, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    assert process.returncode == 0
    return said.decode().split()[0]
