"""Logging in at a provider on another site, in a real browser: cookies that are strict about that come along where they have to."""

from __future__ import annotations

import pytest
from playwright.async_api import Browser, expect

from tests.provider import is_there, running_provider
from tests.service import running_service
from tests.thorough import thorough

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.skipif(not is_there(), reason="the set-up fetches the provider where npm is"),
]


@thorough
@pytest.mark.parametrize("scripts", [True, False])
async def test_a_person_goes_to_the_provider_and_comes_back_logged_in(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory, scripts: bool
) -> None:
    folder = tmp_path_factory.mktemp("service")
    with running_provider() as issuer:
        settings = {
            "MEMDUMP_AUTH": "oidc",
            "MEMDUMP_OIDC_ISSUER": issuer,
            "MEMDUMP_OIDC_CLIENT_ID": "public",
            "MEMDUMP_GROUP_ROLES": '{"soc": "investigator"}',
        }
        with running_service(folder, **settings) as service:
            context = await browser.new_context(java_script_enabled=scripts)
            page = await context.new_page()
            await page.goto(f"{service.url}/memory-dumps?q=nothing")
            await page.locator("#oidc").click()
            await page.locator("[name=login]").fill("anna+soc")
            await page.locator("[name=password]").fill("any")
            await page.locator("[type=submit]").click()
            await page.locator("[type=submit]").click()
            await expect(page).to_have_url(f"{service.url}/memory-dumps?q=nothing")
            await expect(page.locator("#log-out")).to_have_count(1)
            await context.close()
