"""The switches of the stand-in, its limits, its start and its end."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import urllib3
from influxdb_client_3 import InfluxDBClient3, Point
from influxdb_client_3.exceptions.exceptions import InfluxDB3ClientQueryError, InfluxDBError, InfluxDBPartialWriteError

from tests.influx.stand_in import StandIn
from tests.influx.tables import SLOT_NS

T0 = 1_750_000_200_000_000_000
"""The first nanosecond of a ten-minute slot."""

LONG_SEC = 3600.0
PATIENCE_SEC = 30.0


def connect(stand_in: StandIn) -> InfluxDBClient3:
    """With connections of its own: those that gRPC shares wait before they try again a server that was away."""
    return InfluxDBClient3(
        host=stand_in.url,
        database=stand_in.database,
        token=stand_in.token,
        flight_client_options={"generic_options": [("grpc.use_local_subchannel_pool", 1)]},
    )


@pytest.fixture
def client(stand_in: StandIn) -> Iterator[InfluxDBClient3]:
    with connect(stand_in) as made:
        yield made


@pytest.fixture
def in_background() -> Iterator[Callable[[Callable[[], object]], Future[object]]]:
    with ThreadPoolExecutor(4) as pool:
        yield pool.submit


def count(client: InfluxDBClient3, table: str = "m") -> int:
    return int(client.query(f'SELECT count(*) AS n FROM "{table}"').to_pylist()[0]["n"])  # noqa: S608


def test_down_refuses_and_up_is_the_same_port_with_the_same_data(stand_in: StandIn, client: InfluxDBClient3) -> None:
    client.write(f"m v=1i {T0}")
    assert count(client) == 1
    stand_in.down()
    with pytest.raises(urllib3.exceptions.HTTPError):
        client.write(f"m v=2i {T0 + 1}")
    with pytest.raises(InfluxDB3ClientQueryError):
        client.query("SELECT * FROM m")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", stand_in.port)).close()
    stand_in.up()
    client.write(f"m v=2i {T0 + 1}")
    with connect(stand_in) as another:
        assert count(another) == 2


def test_nobody_else_gets_the_port_while_it_is_down(stand_in: StandIn) -> None:
    stand_in.down()
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", stand_in.port))


def test_down_and_up_many_times(stand_in: StandIn, client: InfluxDBClient3) -> None:
    for at in range(20):
        stand_in.down()
        stand_in.down()
        stand_in.up()
        stand_in.up()
        client.write(f"m v=1i {T0 + at}")
    with connect(stand_in) as another:
        assert count(another) == 20


def test_down_resets_the_connections_there_are(stand_in: StandIn) -> None:
    with socket.create_connection(("127.0.0.1", stand_in.port)) as open_one:
        open_one.settimeout(PATIENCE_SEC)
        open_one.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert open_one.recv(4096).startswith(b"HTTP/1.1 401")
        stand_in.down()
        with pytest.raises(ConnectionResetError):
            open_one.recv(4096)


def test_slow_carries_out_first_and_answers_late(stand_in: StandIn) -> None:
    stand_in.slow(LONG_SEC)
    impatient = InfluxDBClient3(host=stand_in.url, database=stand_in.database, token=stand_in.token, write_timeout=200)
    with impatient, pytest.raises(urllib3.exceptions.HTTPError):
        impatient.write(f"m v=1i {T0}")
    stand_in.wait_for_points(1, "m")
    stand_in.well()
    with connect(stand_in) as client:
        assert count(client) == 1


def test_slow_queries_run_into_the_client_s_time_limit(stand_in: StandIn) -> None:
    with InfluxDBClient3(host=stand_in.url, database=stand_in.database, token=stand_in.token, query_timeout=200) as client:
        client.write(f"m v=1i {T0}")
        stand_in.slow(LONG_SEC)
        with pytest.raises(InfluxDB3ClientQueryError, match=r"(?i)deadline"):
            client.query("SELECT * FROM m")


def test_a_slow_answer_comes(
    stand_in: StandIn, client: InfluxDBClient3, in_background: Callable[[Callable[[], object]], Future[object]]
) -> None:
    stand_in.slow(0.2)
    before = stand_in.requests
    written = in_background(lambda: client.write(f"m v=1i {T0}"))
    stand_in.wait_for_requests(before + 1)
    written.result(PATIENCE_SEC)
    assert count(client) == 1


def test_failing_carries_out_nothing(stand_in: StandIn, client: InfluxDBClient3) -> None:
    client.write(f"m v=1i {T0}")
    for status in (400, 401, 403, 404, 422, 500, 503):
        stand_in.failing(status)
        with pytest.raises(InfluxDBError) as refused:
            client.write(f"m v=2i {T0 + 1}")
        assert refused.value.response.status == status
        with pytest.raises(InfluxDB3ClientQueryError, match=f"told to fail with {status}"):
            client.query("SELECT * FROM m")
    stand_in.well()
    assert count(client) == 1


def test_the_right_token_can_be_refused(stand_in: StandIn, client: InfluxDBClient3) -> None:
    client.write(f"m v=1i {T0}")
    stand_in.refusing()
    with pytest.raises(InfluxDBError) as refused:
        client.write(f"m v=2i {T0 + 1}")
    assert refused.value.response.status == 401
    with pytest.raises(InfluxDB3ClientQueryError, match="Unauthenticated"):
        client.query("SELECT * FROM m")
    stand_in.well()
    assert count(client) == 1


@pytest.mark.parametrize(
    ("header", "status"), [({}, 401), ({"Authorization": "Token "}, 400), ({"Authorization": "Digest x"}, 400)]
)
@pytest.mark.parametrize("path", ["/health", "/ping"])
def test_health_and_ping_want_the_token_too(stand_in: StandIn, header: dict[str, str], status: int, path: str) -> None:
    http = urllib3.PoolManager()
    assert http.request("GET", stand_in.url + path, headers=header, retries=False).status == status
    with_it = {"Authorization": f"Bearer {stand_in.token}"}
    assert http.request("GET", stand_in.url + path, headers=with_it, retries=False).status == 200
    http.clear()


def test_what_waits_for_the_wal_cannot_be_queried_yet(
    in_background: Callable[[Callable[[], object]], Future[object]],
) -> None:
    with StandIn(wal_sec=LONG_SEC) as stand_in, connect(stand_in) as client:
        waiting = in_background(lambda: client.write(f"m v=1i {T0}"))
        stand_in.wait_for_requests(1)
        client.write(f"m v=2i {T0 + 1}", use_v2_api=False, no_sync=True)
        assert count(client) == 0
        assert not waiting.done()
        stand_in.crash()
        with pytest.raises(urllib3.exceptions.HTTPError):
            waiting.result(PATIENCE_SEC)
        stand_in.up()
        with connect(stand_in) as another:
            assert count(another) == 0


def test_a_confirmed_write_can_be_queried_and_outlives_a_crash() -> None:
    with StandIn(wal_sec=0.05) as stand_in, connect(stand_in) as client:
        client.write(f"m v=1i {T0}")
        assert count(client) == 1
        stand_in.crash()
        stand_in.up()
        with connect(stand_in) as another:
            assert count(another) == 1


def test_which_of_two_equal_points_is_seen_depends_on_the_query_and_the_seed() -> None:
    def seen(seed: int) -> list[int]:
        with StandIn(seed=seed) as stand_in, connect(stand_in) as client:
            for version in (1, 2):
                client.write([Point("m").tag("t", at).field("v", version).time(T0) for at in range(40)])
            asked = ("SELECT v FROM m ORDER BY t", "SELECT v, t FROM m ORDER BY t")
            return [row["v"] for sql in asked for row in client.query(sql).to_pylist()]

    first = seen(1)
    assert len(first) == 80, "but never both, and never none"
    assert {1, 2} == set(first[:40]) == set(first[40:])
    assert first[:40] != first[40:]
    assert seen(1) == first != seen(2)


def test_a_query_of_too_many_files_is_refused_until_its_window_is_smaller() -> None:
    with StandIn(file_limit=3) as stand_in, connect(stand_in) as client:
        client.write([Point("m").field("v", slot).time(T0 + slot * SLOT_NS) for slot in range(5)])
        client.write(f"other v=1i {T0}")
        with pytest.raises(InfluxDB3ClientQueryError, match="Query would exceed file limit of 3 parquet files"):
            client.query("SELECT * FROM m ORDER BY time LIMIT 1")
        assert count(client, "other") == 1
        until = T0 + 3 * SLOT_NS
        for where in (
            f"time >= to_timestamp_nanos({T0}) AND time < to_timestamp_nanos({until})",
            "time < '2025-06-15T15:40:00Z'",
            "time BETWEEN '2025-06-15T15:10:00Z' AND '2025-06-15T15:39:59Z' AND v >= 0",
        ):
            assert client.query(f"SELECT count(*) AS n FROM m WHERE {where}").to_pylist() == [{"n": 3}]  # noqa: S608
        with pytest.raises(InfluxDB3ClientQueryError, match="file limit"):
            client.query(f"SELECT * FROM m WHERE time < to_timestamp_nanos({until}) OR v < 0")  # noqa: S608


def test_as_many_databases_as_core_has() -> None:
    with StandIn(database_limit=2) as stand_in, connect(stand_in) as client:
        client.write(f"m v=1i {T0}")
        client.write(f"m v=1i {T0}", database="second")
        with pytest.raises(InfluxDBError, match="Adding a new database would exceed limit of 2 databases") as refused:
            client.write(f"m v=1i {T0}", database="third", use_v2_api=False)
        assert refused.value.response.status == 422


def test_a_new_tag_is_refused_or_taken_as_the_version_has_it() -> None:
    with StandIn() as older, connect(older) as client:
        client.write(f"m,dom=a v=1i {T0}")
        with pytest.raises(InfluxDBPartialWriteError, match="Detected a new tag 'extra' in write"):
            client.write(f"m,dom=a,extra=x v=1i {T0}", use_v2_api=False)
    with StandIn(tags_fixed=False) as newer, connect(newer) as client:
        client.write(f"m,dom=a v=1i {T0}")
        client.write(f"m,dom=a,extra=x v=1i {T0}")
        assert count(client) == 2


def test_a_refused_line_leaves_its_new_columns_behind(client: InfluxDBClient3) -> None:
    client.write(f"m v=1i {T0}")
    with pytest.raises(InfluxDBPartialWriteError):
        client.write(f"m new=1i,v=2.5 {T0}", use_v2_api=False)
    with pytest.raises(InfluxDBPartialWriteError, match="'new', expected iox::column_type::field::integer"):
        client.write(f"m new=1.5 {T0}", use_v2_api=False)


def test_many_clients_at_once(stand_in: StandIn, in_background: Callable[[Callable[[], object]], Future[object]]) -> None:
    def work(number: int) -> None:
        with connect(stand_in) as client:
            for at in range(10):
                client.write(f"m,writer={number} v={at}i {T0}\nm,writer={number} v={at}i {T0 + at + 1}")
                assert count(client) > at

    for done in [in_background(lambda number=number: work(number)) for number in range(4)]:  # type: ignore[misc]
        done.result(PATIENCE_SEC)
    with connect(stand_in) as client:
        assert count(client) == 44


def test_closing_ends_all_that_waits(in_background: Callable[[Callable[[], object]], Future[object]]) -> None:
    stand_in = StandIn(wal_sec=LONG_SEC)
    with connect(stand_in) as client:
        at_the_wal = in_background(lambda: client.write(f"m v=1i {T0}"))
        stand_in.wait_for_requests(1)
        stand_in.slow(LONG_SEC)
        slow_write = in_background(lambda: client.write(f"m v=1i {T0}", use_v2_api=False, no_sync=True))
        slow_query = in_background(lambda: client.query("SELECT * FROM m"))
        stand_in.wait_for_requests(3)
        stand_in.close()
        for ended in (at_the_wal, slow_write, slow_query):
            assert ended.exception(PATIENCE_SEC) is not None
    with socket.socket() as free:
        free.bind(("127.0.0.1", stand_in.port))
    stand_in.close()


def test_as_a_process_of_its_own() -> None:
    started = subprocess.Popen(
        [sys.executable, "-m", "tests.influx.stand_in", "--port", "0", "--token", "secret", "--wal-sec", "0"],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )
    with started:
        assert started.stdout is not None
        url = started.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url)
        with InfluxDBClient3(host=url, database="vmstats", token="secret") as client:
            client.write(f"m v=1i {T0}")
            assert count(client) == 1
        started.send_signal(signal.SIGTERM)
        assert started.wait(PATIENCE_SEC) == 0
        with pytest.raises(OSError, match="refused"):
            urllib.request.urlopen(url, timeout=PATIENCE_SEC)  # noqa: S310
