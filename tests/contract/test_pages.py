"""The list of records as the server writes it: whole without JavaScript, whatever its address says."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest

from app.config import Settings
from app.foundation import SCHEMAS
from app.records.index import RecordIndex
from app.state import State
from tests.contract.speech import Api
from tests.histories import SEC_NS, manifest_at
from tests.service import Service, running_service, service_environment

DAY_NS = 86_400 * SEC_NS
BEGIN_NS = 1_772_323_200 * SEC_NS  # 2026-03-01
NAMES = ("web-01", "db-02", '<b>"x"&</b>')
COUNT = 130
MADE = [
    replace(
        manifest_at(BEGIN_NS + number * DAY_NS // 8, dom=NAMES[number % 3], vmid=str(number % 3)),
        sha256=f"{number:064x}",
        raw_size_bytes=2048,
        gzip_size_bytes=1024,
    )
    for number in range(COUNT)
]
FOREIGN = replace(
    manifest_at(BEGIN_NS - DAY_NS, dom="elsewhere", vmid=""),
    uuid="",
    sha256="",
    dump_path="",
    raw_size_bytes=0,
    gzip_size_bytes=0,
    versions=replace(MADE[0].versions, memory_dumps="", libvirt="", qemu=""),
    warnings=("It is another program's.",),
)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One that has these records, and no others."""
    folder = tmp_path_factory.mktemp("pages")
    state = State.open(Settings.from_environment(service_environment(folder)).state_file, *SCHEMAS)
    try:
        asyncio.run(RecordIndex(state).add_many((FOREIGN, *MADE)))
    finally:
        state.close()
    with running_service(folder, MEMDUMP_AUTH="none") as started:
        yield started


COLUMNS = ("vmid", "dom", "time", "duration", "sha256", "path", "size", "view")


