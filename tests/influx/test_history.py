"""``History``: what is written comes back exactly, every wait is bounded, and each kind of failure is told apart.

Where a test names ``influx`` it runs against a real server too; where it names ``stand_in`` it needs its switches.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from influxdb_client_3 import InfluxDBClient3

from app.errors import (
    HistoryError,
    HistoryFailed,
    HistoryRefused,
    HistoryTooWide,
    HistoryTypeConflict,
    HistoryUnreachable,
    HistoryWrongUrl,
)
from app.model import Manifest, rfc3339
from app.records.influx import History
from app.records.point import UNKNOWN, Point, point_of, record_of
from tests.influx.conftest import Influx
from tests.influx.stand_in import StandIn
from tests.service import ROOT
from tests.unit.test_point import AWKWARD, RECORD, records, texts

EVER = (0, 2**63 - 1)
T0 = 1_795_429_800_000_000_000
MINUTE_NS = 60 * 10**9
LONG_SEC = 60.0

POINT = point_of(RECORD)

Use = Callable[[History], object]
USES: tuple[Use, ...] = (lambda history: history.write_now([POINT]), lambda history: history.window_now(*EVER, limit=1))
either_way = pytest.mark.parametrize("use", USES, ids=["writing", "reading"])


def at(time_ns: int, record: Manifest = RECORD) -> Manifest:
    return replace(record, timestamp=rfc3339(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_ns // 1000)))


@pytest.fixture
async def history(influx: Influx) -> AsyncIterator[History]:
    made = History(influx.url, influx.database, influx.token)
    yield made
    await made.close()


@pytest.fixture
async def impatient(stand_in: StandIn) -> AsyncIterator[History]:
    made = History(stand_in.url, stand_in.database, stand_in.token, timeout_sec=0.5)
    yield made
    await made.close()


async def everything(history: History) -> list[Manifest]:
    return [record_of(row) for row in await history.window(*EVER, limit=10_000)]


# --- what comes back ----------------------------------------------------------------------------------------------


async def test_before_the_first_point_there_is_nothing(history: History) -> None:
    assert await history.window(*EVER, limit=10) == []


async def test_a_database_without_our_table_has_nothing(influx: Influx, history: History) -> None:
    with InfluxDBClient3(host=influx.url, database=influx.database, token=influx.token) as other:
        other.write(f"others v=1 {T0}")
    assert await history.window(*EVER, limit=10) == []


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(several=st.lists(records(), min_size=1, max_size=5), number=st.integers())
def test_records_come_back_exactly(influx: Influx, several: list[Manifest], number: int) -> None:
    """Each example writes into an hour of its own."""
    start_ns = next(_hours)
    sent = [at(start_ns + place * 1000, record) for place, record in enumerate(several)]
    history = History(influx.url, influx.database, influx.token)
    history.write_now([point_of(record) for record in sent])
    rows = history.window_now(start_ns, start_ns + 60 * MINUTE_NS, limit=100)
    history.close_now()
    assert [record_of(row) for row in rows] == sent


_hours = (T0 + hour * 60 * MINUTE_NS for hour in itertools.count())


async def test_every_awkward_text_comes_back_exactly(history: History) -> None:
    sent = [
        at(T0 + place * 1000, replace(RECORD, dom=text, vmid=text, dump_path=text, reason=text))
        for place, text in enumerate(AWKWARD)
    ]
    await history.write([point_of(record) for record in sent])
    assert await everything(history) == sent


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(doms=st.lists(texts, min_size=2, max_size=4, unique=True))
def test_vms_of_the_same_moment_stay_apart(influx: Influx, doms: list[str]) -> None:
    start_ns = next(_hours)
    history = History(influx.url, influx.database, influx.token)
    history.write_now([point_of(at(start_ns, replace(RECORD, dom=dom))) for dom in doms])
    rows = history.window_now(start_ns, start_ns + 1, limit=100)
    history.close_now()
    assert sorted(record_of(row).dom for row in rows) == sorted(doms)


async def test_a_window_has_its_beginning_and_not_its_end_and_is_in_order(history: History) -> None:
    moments = [T0 + step * 1000 for step in range(5)]
    await history.write([point_of(at(moment)) for moment in reversed(moments)])

    async def times(since_ns: int, until_ns: int, limit: int = 10) -> list[object]:
        return [row["time"] for row in await history.window(since_ns, until_ns, limit=limit)]

    assert await times(*EVER) == moments
    assert await times(moments[1], moments[3]) == moments[1:3]
    assert await times(moments[1] + 1, moments[3] + 1) == moments[2:4]
    assert await times(*EVER, limit=2) == moments[:2]
    assert await times(-(2**70), 2**70) == moments


@pytest.mark.parametrize("microsecond", [1, 999, 1000, 1001, 123_456, 999_999])
async def test_a_time_is_exact(history: History, microsecond: int) -> None:
    await history.write([point_of(replace(RECORD, timestamp=f"2026-11-23T10:30:00.{microsecond:06d}Z"))])
    (row,) = await history.window(*EVER, limit=10)
    assert row["time"] == T0 + microsecond * 1000
    assert record_of(row).timestamp == f"2026-11-23T10:30:00.{microsecond:06d}Z"


async def test_a_whole_duration_does_not_make_the_column_whole(history: History) -> None:
    await history.write([point_of(at(T0, replace(RECORD, duration_sec=5)))])
    await history.write([point_of(at(T0 + 1000, replace(RECORD, duration_sec=5.5)))])
    assert [record.duration_sec for record in await everything(history)] == [5.0, 5.5]


async def test_a_point_sent_again_is_the_same_point(history: History) -> None:
    await history.write([POINT])
    await history.write([POINT])
    assert await everything(history) == [RECORD]


async def test_more_points_than_one_request_takes_all_arrive(history: History) -> None:
    sent = [at(T0 + place * 1000, replace(RECORD, dump_id=str(uuid.UUID(int=place)))) for place in range(250)]
    await history.write([point_of(record) for record in sent])
    assert await everything(history) == sent


async def test_long_texts_are_spread_over_requests(history: History) -> None:
    """Together they are more than InfluxDB takes in one body (10 MiB)."""
    sent = [at(T0 + place * 1000, replace(RECORD, reason=f"{place} " + "x" * 200_000)) for place in range(60)]
    await history.write([point_of(record) for record in sent])
    assert await everything(history) == sent


async def test_another_programs_nine_columns_and_more_are_records(influx: Influx, history: History) -> None:
    with InfluxDBClient3(host=influx.url, database=influx.database, token=influx.token) as other:
        other.write(
            'mem_dumps,dom=vm-old,vmid=7 sha256="ab",duration_sec=3,gzip_size_bytes=9i,ctime=1i,mtime=2i,atime=3i,'
            f'dump_path="/d/7_1.mem.zst",colour="blue",exact=1i {T0 + 7}'
        )
    (found,) = await everything(history)
    assert (found.dom, found.vmid, found.sha256, found.duration_sec, found.gzip_size_bytes) == ("vm-old", "7", "ab", 3.0, 9)
    assert (found.ctime, found.mtime, found.atime, found.dump_path) == (1, 2, 3, "/d/7_1.mem.zst")
    assert (found.timestamp, found.compression.algorithm, found.warnings) == ("2026-11-23T10:30:00.000000Z", "zstd", (UNKNOWN,))


async def test_writing_nothing_is_no_request(stand_in: StandIn, history: History) -> None:
    await history.write([])
    assert await history.window(*EVER, limit=1) == []


# --- points that are refused --------------------------------------------------------------------------------------


async def test_only_the_points_of_a_type_conflict_are_refused_and_named(history: History) -> None:
    await history.write([Point("vm", "1", T0, {"case": 1})])
    wrong = {0, 99, 100, 101, 249}
    sent = [at(T0 + (place + 1) * 1000, replace(RECORD, case="x" if place in wrong else None)) for place in range(250)]
    with pytest.raises(HistoryTypeConflict, match="5 of the records") as refused:
        await history.write([point_of(record) for record in sent])
    assert set(refused.value.refused) == wrong
    assert all("case" in why for why in refused.value.refused.values())
    assert (await everything(history))[1:] == [record for place, record in enumerate(sent) if place not in wrong]


async def test_a_conflict_for_every_point_names_every_point(history: History) -> None:
    await history.write([Point("vm", "1", T0, {"duration_sec": "long"})])
    with pytest.raises(HistoryTypeConflict) as refused:
        await history.write([point_of(at(T0 + step * 1000)) for step in (1, 2, 3)])
    assert set(refused.value.refused) == {0, 1, 2}


@pytest.mark.parametrize(
    "body",
    [
        {"error": "partial write of line protocol occurred"},
        {"error": "partial write of line protocol occurred", "data": [{"error_message": "no", "line_number": 99}]},
        {"error": "partial write of line protocol occurred", "data": [{"error_message": "no"}]},
        {"error": "line protocol parsing error", "data": {"error_message": "no", "line_number": 0, "original_line": ""}},
    ],
)
async def test_when_it_is_not_said_which_points_are_refused_each_is_asked_alone(body: object) -> None:
    def answer(asked: bytes) -> tuple[int, str]:
        return (400, json.dumps(body)) if b"dom=bad" in asked else (204, "")

    points = [Point(dom, "1", T0 + place, {"sha256": "a"}) for place, dom in enumerate(["a", "bad", "c", "bad"])]
    with WebServer(answer) as server:
        history = History(server.url, "db", None)
        with pytest.raises(HistoryTypeConflict) as refused:
            await history.write(points)
        await history.close()
    assert set(refused.value.refused) == {1, 3}


@pytest.mark.parametrize(
    ("status", "text"), [(400, '{"error": "invalid database name"}'), (422, '{"error": "too many"}'), (500, "")]
)
async def test_another_error_sets_no_point_aside(status: int, text: str) -> None:
    with WebServer(lambda asked: (status, text) if asked else (200, "")) as server:
        history = History(server.url, "db", None)
        with pytest.raises(HistoryFailed, match=str(status)):
            await history.write([POINT])
        await history.close()


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (
            401,
            '{"error": "the request was not authenticated"}',
            "refuses the token: status 401, the request was not authenticated.",
        ),
        (401, '{"code": "unauthorized", "message": "who is it"}', "refuses the token: status 401, unauthorized: who is it."),
        (403, '{"error": "forbidden"}', "knows the token, but does not let it use the database 'db': status 403, forbidden."),
        (404, '{"error": "database not found"}', "status 404: database not found. Make the database 'db' there"),
        (404, "<html><body>nginx</body></html>", "the address for writing is not known there"),
        (400, '{"error": "invalid database name"}', "It does not take 'db' as the name of a database"),
    ],
)
async def test_a_refusal_is_told_in_influxdbs_words_and_with_what_to_do(status: int, body: str, told: str) -> None:
    with WebServer(lambda asked: (status, body) if asked else (200, "")) as server:
        history = History(server.url, "db", "a-token")
        with pytest.raises(HistoryError) as refused:
            await history.write([POINT])
        await history.close()
    assert told in str(refused.value)
    assert "a-token" not in str(refused.value)


# --- tokens -------------------------------------------------------------------------------------------------------


@either_way
async def test_a_wrong_token_is_told(influx: Influx, use: Use) -> None:
    history = History(influx.url, influx.database, "wrong")
    with pytest.raises(HistoryRefused, match="INFLUX_TOKEN"):
        use(history)
    await history.close()


@either_way
async def test_a_token_that_is_withdrawn_is_told(stand_in: StandIn, history: History, use: Use) -> None:
    use(history)
    stand_in.refusing()
    with pytest.raises(HistoryRefused):
        use(history)
    stand_in.well()
    use(history)


@either_way
async def test_white_space_around_a_token_does_not_matter(influx: Influx, use: Use) -> None:
    history = History(influx.url, influx.database, f" {influx.token}\n")
    use(history)
    await history.close()


@pytest.mark.parametrize("token", ["a\nb", "tökän", "a\0"])
def test_a_token_that_no_header_can_carry_is_refused_at_once(token: str) -> None:
    with pytest.raises(HistoryRefused):
        History("http://127.0.0.1:8181", "db", token)


@pytest.mark.parametrize("token", [None, "", " "])
async def test_without_a_token_the_header_is_still_one_that_servers_take(token: str | None) -> None:
    with WebServer(lambda _: (204, "")) as server:
        history = History(server.url, "db", token)
        await history.write([POINT])
        await history.close()
    assert all(re.fullmatch(r"Bearer \S+", header) for header in server.authorizations)


# --- URLs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "",
        "influx",
        "influx.example.org:8181",
        "127.0.0.1:8181",
        "ftp://influx",
        "grpc://influx",
        "http://",
        "http://influx:0x1",
        "http://influx:99999",
        "http://influx:8181/path",
        "http://me:secret@influx:8181",
        "http://influx:8181/?a=b",
        "http://influx:8181#a",
    ],
)
def test_what_is_no_url_of_a_server_is_told_at_once(url: str) -> None:
    with pytest.raises(HistoryWrongUrl, match=r"like http://influx\.example\.org:8181"):
        History(url, "db", None)


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("http://127.0.0.1", "http://127.0.0.1:80"),
        ("https://127.0.0.1/", "https://127.0.0.1:443"),
        ("http://127.0.0.1:1/", "http://127.0.0.1:1"),
        ("http://[::1]", "http://[::1]:80"),
    ],
)
def test_a_url_without_a_port_means_the_port_of_its_scheme(url: str, meant: str) -> None:
    """And says so, since that is the first thing to check. (The client would go to 443 for every scheme.)"""
    history = History(url, "db", None, timeout_sec=LONG_SEC)
    with pytest.raises(HistoryError, match=re.escape(meant)):
        history.window_now(*EVER, limit=1)
    history.close_now()


@either_way
@pytest.mark.parametrize("status", [200, 204, 301, 404, 405])
async def test_a_web_server_that_is_not_influxdb_is_told(use: Use, status: int) -> None:
    """Though it says yes to everything, nothing counts as delivered."""
    with WebServer(lambda _: (status, "<html>Welcome</html>" if status != 204 else ""), version=None) as server:
        history = History(server.url, "db", None)
        with pytest.raises(HistoryWrongUrl):
            use(history)
        await history.close()


@either_way
async def test_an_older_influxdb_is_told(use: Use) -> None:
    with WebServer(lambda _: (204, ""), version="v2.7.1") as server:
        history = History(server.url, "db", None)
        with pytest.raises(HistoryWrongUrl, match=r"v2\.7\.1"):
            use(history)
        await history.close()


async def test_a_proxy_that_lets_no_queries_through_is_told() -> None:
    with WebServer(lambda _: (204, "")) as server:
        history = History(server.url, "db", None)
        await history.write([POINT])
        with pytest.raises(HistoryWrongUrl, match="gRPC"):
            await history.window(*EVER, limit=1)
        await history.close()


@either_way
async def test_tls_where_there_is_none_is_told(stand_in: StandIn, use: Use) -> None:
    history = History(stand_in.url.replace("http:", "https:"), stand_in.database, stand_in.token)
    with pytest.raises(HistoryWrongUrl, match="TLS"):
        use(history)
    await history.close()


async def test_another_server_at_the_same_place_is_noticed() -> None:
    with WebServer(lambda _: (204, "")) as server:
        history = History(server.url, "db", None)
        await history.write([POINT])
        server.answer = lambda _: (503, "")
        with pytest.raises(HistoryUnreachable):
            await history.write([POINT])
        server.answer, server.version = lambda _: (200, "Under construction"), None
        with pytest.raises(HistoryWrongUrl):
            await history.write([POINT])
        await history.close()


# --- away, slow, failing ------------------------------------------------------------------------------------------


@either_way
async def test_a_refused_connection_is_told(stand_in: StandIn, history: History, use: Use) -> None:
    stand_in.down()
    with pytest.raises(HistoryUnreachable, match="refused"):
        use(history)
    stand_in.up()


@either_way
async def test_an_unknown_host_is_told(use: Use) -> None:
    history = History("http://no-such-host.invalid:8181", "db", None)
    with pytest.raises(HistoryUnreachable, match=r"no-such-host\.invalid"):
        use(history)
    await history.close()


@either_way
@pytest.mark.parametrize("host", ["a..b", "x" * 64])
async def test_a_host_that_can_be_none_is_told(use: Use, host: str) -> None:
    history = History(f"http://{host}:8181", "db", None)
    with pytest.raises(HistoryWrongUrl):
        use(history)
    await history.close()


async def test_a_server_that_comes_back_is_used_within_seconds(stand_in: StandIn, history: History) -> None:
    """By itself gRPC would wait longer after each try, up to minutes."""
    await history.write([POINT])
    await history.window(*EVER, limit=1)
    stand_in.down()
    for _ in range(20):
        with pytest.raises(HistoryUnreachable):
            await history.window(*EVER, limit=1)
        with pytest.raises(HistoryUnreachable):
            await history.write([point_of(at(T0))])
    stand_in.up()
    await history.write([point_of(at(T0))])
    async with asyncio.timeout(10):
        while not await _answers(history):
            pass
    assert await everything(history) == [at(T0), RECORD]


async def _answers(history: History) -> bool:
    try:
        return bool(await history.window(*EVER, limit=1))
    except HistoryUnreachable:
        return False


@pytest.mark.parametrize("met", [True, False], ids=["in-use", "new"])
async def test_a_server_that_does_not_answer_is_waited_for_no_longer_than_allowed(
    stand_in: StandIn, impatient: History, met: bool
) -> None:
    if met:
        await impatient.window(*EVER, limit=1)
    stand_in.slow(LONG_SEC)
    async with asyncio.timeout(LONG_SEC / 2):
        with pytest.raises(HistoryUnreachable, match=r"no answer within 0\.5 s"):
            await impatient.write([POINT])
        with pytest.raises(HistoryUnreachable, match=r"no answer within 0\.5 s"):
            await impatient.window(*EVER, limit=1)
    stand_in.well()


@either_way
@pytest.mark.parametrize("met", [True, False], ids=["in-use", "new"])
def test_the_same_for_a_program_without_an_event_loop(stand_in: StandIn, use: Use, met: bool) -> None:
    history = History(stand_in.url, stand_in.database, stand_in.token, timeout_sec=0.5)
    if met:
        use(history)
    stand_in.slow(LONG_SEC)
    with pytest.raises(HistoryUnreachable, match=r"no answer within 0\.5 s"):
        use(history)
    history.close_now()


@either_way
def test_a_port_that_accepts_and_never_speaks_is_no_answer(use: Use) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        history = History(f"http://127.0.0.1:{silent.getsockname()[1]}", "db", None, timeout_sec=0.5)
        with pytest.raises(HistoryUnreachable, match="no answer"):
            use(history)
        history.close_now()


async def test_an_answer_that_never_ends_does_not_hold_the_caller() -> None:
    """Each byte comes in time, the whole never does."""
    with Dripping() as server:
        history = History(server.url, "db", None, timeout_sec=0.5)
        async with asyncio.timeout(LONG_SEC):
            with pytest.raises(HistoryUnreachable, match="no answer"):
                await history.write([POINT])
            with pytest.raises(HistoryUnreachable, match="no answer"):
                await history.window(*EVER, limit=1)
    await history.close()


@either_way
@pytest.mark.parametrize(
    ("status", "kind"),
    [(500, HistoryFailed), (503, HistoryUnreachable), (401, HistoryRefused), (403, HistoryRefused), (404, HistoryError)],
)
async def test_a_failing_server_is_told_by_kind(
    stand_in: StandIn, history: History, use: Use, status: int, kind: type[HistoryError]
) -> None:
    use(history)
    stand_in.failing(status)
    with pytest.raises(kind):
        use(history)
    stand_in.well()
    use(history)


@pytest.mark.parametrize("width", [1, 2])
async def test_a_window_of_too_many_files_is_told_and_a_smaller_one_answers(width: int) -> None:
    with StandIn(file_limit=2) as server:
        history = History(server.url, server.database, server.token)
        moments = [T0 + slot * 10 * MINUTE_NS for slot in range(5)]
        await history.write([point_of(at(moment)) for moment in moments])
        with pytest.raises(HistoryTooWide, match="smaller window"):
            await history.window(*EVER, limit=1)
        found = await history.window(moments[0], moments[width], limit=10)
        assert [row["time"] for row in found] == moments[:width]
        await history.close()


# --- guests in the house ------------------------------------------------------------------------------------------


async def test_closing_waits_for_what_is_under_way_and_leaves_no_thread(stand_in: StandIn) -> None:
    before = set(threading.enumerate())
    history = History(stand_in.url, stand_in.database, stand_in.token, timeout_sec=0.5)
    await history.write([POINT])
    stand_in.slow(LONG_SEC)
    asking = [asyncio.create_task(history.window(*EVER, limit=1)) for _ in range(5)]
    await asyncio.sleep(0)
    assert set(threading.enumerate()) > before
    await history.close()
    assert set(threading.enumerate()) == before
    gone = await asyncio.gather(*asking, return_exceptions=True)
    assert all(isinstance(end, HistoryUnreachable | HistoryFailed) for end in gone)


async def test_every_thread_keeps_its_connection(history: History, caplog: pytest.LogCaptureFixture) -> None:
    """Were the client's pool smaller than ours, a connection would be thrown away after each request, with a warning."""
    moments = [T0 + step * 1000 for step in range(20)]
    await asyncio.gather(*(history.write([point_of(at(moment))]) for moment in moments))
    assert [row["time"] for row in await history.window(*EVER, limit=100)] == moments
    assert "pool is full" not in caplog.text


