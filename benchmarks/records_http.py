"""The same million records through a real service, over HTTP on loopback; and what the service costs without InfluxDB."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

from benchmarks import event_loop
from benchmarks.figures import Figure, in_turn, median, spread
from benchmarks.records import RECORDS, Shelf, manifest, shelf
from tests.service import PROGRAM, Service, running_service

_RECORDS = "/api/memory-dumps/records"
_STATS = "/api/memory-dumps/stats"
_YEAR = {"from": "2025-03-04T05:06:07Z", "to": "2026-03-04T05:06:07Z"}
_TIMES, _SLOW_TIMES, _PAIRS = 200, 100, 1000
_ONE_VM = "vm-web-000"
_MORE_MS = 50
_COMMITS = 2000
_AS_MUCH = 1.05
_NOT_INSTALLED = "import sys; sys.modules['influxdb_client_3'] = None; import runpy; runpy.run_module('app', run_name='__main__')"


@dataclass(slots=True, kw_only=True)
class Desk(Shelf):
    """The million, and a service that answers from it; an idle loop ticks beside it."""

    folder: Path
    service: Service
    gaps: Path
    idle_gaps: Path
    asking: list[tuple[float, float]] = field(default_factory=list)
    """When the service was asked something: begin and end of each line."""

    @contextlib.contextmanager
    def connection(self) -> Iterator[http.client.HTTPConnection]:
        since = time.monotonic()
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.service.port, timeout=600)) as connection:
            yield connection
        self.asking.append((since, time.monotonic()))


@contextlib.contextmanager
def desk(folder: Path) -> Iterator[Desk]:
    """Make the file, then serve it."""
    with (
        shelf(folder) as of,
        event_loop.watched_service(folder / "service", MEMDUMP_STATE_DIR=str(of.file.parent)) as (service, gaps),
        event_loop.idle_loop(folder / "idle.gaps") as idle_gaps,
    ):
        yield Desk(of.index, of.random, of.file, folder=folder, service=service, gaps=gaps, idle_gaps=idle_gaps)


Query = Callable[[Desk], dict[str, str]]


def _day(of: Desk) -> str:
    return of.any().timestamp[:10]


def _cursor(of: Desk, connection: http.client.HTTPConnection) -> str:
    """One that leads to somewhere in the middle."""
    at = of.any().timestamp
    page = json.loads(_get(connection, _RECORDS, {"to": at, "limit": "1"}, of.service.headers))
    return str(page["next_cursor"])


def _get(
    connection: http.client.HTTPConnection, path: str, query: dict[str, str], headers: dict[str, str], status: int = 200
) -> bytes:
    connection.request("GET", f"{path}?{urlencode(query)}", headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != status:
        raise AssertionError(f"{path} {query}: {answer.status} {body!r}")
    return body


QUESTIONS: tuple[tuple[str, float, int, str, Query], ...] = (
    ("first page of 50", 5, _TIMES, _RECORDS, lambda _: {"limit": "50"}),
    ("first page of one VM", 5, _TIMES, _RECORDS, lambda of: {"limit": "50", "dom": of.any().dom}),
    ("first page of one day", 10, _TIMES, _RECORDS, lambda of: {"limit": "50", "date": _day(of)}),
    ("page at offset 500,000", 50, _TIMES, _RECORDS, lambda _: {"limit": "50", "offset": str(RECORDS // 2)}),
    ("eight characters of a hash", 50, _TIMES, _RECORDS, lambda of: {"limit": "50", "q": of.any().sha256[20:28]}),
    ("a VM's name", 50, _TIMES, _RECORDS, lambda of: {"limit": "50", "q": of.any().dom}),
    ("three characters that are nowhere", 50, _TIMES, _RECORDS, lambda _: {"limit": "50", "q": "zqx"}),
    ("two characters", 1500, _SLOW_TIMES, _RECORDS, lambda of: {"limit": "50", "q": of.any().sha256[:2]}),
    ("totals", 3, _TIMES, _STATS, lambda _: {}),
    ("totals by day of a year", 50, _TIMES, _STATS, lambda _: {"by": "day", **_YEAR}),
)


def _answering(claim: str, bound_ms: float, times: int, path: str, query: Query) -> Callable[[Desk], Figure]:
    def figure(of: Desk) -> Figure:
        took = []
        with of.connection() as connection:
            for _ in range(times):
                asked = query(of)
                since = time.perf_counter()
                _get(connection, path, asked, of.service.headers)
                took.append((time.perf_counter() - since) * 1000)
        return _p95(claim, took, bound_ms)

    figure.__qualname__ = claim.replace(" ", "_")
    return figure


def by_cursor_anywhere(of: Desk) -> Figure:
    """The page behind any place of the million."""
    took = []
    with of.connection() as connection:
        for _ in range(_TIMES):
            cursor = _cursor(of, connection)
            since = time.perf_counter()
            _get(connection, _RECORDS, {"limit": "50", "cursor": cursor}, of.service.headers)
            took.append((time.perf_counter() - since) * 1000)
    return _p95("page by cursor anywhere", took, 5)


def foreign_and_unknown(of: Desk) -> Figure:
    """Neither is found: how long that takes must not tell which of the two it was."""
    with of.connection() as connection:
        headers = _headers_for_one_vm(of, connection)

        def not_found(dump_id: str) -> float:
            since = time.perf_counter()
            _get(connection, f"{_RECORDS}/{dump_id}", {}, headers, status=404)
            return (time.perf_counter() - since) * 1000

        foreign, unknown = in_turn(
            lambda: not_found(_foreign(of)), lambda: not_found(f"{_foreign(of)[:24]}{'f' * 12}"), runs=_PAIRS
        )
    ratio = median(foreign) / median(unknown)
    return Figure(
        claim="over HTTP, of a million records: one outside of the caller's scope, against one that there is not (404)",
        ours=spread(foreign, "ms"),
        baseline=spread(unknown, "ms"),
        ratio=f"{ratio:.3f} times",
        bound=f"{_AS_MUCH} times",
        met=1 / _AS_MUCH <= ratio <= _AS_MUCH,
    )


def _headers_for_one_vm(of: Desk, connection: http.client.HTTPConnection) -> dict[str, str]:
    body = json.dumps({"label": "of one VM", "role": "viewer", "vms": [_ONE_VM]})
    connection.request("POST", "/api/tokens", body, headers={**of.service.headers, "Content-Type": "application/json"})
    answer = connection.getresponse()
    made = json.loads(answer.read())
    if answer.status != 201:
        raise AssertionError(made)
    return {"Authorization": f"Bearer {made['secret']}"}


def _foreign(of: Desk) -> str:
    return next(record.dump_id for record in iter(of.any, None) if record.dom != _ONE_VM)


def _p95(claim: str, took: list[float], bound_ms: float) -> Figure:
    p95_ms = statistics.quantiles(took, n=20)[-1]
    return Figure(
        claim=f"over HTTP, of a million records: {claim}",
        ours=f"{statistics.median(took):.2f} ms",
        baseline="—",
        ratio=f"p95 {p95_ms:.2f} ms",
        bound=f"{bound_ms:g} ms",
        met=p95_ms <= bound_ms,
    )


def table_of_all(of: Desk) -> Figure:
    """The CSV of everything: rows a second, and how much the service's memory grows meanwhile."""
    pid = of.service.process.pid
    before_kib = _status_kib(pid, "VmRSS")
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak begins anew
    rows, since = -1, time.perf_counter()  # the first one is of names
    with of.connection() as connection:
        connection.request("GET", f"{_RECORDS}.csv", headers=of.service.headers)
        answer = connection.getresponse()
        while part := answer.read(1 << 20):
            rows += part.count(b"\n")
    per_sec = rows / (time.perf_counter() - since)
    more_mib = (_status_kib(pid, "VmHWM") - before_kib) / 1024
    return Figure(
        claim=f"over HTTP: a table (CSV) of all {rows:,} records",
        ours=f"{per_sec:,.0f} rows/s, {more_mib:.1f} MiB more memory",
        baseline="—",
        ratio=f"{per_sec:,.0f} rows/s",
        bound="at least 40,000 rows/s, 30 MiB",
        met=rows >= RECORDS and per_sec >= 40_000 and more_mib <= 30,
    )


