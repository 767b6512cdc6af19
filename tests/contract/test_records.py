"""Contract, section 7: which records are found, in which order, a page or a table at a time; totals by VM and day."""

from __future__ import annotations

import asyncio
import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from app.config import Settings
from app.foundation import SCHEMAS
from app.model import Manifest
from app.records.index import RecordIndex
from app.state import State
from tests.contract.speech import RECORDS, Api
from tests.histories import SEC_NS, manifest_at
from tests.service import Service, running_service, service_environment

CSV = "/api/memory-dumps/records.csv"
STATS = "/api/memory-dumps/stats"
FIRST = datetime(2026, 3, 1, tzinfo=UTC)
NAMES = ["vm-web-01", "vm-db-02", 'quo"te', "back\\slash\\", "two\nlines", "emoji 🦊", "nul\x00", "100%_sure", "=cmd()", "n" * 4096]
EVERY_SEC = 3 * 3600
COUNT = 300


def made() -> list[Manifest]:
    """Oldest first: a dump every three hours, each of the next VM."""
    begin_ns = int(FIRST.timestamp()) * SEC_NS
    manifests = []
    for number in range(COUNT):
        vm = number % len(NAMES)
        record = manifest_at(begin_ns + number * EVERY_SEC * SEC_NS, dom=NAMES[vm], vmid=str(100 + vm))
        manifests.append(
            replace(record, uuid=f"00000000-0000-4000-8000-{vm:012d}", sha256=f"{number:064x}", gzip_size_bytes=1000 + number)
        )
    return manifests


