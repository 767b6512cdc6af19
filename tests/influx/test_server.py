"""What the product relies on in InfluxDB 3, seen through the official client alone.

With ``TEST_INFLUX_URL`` and ``TEST_INFLUX_TOKEN`` in the environment the same tests run against a real server.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from influxdb_client_3 import InfluxDBClient3, Point
from influxdb_client_3.exceptions.exceptions import InfluxDB3ClientQueryError, InfluxDBError

from tests.influx.conftest import Influx

T0 = 1_750_000_000_000_000_000


@pytest.fixture
def client(influx: Influx) -> Iterator[InfluxDBClient3]:
    with connect(influx) as made:
        yield made


def connect(influx: Influx, token: str | None = None) -> InfluxDBClient3:
    return InfluxDBClient3(host=influx.url, database=influx.database, token=token or influx.token)


def test_what_is_written_can_be_queried(client: InfluxDBClient3) -> None:
    client.write(Point("m").tag("dom", "web").field("i", 7).field("f", 1.5).field("s", "x").field("b", True).time(T0))
    rows = client.query('SELECT *, CAST(time AS BIGINT) AS time_ns FROM "m"').to_pylist()
    assert [(row["dom"], row["i"], row["f"], row["s"], row["b"], row["time_ns"]) for row in rows] == [
        ("web", 7, 1.5, "x", True, T0)
    ]


def test_before_the_first_write_there_is_no_database(client: InfluxDBClient3) -> None:
    with pytest.raises(InfluxDB3ClientQueryError, match=r"(?i)database.*not found"):
        client.query("SELECT 1 FROM m")


def test_a_table_that_nobody_wrote_is_missing(client: InfluxDBClient3) -> None:
    client.write(f"m v=1 {T0}")
    with pytest.raises(InfluxDB3ClientQueryError, match=r"table 'public\.iox\.other' not found"):
        client.query("SELECT * FROM other")


def test_a_wrong_token_neither_writes_nor_reads(influx: Influx) -> None:
    with connect(influx, "wrong") as wrong:
        with pytest.raises(InfluxDBError) as refused:
            wrong.write(f"m v=1 {T0}")
        assert refused.value.response.status == 401
        with pytest.raises(InfluxDB3ClientQueryError, match=r"(?i)unauthenticated"):
            wrong.query("SELECT * FROM m")
