"""The page of one dump as the server writes it: the whole manifest, for whoever is logged in."""

from __future__ import annotations

import asyncio
import html
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import aiohttp
import pytest

from app.config import Settings
from app.foundation import SCHEMAS
from app.records.index import RecordIndex
from app.records.point import UNKNOWN, record_of
from app.state import State
from tests.contract.speech import RECORDS, Api
from tests.histories import SEC_NS, manifest_at
from tests.service import Service, running_service, service_environment

RECORD = replace(
    manifest_at(1_795_429_800 * SEC_NS, dom='<b>"x"&</b>'),
    sha256="ab" * 32,
    stored_sha256="cd" * 32,
    reason="<script>alert(1)</script>",
    case="C-7",
    dump_path="/dumps/it's.mem.gz",
    warnings=("The capture fell back.",),
    domain_xml="<domain>\n</domain>\n",
)
FOREIGN = record_of({"time": 1_795_429_700 * SEC_NS, "dom": "old", "vmid": "7", "sha256": "a" * 64, "dump_path": "/d/7_1.mem.gz"})
PAGE = f"/memory-dumps/{RECORD.dump_id}"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One that has these two records."""
    folder = tmp_path_factory.mktemp("details")
    state = State.open(Settings.from_environment(service_environment(folder)).state_file, *SCHEMAS)
    try:
        asyncio.run(RecordIndex(state).add_many([RECORD, FOREIGN]))
    finally:
        state.close()
    with running_service(folder) as started:
        yield started


@pytest.fixture
async def api(service: Service) -> AsyncIterator[Api]:
    async with Api.of(service) as speaker:
        yield speaker


async def page_at(api: Api, path: str, status: int = 200) -> str:
    async with api.session.get(path) as answer:
        assert answer.status == status
        assert answer.content_type == "text/html"
        return await answer.text()


async def test_the_page_has_every_text_and_warning_of_the_manifest(api: Api) -> None:
    source = await page_at(api, PAGE)
    assert "<script>alert" not in source
    shown = html.unescape(re.sub(r"<[^>]*>", "\n", source))
    manifest = await api.get(f"{RECORDS}/{RECORD.dump_id}")
    texts = {
        name: value
        for name, value in manifest.items()
        if isinstance(value, str) and name not in ("timestamp", "captured_at", "format")
    }
    assert [name for name, text in (texts | manifest["versions"]).items() if text not in shown] == []
    assert manifest["warnings"][0] in shown
    assert "2026-11-23 10:30:00.000000 UTC" in shown
    assert f"zcat < '/dumps/it'\\''s.mem.gz' | sha256sum -c <(echo '{RECORD.sha256}  -')" in shown


async def test_what_another_program_did_not_say_is_not_known(api: Api) -> None:
    source = await page_at(api, f"/memory-dumps/{FOREIGN.dump_id}")
    assert UNKNOWN in html.unescape(source)
    assert '<dt>Mode</dt><dd><bdi data-text="mode">not known</bdi></dd>' in source
    assert f'<code data-text="sha256">{FOREIGN.sha256}</code>' in source


async def test_the_way_back_leads_to_the_list_that_one_came_from(api: Api) -> None:
    assert 'href="/memory-dumps"' in await page_at(api, PAGE)
    assert 'href="/memory-dumps?q=a%26b&amp;page=3"' in await page_at(api, f"{PAGE}?q=a%26b&page=3")


async def test_a_dump_that_there_is_not_is_a_page_for_a_person(api: Api) -> None:
    assert "There is no record of a dump" in await page_at(api, "/memory-dumps/nothing", 404)


async def test_who_is_not_logged_in_is_sent_to_the_login_and_back(service: Service) -> None:
    async with aiohttp.ClientSession(service.url) as nobody, nobody.get(PAGE, allow_redirects=False) as answer:
        assert answer.status == 303
        assert answer.headers["Location"] == f"/login?next={PAGE.replace('/', '%2F')}"
