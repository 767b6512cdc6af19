"""One service, two people in two browsers: who is limited to a project sees that alone, also as it happens."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from tests.browser.conftest import ALPHA, BETA, OpenWindow
from tests.browser.feed import Feed, job, vm
from tests.browser.visitor import Visitor
from tests.contract.speech import Api
from tests.service import Service
from tests.thorough import thorough

pytestmark = pytest.mark.asyncio(loop_scope="session")

PASSWORD = "correct horse battery"


async def make_account(admin: Visitor, name: str, role: str, vms: str = "") -> None:
    await admin.go("/accounts")
    await admin.page.locator("#new-name").fill(name)
    await admin.page.locator("#new-role").select_option(role)
    await admin.page.locator("#new-password").fill(PASSWORD)
    await admin.page.locator("#new-vms").fill(vms)
    await admin.page.get_by_role("button", name="Make the account").click()
    await expect(admin.page.locator(f"[data-account={name}]")).to_contain_text(role)


async def log_in(visitor: Visitor, name: str) -> None:
    await visitor.go("/login")
    await visitor.page.locator("#name").fill(name)
    await visitor.page.locator("#password").fill(PASSWORD)
    await visitor.page.locator("form", has=visitor.page.locator("#password")).locator("[type=submit]").click()
    await visitor.live()


ROLES = [("viewer", False, False), ("investigator", True, False), ("operator", True, True)]


@thorough
@pytest.mark.parametrize(("role", "dumps", "cancels"), ROLES)
async def test_nobody_is_offered_what_the_role_may_not_do(
    small_service: Service, window: OpenWindow, role: str, dumps: bool, cancels: bool
) -> None:
    admin, other, feed = await window(small_service), await window(small_service, log_in=False), Feed()
    await make_account(admin, "ann", role)
    await feed.take(other.page)
    await log_in(other, "ann")
    page = other.page
    feed.say("vms", [vm(1), vm(2)])
    feed.say("job", job(1))
    await expect(other.running).to_have_count(1)
    for button in ("Dump selected VM", "Dump all VMs", "Select all shown"):
        await expect(page.get_by_role("button", name=button)).to_have_count(1 if dumps else 0)
    await expect(page.locator("#dump-options")).to_be_visible(visible=dumps)
    await expect(other.choice(vm(2).uuid)).to_be_enabled(enabled=dumps)
    await expect(page.get_by_text("an administrator can let you dump VMs.")).to_have_count(0 if dumps else 1)
    await expect(page.get_by_role("button", name="Cancel the dump of")).to_have_count(1 if cancels else 0)
    await expect(page.get_by_text("an administrator can let you cancel dumps.")).to_have_count(0 if cancels else 1)
    assert await other.axe() == []


async def test_an_operator_of_one_project_sees_its_vms_alone_live(small_service: Service, window: OpenWindow) -> None:
    admin, ann = await window(small_service), await window(small_service, log_in=False)
    await make_account(admin, "ann", "operator", "alph*")
    await expect(admin.page.locator("[data-account=ann]")).to_contain_text("operator · VMs alph*")
    await log_in(ann, "ann")
    await expect(ann.vm(ALPHA.uuid)).to_have_count(1)
    assert BETA.name not in await ann.page.content()
    await admin.go()
    await admin.live()
    await expect(admin.vm(BETA.uuid)).to_have_count(1)

    async with Api.of(small_service) as api:
        for vm in (BETA, ALPHA):  # whatever is told of the first is told before the second
            await api.dump(vm.uuid)
    await expect(admin.records).to_have_count(2)
    await expect(ann.records).to_have_count(1)
    await expect(ann.records).to_contain_text(ALPHA.name)
    assert BETA.name not in await ann.page.content()
