"""The page of tokens: what is shown once is taken along with one press."""

from __future__ import annotations

import aiohttp
import pytest
from playwright.async_api import expect

from tests.browser.conftest import OpenWindow
from tests.service import Service
from tests.thorough import thorough

pytestmark = pytest.mark.asyncio(loop_scope="session")


@thorough
async def test_a_new_token_is_copied_opens_the_api_and_is_never_shown_again(small_service: Service, window: OpenWindow) -> None:
    visitor = await window(small_service)
    page = visitor.page
    await visitor.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await visitor.go("/tokens")
    await page.get_by_label("What for").fill("nightly")
    await page.get_by_role("button", name="Make the token").click()
    await expect(page.locator("#made-heading")).to_be_focused()
    await expect(page.locator("#made")).to_contain_text("This is token 2, nightly.")
    await expect(page.locator("#said")).not_to_be_visible()
    await page.get_by_role("button", name="Copy the token").click()
    await expect(page.locator("#said")).to_have_text("The token is in the clipboard.")
    token = await page.evaluate("navigator.clipboard.readText()")
    async with aiohttp.ClientSession(small_service.url, headers={"Authorization": f"Bearer {token}"}) as program:
        assert (await program.get("/api/memory-dumps/stats")).status == 200
    await visitor.go("/tokens")
    await expect(page.get_by_role("heading", name="nightly")).to_be_visible()
    assert token not in await page.content()
