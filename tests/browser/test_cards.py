"""The cards of dumps of a real guest: what they say, and what the machine says."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import expect

from demo import PrivateLibvirt
from tests.browser.conftest import SHOP, OpenWindow
from tests.browser.visitor import HOME, field
from tests.contract.speech import JOBS, RECORDS, Api
from tests.faults.scene import capture_process
from tests.service import Service, running_service
from tests.thorough import thorough

pytestmark = pytest.mark.asyncio(loop_scope="session")

RUNNING, PAUSED = 1, 3
"""virDomainState."""

OTHER_TEXT = "(text) => document.querySelector('#jobs-list [data-field=still]').textContent !== text"


def state_of_the_guest(rack: PrivateLibvirt) -> int:
    with rack.connection() as connection:
        state: int = connection.lookupByName(SHOP.name).state()[0]
    return state


@thorough
async def test_a_guest_that_stands_still_is_shown_so_for_as_long_as_it_does_and_then_how_its_dump_ended(
    rack: PrivateLibvirt, service: Service, window: OpenWindow
) -> None:
    visitor = await window(service)
    await visitor.live()
    card, result = visitor.running, visitor.page.locator("#jobs-list > .result")
    async with Api.of(service) as api:
        async with visitor.held_while_the_guest_stands_still(SHOP) as process:
            await expect(field(card, "guest")).to_have_text("guest stands still")
            await expect(field(card, "mode")).to_have_text("paused")
            assert state_of_the_guest(rack) == PAUSED
            job = (await api.get(JOBS))["jobs"][0]
            assert job["progress"]["guest_paused"]
            await expect(card).to_have_attribute("data-job-id", job["job_id"])
            await visitor.until(OTHER_TEXT, await field(card, "still").inner_text())
            process.go_on()
        await expect(field(result, "dom")).to_have_text(SHOP.name)
        await expect(card).to_have_count(0)
        assert state_of_the_guest(rack) == RUNNING
        newest = (await api.get(RECORDS))["records"][0]
    assert newest["dom"] == SHOP.name
    stood_still = (
        f"{newest['guest_pause_ms']:.0f} ms" if newest["guest_pause_ms"] < 999.5 else f"{newest['guest_pause_ms'] / 1000:.2f} s"
    )
    await expect(field(result, "result")).to_contain_text(f"; the guest stood still for {stood_still}; ")
    await result.get_by_role("link", name="Details").click()
    await visitor.page.wait_for_url(f"**{HOME}/{newest['dump_id']}")
    await expect(visitor.page.get_by_role("dialog")).to_contain_text(newest["sha256"])


@thorough
async def test_a_dump_whose_process_dies_is_shown_as_failed_until_it_is_put_away_and_its_guest_runs(
    rack: PrivateLibvirt, service: Service, window: OpenWindow
) -> None:
    visitor = await window(service)
    await visitor.live()
    dumps = {path.name for path in service.dump_dir.iterdir()}
    async with visitor.held_while_the_guest_stands_still(SHOP) as process:
        process.kill()
    await expect(visitor.ended).to_have_attribute("data-phase", "failed")
    await expect(field(visitor.ended, "code")).to_have_text("capture-died")
    await expect(field(visitor.ended, "message")).not_to_be_empty()
    await expect(visitor.running).to_have_count(0)
    await expect(field(visitor.page.locator("#jobs-list > .result"), "phase")).to_have_text("failed")
    await expect(field(visitor.vm(SHOP), "state")).to_have_text("running")
    assert state_of_the_guest(rack) == RUNNING
    assert {path.name for path in service.dump_dir.iterdir()} == dumps
    await visitor.go()  # it comes from the service, not from this page's memory
    await visitor.ended.get_by_role("button", name="Dismiss").click()
    await expect(visitor.ended).to_have_count(0)


@thorough
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
        await expect(visitor.records.first).to_contain_text("live")
        for one in (visitor, reader):
            await one.close()