def durable_commits(of: Desk) -> Figure:
    """Single records, each in a transaction of its own, while the service that uses the same file tells of each."""
    since = time.monotonic()
    with contextlib.closing(asyncio.new_event_loop()) as loop:
        for _ in range(_COMMITS):
            of.extra += 1
            loop.run_until_complete(of.index.add(manifest(RECORDS + of.extra)))
    until = time.monotonic()
    of.asking.append((since, until))
    per_sec = _COMMITS / (until - since)
    return Figure(
        claim="beside a service on a million records: durable commits of single records",
        ours=f"{per_sec:,.0f}/s",
        baseline="—",
        ratio=f"{per_sec:,.0f}/s",
        bound="at least 300/s",
        met=per_sec >= 300,
    )


def longest_gap(of: Desk) -> Figure:
    """Of the service's event loop during each of the lines above, against an idle loop beside it meanwhile; the worst of them."""
    each = [(event_loop.longest_ms(of.gaps, *span), event_loop.longest_ms(of.idle_gaps, *span)) for span in of.asking]
    ours, idle = max(each, key=lambda gaps: gaps[0] - gaps[1])
    return Figure(
        claim="over HTTP: longest gap of the service's event loop during all of this, against an idle loop beside it",
        ours=f"{ours:.1f} ms",
        baseline=f"{idle:.1f} ms",
        ratio=f"{ours - idle:+.1f} ms",
        bound=f"+{_MORE_MS} ms",
        met=ours - idle <= _MORE_MS,
    )


