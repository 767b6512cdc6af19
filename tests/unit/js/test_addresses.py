"""The page and the server understand the same addresses, and those that either of them writes."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from yarl import URL

from app.web.listing import ListQuery, understood
from tests.unit.js.test_page_modules import FORMAT, NODE

ADDRESS = FORMAT.with_name("address.js")
QUERIES = (
    "", "q=web", "q=a+b%26c%3D&vm=%F0%9F%A6%8A", "q=&date=", "q=one&q=two", "foo=1&q=x", "page=3", "page=0", "page=-1", "page=1.5",
    "page=1000000000", "page=1000000001", "limit=25", "limit=250", "limit=26", "order=asc", "order=ASC", "sizes=stored", "sizes=x",
    "date=2026-11-23", "date=2026-02-29", "date=2024-02-29", "date=0000-01-01", "date=0001-01-01", "date=23.11.2026",
    "from=2026-11-01&to=2026-11-23", "to=2026-11-01&from=2026-11-23", "from=2026-11-23&to=2026-11-23",
    "date=2026-11-23&to=2026-11-24",
    "from=2026-11-24&date=2026-11-23", "from=2026-11-23T10:30:00Z", "from=2026-11-23t10:30:00.5z",
    "from=2026-11-23T10:30:00%2B02:00",
    "from=2026-11-23T24:00:00Z", "from=2026-11-23T10:60:00Z", "from=2026-11-23T10:30Z", "from=2026-11-31T10:30:00Z", "to=now",
    "vm=x&from=2026-11-01&order=asc&page=2&limit=100&sizes=stored&q=%C3%A4", "constructor=1&toString=2", "q=%FF&vm=%00",
)  # fmt: skip

_READ_ALL = """
import { readFileSync } from "node:fs";
import { filtersOf, format, parse } from %s;
const asked = JSON.parse(readFileSync(0, "utf8"));
console.log(JSON.stringify(asked.map((query) => [parse(query), format(parse(query)), String(filtersOf(parse(query)))])));
"""


def read_by_the_page(queries: list[str]) -> list[Any]:
    command = [str(NODE), "--input-type=module", "--eval", _READ_ALL % json.dumps(ADDRESS.as_uri())]
    run = subprocess.run(command, input=json.dumps(queries), capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    found: list[Any] = json.loads(run.stdout)
    return found


def as_the_page_has_it(view: ListQuery) -> dict[str, object]:
    texts: dict[str, object] = {"from": view.since, "to": view.until, "q": view.q, "date": view.date, "vm": view.vm}
    rest: dict[str, object] = {"order": view.order, "page": view.page, "limit": int(view.limit), "sizes": view.sizes}
    return {name: text or "" for name, text in texts.items()} | rest


def test_the_page_and_the_server_understand_the_same_addresses() -> None:
    queries = [query for query in QUERIES if "%FF" not in query]
    for query, (view, address, filters) in zip(queries, read_by_the_page(queries), strict=True):
        server, _ = understood(URL(f"/?{query}", encoded=True).query)
        assert view == as_the_page_has_it(server), query
        assert URL(address) == URL(server.address()), query
        assert sorted(URL(f"?{filters}").query.items()) == sorted(URL(server.csv).query.items()), query


def test_no_address_breaks_the_server() -> None:
    for query in QUERIES:
        view, _ = understood(URL(f"/?{query}", encoded=True).query)
        assert understood(URL(view.address()).query)[0] == view