class Page(HTMLParser):
    """What a person finds on a page: the ids of the rows, every address, and the texts of elements by their ids or, in rows,
    their columns."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[str] = []
        self.addresses: dict[str, str | None] = {}
        self.texts: dict[str, str] = {}
        self._open: list[str | None] = []
        self._in_template = False
        self._column: int | None = None  # how many cells of the table's body there were
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self._in_template = self._in_template or tag == "template"
        if self._in_template:
            return
        if tag == "tbody":
            self._column = 0
        name = given.get("data-go") or given.get("id")
        if tag in ("td", "th") and self._column is not None:
            name = COLUMNS[self._column % len(COLUMNS)]
            self._column += 1
        elif tag == "a" and not name:
            name = next((column for column in reversed(self._open) if column in COLUMNS), None)
        if tag == "a" and name == COLUMNS[-1]:
            self.rows.append(urlsplit(given["href"] or "").path.rpartition("/")[2])
        if tag == "a" and name:
            self.addresses.setdefault(name, given.get("href"))
        if tag not in ("input", "meta", "link"):
            self._open.append(name if "hidden" not in given else None)

    def handle_endtag(self, tag: str) -> None:
        if self._in_template:
            self._in_template = tag != "template"
        elif self._open:
            self._open.pop()

    def handle_data(self, text: str) -> None:
        for name in self._open if not self._in_template else ():
            if name:
                self.texts[name] = self.texts.get(name, "") + text


@pytest.fixture
async def api(service: Service) -> AsyncIterator[Api]:
    async with Api.of(service) as speaker:
        yield speaker


async def opened(api: Api, address: str) -> Page:
    async with api.session.get(address) as answer:
        assert answer.status == 200
        return Page(await answer.text())


def ids(*places: int) -> list[str]:
    """Of the records at these places of all, newest first."""
    every = [record.dump_id for record in reversed((FOREIGN, *MADE))]
    return [every[place] for place in places]


async def test_the_links_lead_through_all_pages_in_both_orders(api: Api) -> None:
    for order, expected in (("desc", ids(*range(COUNT + 1))), ("asc", ids(*range(COUNT, -1, -1)))):
        address: str | None = f"/memory-dumps?order={order}"
        found: list[str] = []
        while address is not None:
            page = await opened(api, address)
            found += page.rows
            address = page.addresses["next"]
        assert found == expected
        assert page.texts["records-where"] == "Page 3 of 3 · 131 dumps"
        assert page.addresses["last"] is None
        assert page.addresses["first"] is not None


async def test_filters_are_those_of_the_api(api: Api) -> None:
    for query in ("q=DB-0", "vm=web-01", "date=2026-03-03", "from=2026-03-05&to=2026-03-06T12:00:00Z", "q=%3Cb%3E&date=2026-03-04"):
        page = await opened(api, f"/memory-dumps?{query}")
        records = await api.get(f"/api/memory-dumps/records?{query.replace('vm=', 'dom=')}")
        assert page.rows == [record["dump_id"] for record in records["records"]][:50]
        assert f"· {records['count']} dumps" in page.texts["records-where"]


async def test_a_page_behind_the_last_one_is_the_last_one_and_says_so(api: Api) -> None:
    page = await opened(api, "/memory-dumps?page=99&limit=100")
    assert page.rows == ids(*range(100, 131))
    assert page.texts["address-problems"] == "There is no page 99: this is page 2, the last one."


async def test_what_an_address_says_wrong_is_said_and_the_rest_is_shown(api: Api) -> None:
    page = await opened(api, "/memory-dumps?vm=db-02&date=yesterday&%3Cscript%3E=1")
    assert "date='yesterday' is not a date such as 2026-11-23." in page.texts["address-problems"]
    assert "“<script>” is nothing that this page knows" in page.texts["address-problems"]
    assert len(page.rows) == 43


async def test_a_name_is_text_and_leads_to_the_dumps_of_its_vm(api: Api) -> None:
    page = await opened(api, "/memory-dumps?q=%3Cb%3E&sizes=stored")
    assert page.texts["dom"].startswith(NAMES[2])
    query = parse_qs(urlsplit(page.addresses["dom"] or "").query)
    assert query == {"q": ["<b>"], "vm": [NAMES[2]], "sizes": ["stored"]}
    details = urlsplit(page.addresses["view"] or "")
    assert details.path == f"/memory-dumps/{page.rows[0]}"
    assert parse_qs(details.query) == {"q": ["<b>"], "sizes": ["stored"]}


async def test_the_size_is_that_which_is_asked_for_and_what_nobody_knows_is_a_dash(api: Api) -> None:
    assert (await opened(api, "/memory-dumps?q=web")).texts["size"].startswith("2 KiB")
    assert (await opened(api, "/memory-dumps?q=web&sizes=stored")).texts["size"].startswith("1 KiB")
    foreign = await opened(api, "/memory-dumps?q=elsewhere")
    assert {name: foreign.texts[name] for name in ("vmid", "sha256", "path", "size")} == dict.fromkeys(
        ("vmid", "sha256", "path", "size"), "–"
    )
    assert foreign.texts["duration"].endswith(" –, pause –")
    assert foreign.texts["dom"].endswith("1 warning")


async def test_nothing_that_fits_is_said_so(api: Api) -> None:
    page = await opened(api, "/memory-dumps?q=nothing-like-it")
    assert page.rows == []
    assert page.texts["records-none"] == "No dump matches these filters. Show all"
    assert page.texts["records-where"] == "Page 1 of 1 · 0 dumps"


async def test_a_row_is_small(api: Api) -> None:
    async with api.session.get("/memory-dumps") as answer:
        rows = re.findall(r"<tr><td>.*?</tr>", await answer.text(), re.DOTALL)
    assert len(rows) == 50
    assert max(len(row) for row in rows if NAMES[0] in row) <= 650


async def test_the_way_to_the_login_and_back_keeps_the_address(service: Service, tmp_path_factory: pytest.TempPathFactory) -> None:
    with running_service(tmp_path_factory.mktemp("login")) as closed:
        async with aiohttp.ClientSession(closed.url, cookie_jar=aiohttp.DummyCookieJar()) as session:
            wanted = "/memory-dumps?q=a%2Fb+%22c%22&vm=%F0%9F%A6%8A&page=2"
            async with session.get(wanted, allow_redirects=False) as answer:
                there = urlsplit(answer.headers["Location"])
            assert there.path == "/login"
            target = parse_qs(there.query)["next"][0]
            code = parse_qs(urlsplit(closed.login_url).query)["code"][0]
            form, headers = {"code": code, "next": target}, {"Origin": closed.url}
            async with session.post("/login", data=form, headers=headers, allow_redirects=False) as answer:
                assert (answer.status, answer.headers["Location"]) == (303, target)
            assert parse_qs(urlsplit(target).query) == {"q": ['a/b "c"'], "vm": ["🦊"], "page": ["2"]}