async def test_reading_does_not_wait_for_a_write_that_waits_for_the_wal() -> None:
    with StandIn(wal_sec=LONG_SEC) as server:
        history = History(server.url, server.database, server.token, timeout_sec=2.0)
        writing = asyncio.create_task(history.write([POINT]))
        await asyncio.sleep(0)
        assert await history.window(*EVER, limit=1) == []
        assert not writing.done()
        with pytest.raises(HistoryUnreachable, match="no answer"):
            await writing
        await history.close()


def test_a_program_that_logs_nothing_stays_silent() -> None:
    """The client calls ``logging.debug`` when an answer is no JSON, which gives such a program a handler for everything."""
    program = (
        "import logging, sys; from app.errors import HistoryError; from app.records.influx import History; "
        "from app.records.point import Point\n"
        "history = History(sys.argv[1], 'db', None)\n"
        "try: history.write_now([Point('a', '1', 1000, {'sha256': 'a'})])\n"
        "except HistoryError as error: print(error.code)\n"
        "history.close_now(); logging.getLogger().setLevel(logging.DEBUG); logging.getLogger('x').debug('not to be seen')"
    )
    with WebServer(lambda asked: (500, "<html>broken</html>") if asked else (200, "")) as server:
        done = subprocess.run([sys.executable, "-c", program, server.url], capture_output=True, text=True, check=True, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("history-failed\n", "")


def test_only_one_module_knows_the_client() -> None:
    imports_it = re.compile(r"^\s*(?:import|from) (?:influxdb_client_3|pyarrow)\b", re.MULTILINE)
    sources = sorted([*ROOT.glob("app/**/*.py"), *ROOT.glob("scripts/*.py")])
    assert [path.relative_to(ROOT).as_posix() for path in sources if imports_it.search(path.read_text())] == [
        "app/records/influx.py"
    ]


class WebServer:
    """A web server on loopback: ``answer`` gives status and body for a request's body; ``/ping`` names ``version``."""

    def __init__(self, answer: Callable[[bytes], tuple[int, str]], *, version: str | None = "3.1.0") -> None:
        self.answer, self.version = answer, version
        self.asked: list[bytes] = []
        self.authorizations: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                outer.asked.append(asked)
                outer.authorizations.append(self.headers.get("Authorization", ""))
                status, text = outer.answer(asked)
                self.send_response(status)
                if outer.version:
                    self.send_header("x-influxdb-version", outer.version)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            do_GET = do_POST  # noqa: N815  # the base class names it

            def log_message(self, format: str, *args: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.02])
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> WebServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Dripping:
    """Accepts, and sends one byte of a header after another."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._serve)]
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    def __enter__(self) -> Dripping:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._listening.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listening.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._drip, args=[connection]))
            self._threads[-1].start()

    def _drip(self, connection: socket.socket) -> None:
        with connection:
            try:
                connection.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
                while not self._ended.wait(0.02):
                    connection.sendall(b"x")
            except OSError:
                return