def memory_without_influxdb(of: Desk) -> Figure:
    """Of a service without ``INFLUX_URL``, against one that cannot import InfluxDB's client."""
    ours, baseline = in_turn(lambda: _start(of)[0], lambda: _start(of, _NOT_INSTALLED)[0])
    return _as_if_not_installed("memory", ours, baseline, "MiB")


def start_without_influxdb(of: Desk) -> Figure:
    """The same for the time until it serves."""
    ours, baseline = in_turn(lambda: _start(of)[1], lambda: _start(of, _NOT_INSTALLED)[1])
    return _as_if_not_installed("time to start", ours, baseline, "s")


def _as_if_not_installed(what: str, ours: list[float], baseline: list[float], unit: str) -> Figure:
    ratio = median(ours) / median(baseline)
    return Figure(
        claim=f"{what} of the service without INFLUX_URL, against one where influxdb3-python is not installed",
        ours=spread(ours, unit),
        baseline=spread(baseline, unit),
        ratio=f"{ratio:.3f} times",
        bound=f"{_AS_MUCH} times",
        met=ratio <= _AS_MUCH,
    )


def _start(of: Desk, script: str | None = None) -> tuple[float, float]:
    """A service of its own: its memory in MiB when it serves, and seconds until then."""
    program = PROGRAM if script is None else (sys.executable, "-c", script)
    since = time.perf_counter()
    with running_service(of.folder / "started", program=program) as service:
        took_sec = time.perf_counter() - since
        return _status_kib(service.process.pid, "VmRSS") / 1024, took_sec


def _status_kib(pid: int, name: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


CLAIMS: tuple[Callable[[Desk], Figure], ...] = (
    *(_answering(*question) for question in QUESTIONS),
    by_cursor_anywhere,
    foreign_and_unknown,
    table_of_all,
    durable_commits,
    longest_gap,
    memory_without_influxdb,
    start_without_influxdb,
)
