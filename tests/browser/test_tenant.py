"""One service, two people in two browsers: who is limited to a project sees that alone, also as it happens."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from tests.browser.conftest import ALPHA, BETA, OpenWindow
from tests.contract.speech import Api
from tests.service import Service

pytestmark = pytest.mark.asyncio(loop_scope="session")

PASSWORD = "correct horse battery"


async def test_an_operator_of_one_project_sees_its_vms_alone_live(small_service: Service, window: OpenWindow) -> None:
    admin = await window(small_service)
    await admin.go("/accounts")
    await admin.page.locator("#new-name").fill("ann")
    await admin.page.locator("#new-role").select_option("operator")
    await admin.page.locator("#new-password").fill(PASSWORD)
    await admin.page.locator("#new-vms").fill("alph*")
    await admin.page.get_by_role("button", name="Make the account").click()
    await expect(admin.page.locator("[data-account=ann]")).to_contain_text("operator · VMs alph*")

    ann = await window(small_service, log_in=False)
    await ann.go("/login")
    await ann.page.locator("#name").fill("ann")
    await ann.page.locator("#password").fill(PASSWORD)
    await ann.page.locator("form", has=ann.page.locator("#password")).locator("[type=submit]").click()
    await ann.live()
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
