"""The page of the audit trail: found from the bar, filtered by its form, and nobody is shut out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.async_api import expect

from tests.browser.conftest import ALPHA, OpenWindow
from tests.contract.speech import Api
from tests.nodes import node
from tests.service import Service, running_service
from tests.thorough import thorough

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("audited")
    with running_service(folder, LIBVIRT_URI=node(folder / "node.xml", (ALPHA,)), MEMDUMP_COMPRESSION="none") as started:
        yield started


@thorough
async def test_entries_are_found_by_the_form_and_shut_nobody_out(audited: Service, window: OpenWindow) -> None:
    visitor = await window(audited)
    async with Api.of(audited) as api:
        await api.connected()
        await api.dump(ALPHA.name, reason="drill")
    page = visitor.page
    await visitor.go()
    await page.get_by_role("link", name="Audit").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Audit trail")
    await page.get_by_label("What").select_option("dump")
    await page.get_by_role("button", name="Show").click()
    rows = page.locator("tr[data-number]")
    await expect(rows.locator("td:nth-child(6)")).to_contain_text(["sealed", "scheduled"])
    await rows.last.get_by_text("More").click()
    await expect(rows.last).to_contain_text("drill")
    for width, scheme in ((1280, "light"), (360, "dark")):
        await page.set_viewport_size({"width": width, "height": 900})
        await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        assert await visitor.axe() == []
        assert await visitor.too_wide() == []
