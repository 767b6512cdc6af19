"""What happens elsewhere reaches the page by itself, and what keeps it from doing so is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import expect

from demo import Guest, PrivateLibvirt
from tests.browser.conftest import ALPHA, OFF, OpenWindow
from tests.browser.visitor import SERVICE_IS_AWAY, field
from tests.faults.scene import memdump
from tests.service import Service, running_service
from tests.thorough import thorough

pytestmark = pytest.mark.asyncio(loop_scope="session")

NEWCOMER = Guest(name="vm-new-01", memory_mib=128, boots=False, starts=False)


async def test_what_somebody_else_does_to_a_vm_shows_without_reload(
    rack: PrivateLibvirt, service: Service, window: OpenWindow
) -> None:
    visitor = await window(service)
    await visitor.live()
    row = visitor.vm(OFF)
    await expect(visitor.choice(OFF)).to_be_disabled()
    with rack.connection() as connection:
        domain = connection.lookupByName(OFF.name)
        domain.create()
        await expect(row).to_have_attribute("data-vm-state", "running")
        await expect(visitor.choice(OFF)).to_be_enabled()
        domain.suspend()
        await expect(field(row, "state")).to_have_text("paused")
        domain.destroy()
        await expect(row).to_have_attribute("data-vm-state", "shutoff")
        await expect(visitor.choice(OFF)).to_be_disabled()

        rack.add(NEWCOMER)
        await expect(visitor.vm(NEWCOMER)).to_be_visible()
        connection.lookupByName(NEWCOMER.name).undefine()
        await expect(visitor.vm(NEWCOMER)).to_have_count(0)


@thorough
async def test_a_page_outlives_its_service_and_shows_what_happened_meanwhile(small_service: Service, window: OpenWindow) -> None:
    visitor = await window(small_service)
    await visitor.live()
    visitor.expect_trouble(SERVICE_IS_AWAY)
    await visitor.page.evaluate("window.marker = 'not reloaded'")
    connection = visitor.page.locator("#connection")
    small_service.kill()
    await expect(connection).to_have_attribute("data-connection", "reconnecting")
    await expect(connection).to_contain_text("reconnecting")

    made = memdump(small_service.environment, ALPHA.name)
    assert made.returncode == 0, made.stderr
    small_service.restart()
    await visitor.live()
    await expect(visitor.records).to_have_count(1)
    await expect(field(visitor.vm(ALPHA.uuid), "last-dump")).to_contain_text("UTC")
    assert await visitor.page.evaluate("window.marker") == "not reloaded"


@thorough
async def test_a_page_whose_service_stays_away_says_that_it_is_out_of_date(small_service: Service, window: OpenWindow) -> None:
    visitor = await window(small_service)
    await visitor.live()
    visitor.expect_trouble(SERVICE_IS_AWAY)
    small_service.kill()
    await expect(visitor.page.locator("#connection")).to_have_attribute("data-connection", "offline")
    await expect(visitor.page.locator("#stale-notice")).to_be_visible()
    await visitor.dump(ALPHA.uuid)
    await expect(field(visitor.page.locator("#vms-error"), "error")).to_contain_text("The service cannot be reached.")
    await expect(visitor.choice(ALPHA.uuid)).to_be_checked()  # and is tried again with one press


async def test_a_hypervisor_that_goes_away_is_missed_and_welcomed_back(
    tmp_path: Path, own_lab: PrivateLibvirt, window: OpenWindow
) -> None:
    with running_service(tmp_path, LIBVIRT_URI=own_lab.uri) as service:
        visitor = await window(service)
        hypervisor, notice = visitor.page.locator("#hypervisor"), visitor.page.locator("#hypervisor-notice")
        await expect(hypervisor).to_have_attribute("data-state", "connected")
        await expect(notice).not_to_be_visible()
        own_lab.kill_libvirtd()
        await expect(hypervisor).to_have_attribute("data-state", "unreachable")
        await expect(notice).to_contain_text("The hypervisor is unreachable")
        own_lab.restart_libvirtd()
        await expect(hypervisor).to_have_attribute("data-state", "connected")
        await expect(notice).not_to_be_visible()
        await visitor.close()


@thorough
async def test_a_hypervisor_that_was_never_there_is_said_on_the_page(tmp_path: Path, window: OpenWindow) -> None:
    nowhere = f"qemu:///session?socket={tmp_path}/nowhere"
    with running_service(tmp_path, LIBVIRT_URI=nowhere) as service:
        visitor = await window(service)
        await expect(visitor.page.locator("#hypervisor-notice")).to_contain_text("nowhere")
        await expect(visitor.page.locator("#vms-unknown")).to_be_visible()
        await expect(field(visitor.page.locator("#stats"), "vms")).to_have_text("–")
        await visitor.close()