MADE = made()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One that finds these records in its state file, and has no other."""
    folder = tmp_path_factory.mktemp("records")
    state_file = Settings.from_environment(service_environment(folder)).state_file
    state = State.open(state_file, *SCHEMAS)
    try:
        asyncio.run(RecordIndex(state).add_many(reversed(MADE)))
    finally:
        state.close()
    with running_service(folder) as started:
        yield started


def ids(records: Sequence[Any]) -> list[str]:
    return [record.dump_id if isinstance(record, Manifest) else record["dump_id"] for record in records]


async def found(api: Api, **parameters: str) -> list[str]:
    """What a query finds, newest first; the count and the table say the same."""
    page = await api.get(f"{RECORDS}?{urlencode(parameters, quote_via=quote)}")
    assert page["count"] == len(page["records"])
    assert [row["dump_id"] for row in await table(api, **parameters)] == ids(page["records"])
    return ids(page["records"])


async def table(api: Api, **parameters: str) -> list[dict[str, str]]:
    async with api.session.get(f"{CSV}?{urlencode(parameters, quote_via=quote)}") as answer:
        assert answer.status == 200
        text = (await answer.read()).decode()
    return list(csv.DictReader(io.StringIO(text, newline="")))


# --- filters


async def test_without_filters_all_are_found_newest_first(api: Api) -> None:
    assert await found(api) == ids(MADE[::-1])
    assert await found(api, order="asc") == ids(MADE)


@pytest.mark.parametrize("name", NAMES)
async def test_every_name_is_found_exactly_whole_and_in_part(api: Api, name: str) -> None:
    wanted = ids([record for record in MADE[::-1] if record.dom == name])
    assert await found(api, dom=name) == wanted
    piece = name[-100:]
    assert await found(api, q=piece) == wanted
    assert await found(api, q=piece.upper()) == wanted


async def test_dom_and_vmid_are_compared_whole(api: Api) -> None:
    assert await found(api, dom="vm-web") == []
    assert await found(api, vmid="10") == []
    assert await found(api, vmid="101") == ids([record for record in MADE[::-1] if record.vmid == "101"])
    assert await found(api, dom="vm-web-01", vmid="101") == []


async def test_a_piece_is_literal_and_may_be_of_a_hash_a_path_or_a_uuid(api: Api) -> None:
    assert await found(api, q="%") == ids([record for record in MADE[::-1] if "%" in record.dom])
    assert await found(api, q="' OR 1=1 --") == []
    assert await found(api, q=MADE[17].sha256) == [MADE[17].dump_id]
    assert await found(api, q=MADE[18].dump_path) == [MADE[18].dump_id]
    assert await found(api, q=MADE[2].uuid) == ids([record for record in MADE[::-1] if record.uuid == MADE[2].uuid])
    assert len(await found(api, q="")) == COUNT


async def test_a_day_and_a_range_end_before_their_end(api: Api) -> None:
    day = [record for record in MADE[::-1] if record.timestamp.startswith("2026-03-05")]
    assert len(day) == 8
    assert await found(api, date="2026-03-05") == ids(day)
    assert await found(api, **{"from": "2026-03-05", "to": "2026-03-06"}) == ids(day)
    assert await found(api, **{"from": day[-1].timestamp, "to": day[0].timestamp}) == ids(day[1:])
    assert await found(api, **{"from": "2026-03-05T01:00:00+01:00", "to": "2026-03-06T00:00:00.000Z"}) == ids(day)
    assert await found(api, date="2026-03-05", dom=day[0].dom) == [day[0].dump_id]
    assert await found(api, date="1999-01-01") == []


# --- pages


@pytest.mark.parametrize("order", ["desc", "asc"])
@pytest.mark.parametrize("more", [{}, {"dom": "vm-db-02"}, {"q": "vm-"}, {"from": "2026-03-04", "to": "2026-03-20"}])
async def test_pages_by_cursor_are_everything_once_in_order(api: Api, order: str, more: dict[str, str]) -> None:
    everything = await found(api, order=order, **more)
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = await api.get(f"{RECORDS}?{urlencode({**more, **cursor, 'order': order, 'limit': '7'})}")
        assert page["count"] == len(everything)
        assert page["offset"] == (None if cursor else 0)
        seen += ids(page["records"])
        if page["next_cursor"] is None:
            break
        assert len(page["records"]) == 7
        cursor = {"cursor": page["next_cursor"]}
    assert seen == everything


async def test_pages_by_offset_say_where_to_go_on_by_cursor(api: Api) -> None:
    page = await api.get(f"{RECORDS}?limit=10&offset=20")
    assert ids(page["records"]) == ids(MADE[::-1][20:30])
    after = await api.get(f"{RECORDS}?limit=10&cursor={page['next_cursor']}")
    assert ids(after["records"]) == ids(MADE[::-1][30:40])
    last = await api.get(f"{RECORDS}?limit=10&offset={COUNT - 10}")
    assert (len(last["records"]), last["next_cursor"]) == (10, None)


async def test_a_cursor_goes_with_its_order_and_without_offset(api: Api) -> None:
    cursor = (await api.get(f"{RECORDS}?limit=10&order=asc"))["next_cursor"]
    assert re.fullmatch(r"[A-Za-z0-9_-]+", cursor)
    for query in (f"cursor={cursor}", f"cursor={cursor}&order=desc", f"cursor={cursor}&order=asc&offset=0", "cursor=abc"):
        problem = await api.get(f"{RECORDS}?{query}", 400)
        assert (problem["code"], problem["place"]) == ("request-invalid", "cursor")


@pytest.mark.parametrize("path", [RECORDS, CSV])
@pytest.mark.parametrize(
    ("query", "place"),
    [
        ("date=2026-13-01", "date"),
        ("date=2026-03-05&from=2026-03-05", "date"),
        ("from=2026-03-06&to=2026-03-05", "to"),
        ("from=now", "from"),
        ("to=2026-03-05T00:00:00", "to"),
        ("order=newest", "order"),
        ("dom=a&dom=b", "dom"),
        ("vm=1", "vm"),
    ],
)
async def test_what_cannot_be_is_refused_by_name(api: Api, path: str, query: str, place: str) -> None:
    problem = await api.get(f"{path}?{query}", 400)
    assert (problem["code"], problem["place"]) == ("request-invalid", place)


# --- the table


async def test_the_table_is_a_file_with_a_row_of_names_and_one_for_each_record(api: Api) -> None:
    async with api.session.get(CSV) as answer:
        assert answer.headers["Content-Type"] == "text/csv; charset=utf-8; header=present"
        assert re.fullmatch(r'attachment; filename="memory-dumps-\d{4}-\d\d-\d\d\.csv"', answer.headers["Content-Disposition"])
        text = await answer.read()
    assert text.endswith(b"\r\n")
    rows = list(csv.reader(io.StringIO(text.decode(), newline="")))
    assert len(rows) == 1 + COUNT
    assert rows[0][:5] == ["dump_id", "timestamp", "dom", "vmid", "uuid"]
    assert {len(row) for row in rows} == {len(rows[0])}
    async with api.session.get(f"{CSV}?limit=1") as answer:
        assert answer.status == 400


async def test_in_the_table_names_are_exact_and_what_a_spreadsheet_would_run_is_disarmed(api: Api) -> None:
    names = {row["dom"] for row in await table(api)}
    assert names == {*NAMES} - {"=cmd()"} | {"'=cmd()"}


# --- totals


async def test_totals_by_vm_are_those_of_its_records(api: Api) -> None:
    answer = await api.get(f"{STATS}?by=vm")
    assert (answer["by"], answer["from"], answer["to"]) == ("vm", None, None)
    assert sorted(vm["dom"] for vm in answer["vms"]) == sorted(NAMES)
    (web,) = [vm for vm in answer["vms"] if vm["dom"] == "vm-web-01"]
    records = [record for record in MADE if record.dom == "vm-web-01"]
    assert (web["total_dumps"], web["vmid"], web["uuid"]) == (len(records), "100", records[0].uuid)
    assert web["total_size_bytes"] == sum(record.gzip_size_bytes for record in records)
    assert (web["avg_duration_sec"], web["last_dump"]) == (pytest.approx(5.0), records[-1].timestamp)
    assert (web["avg_pause_ms"], web["longest_pause_ms"]) == (pytest.approx(14.2), pytest.approx(14.2))


async def test_totals_by_day_are_those_within_the_range(api: Api) -> None:
    answer = await api.get(f"{STATS}?by=day&from=2026-03-05T12:00:00Z&to=2026-03-08")
    assert (answer["from"], answer["to"]) == ("2026-03-05T12:00:00.000000Z", "2026-03-08T00:00:00.000000Z")
    assert [(day["day"], day["total_dumps"]) for day in answer["days"]] == [("2026-03-05", 4), ("2026-03-06", 8), ("2026-03-07", 8)]
    everything = (await api.get(f"{STATS}?by=day"))["days"]
    assert sum(day["total_dumps"] for day in everything) == COUNT == (await api.get(STATS))["total_dumps"]


@pytest.mark.parametrize(
    ("query", "place"), [("by=hour", "by"), ("from=2026-03-05", "from"), ("to=2026-03-05", "to"), ("by=day&from=x", "from")]
)
async def test_totals_that_cannot_be_are_refused_by_name(api: Api, query: str, place: str) -> None:
    assert (await api.get(f"{STATS}?{query}", 400))["place"] == place


@pytest.mark.parametrize("name", ["\U0001f600" * 1024, "\u00e9" * 2048, "x" * 4096])
async def test_a_name_of_4_kib_can_be_asked_for(api: Api, name: str) -> None:
    for parameter in ("dom", "vmid", "q"):
        assert (await api.get(f"{RECORDS}?{urlencode({parameter: name})}"))["count"] == 0
