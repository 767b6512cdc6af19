"""What the product relies on in InfluxDB 3, seen through the official client alone.

With ``TEST_INFLUX_URL`` and ``TEST_INFLUX_TOKEN`` in the environment the same tests run against a real server.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import pyarrow as pa
import pytest
from influxdb_client_3 import InfluxDBClient3, Point
from influxdb_client_3.exceptions.exceptions import InfluxDB3ClientQueryError, InfluxDBError, InfluxDBPartialWriteError

from tests.influx.conftest import Influx

T0 = 1_750_000_000_000_000_000
SEC = 10**9

NASTY = [
    "",
    " ",
    '"',
    "\\",
    "\\\\",
    'a\\"',
    "a\\",
    'end"',
    "a\nb",
    "\n",
    "a\r\nb",
    "tab\tx",
    "\0",
    "a\0b",
    "ü🦀",
    "a,b=c d",
    "#",
    "'; --",
    "%_",
    "x" * 4096,
]
"""String fields carry all of it."""


@pytest.fixture
def client(influx: Influx) -> Iterator[InfluxDBClient3]:
    with connect(influx) as made:
        yield made


def connect(influx: Influx, token: str | None = None) -> InfluxDBClient3:
    return InfluxDBClient3(host=influx.url, database=influx.database, token=token or influx.token)


def write(client: InfluxDBClient3, lines: str, **options: object) -> None:
    """By the endpoint of version 3, which names the lines that it refuses."""
    client.write(lines, use_v2_api=False, **options)


def rows(client: InfluxDBClient3, sql: str, parameters: Mapping[str, object] | None = None) -> list[dict[str, object]]:
    found = client.query(sql, query_parameters=parameters) if parameters else client.query(sql)
    return found.to_pylist()  # type: ignore[no-any-return]  # pyarrow has no types


def column(client: InfluxDBClient3, name: str, table: str = "m") -> list[object]:
    return [row[name] for row in rows(client, f'SELECT "{name}" FROM "{table}" ORDER BY time')]  # noqa: S608


def test_what_is_written_can_be_queried(client: InfluxDBClient3) -> None:
    client.write(Point("m").tag("dom", "web").field("i", 7).field("f", 1.5).field("s", "x").field("b", True).time(T0))
    assert rows(client, 'SELECT dom, i, f, s, b, CAST(time AS BIGINT) AS time_ns FROM "m"') == [
        {"dom": "web", "i": 7, "f": 1.5, "s": "x", "b": True, "time_ns": T0}
    ]


def test_a_column_has_the_type_of_its_first_value(client: InfluxDBClient3) -> None:
    client.write(f'm,t=a i=1i,u=1u,f=1,s="x",b=t {T0}')
    schema = client.query("SELECT * FROM m", mode="schema")
    assert {name: schema.field(name).type for name in "iufsb"} == {
        "i": pa.int64(), "u": pa.uint64(), "f": pa.float64(), "s": pa.string(), "b": pa.bool_(),
    }  # fmt: skip
    assert schema.field("time").type == pa.timestamp("ns")
    assert schema.field("t").type == pa.dictionary(pa.int32(), pa.string())


def test_whole_numbers_keep_all_their_digits(client: InfluxDBClient3) -> None:
    client.write(f"m low=-9223372036854775808i,high=9223372036854775807i,unsigned=18446744073709551615u {T0}")
    assert rows(client, "SELECT low, high, unsigned FROM m") == [{"low": -(2**63), "high": 2**63 - 1, "unsigned": 2**64 - 1}]


def test_floats_come_back_exactly(client: InfluxDBClient3) -> None:
    values = [0.1, -0.0, 1e-300, 1.7976931348623157e308, 5e-324, 123456789.123456789]
    client.write([Point("m").field("f", value).time(T0 + at) for at, value in enumerate(values)])
    found = column(client, "f")
    assert found == values
    assert math.copysign(1, found[1]) == -1  # type: ignore[arg-type]


def test_string_fields_carry_anything(client: InfluxDBClient3) -> None:
    client.write([Point("m").field("s", value).time(T0 + at) for at, value in enumerate(NASTY)])
    assert column(client, "s") == NASTY


def test_a_string_field_may_have_64_kib_and_no_more(client: InfluxDBClient3) -> None:
    write(client, f'm s="{"x" * 65_536}" {T0}')
    with pytest.raises(InfluxDBPartialWriteError, match="64"):
        write(client, f'm s="{"x" * 65_537}" {T0 + 1}')
    assert [len(str(value)) for value in column(client, "s")] == [65_536]


@pytest.mark.parametrize("value", ["a b", "a,b", "a=b", 'a"b', "a\\b", "ü🦀", "'", "%", "x" * 4096])
def test_tags_carry_most_of_it(client: InfluxDBClient3, value: str) -> None:
    client.write(Point("m").tag("t", value).field("v", 1).time(T0))
    assert rows(client, "SELECT t FROM m WHERE t = $t", {"t": value}) == [{"t": value}]


def test_an_odd_name_of_a_measurement_is_a_quoted_table(client: InfluxDBClient3) -> None:
    client.write(Point("Odd, name").field("v", 1).time(T0))
    assert column(client, "v", "Odd, name") == [1]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("m,t= v=1", "Expected tag value"),
        ("m,=a v=1", "Expected tag key"),
        ("m,t v=1", "could not find equals sign"),
        ("m,t=a\\ v=1", "Expected at least one space"),
        ("m,t=a\\\\ v=1", "may not end with a backslash"),
        ("m\\\\ v=1", "may not end with a backslash"),
        ("m v=", "No fields were provided"),
        ('m v="open', "No fields were provided"),
        ('m v="open\\"', "No fields were provided"),
        ("m v=NaN", "No fields were provided"),
        ("m v=.5", "No fields were provided"),
        ("m v=1 2 3", "trailing content"),
        ("m v=1i2", "trailing content"),
        ("m v=9223372036854775808i", "Unable to parse integer value"),
        ("m v=1 9223372036854775808", "Unable to parse timestamp value"),
        ("m v=1,v=2", "multiple instances of 'v' field"),
        ("m,time=x v=1", "'time' is a reserved column"),
        ("m", "Expected at least one space"),
    ],
)
def test_bad_lines_are_refused_by_name(client: InfluxDBClient3, line: str, problem: str) -> None:
    with pytest.raises(InfluxDBPartialWriteError) as refused:
        write(client, line)
    assert [error.line_number for error in refused.value.line_errors] == [1]
    assert problem in refused.value.line_errors[0].error_message


def test_a_quote_left_open_swallows_the_lines_after_it(client: InfluxDBClient3) -> None:
    with pytest.raises(InfluxDBPartialWriteError) as refused:
        write(client, f'm s="open {T0}\nm v=1 {T0}\nm v=2 {T0}')
    assert [error.line_number for error in refused.value.line_errors] == [1]
    with pytest.raises(InfluxDB3ClientQueryError):
        rows(client, "SELECT * FROM m")


def test_comments_and_empty_lines_are_not_counted(client: InfluxDBClient3) -> None:
    with pytest.raises(InfluxDBPartialWriteError) as refused:
        write(client, f"# comment\n\nm v=1 {T0}\nm v= {T0}")
    assert [error.line_number for error in refused.value.line_errors] == [2]


def test_a_conflict_of_types_refuses_only_its_own_line(client: InfluxDBClient3) -> None:
    write(client, f"m v=1i {T0}")
    with pytest.raises(InfluxDBPartialWriteError) as refused:
        write(client, f"m v=2i {T0 + 1}\nm v=3.5 {T0 + 2}\nm v=4i {T0 + 3}\nm v= {T0 + 4}")
    assert [error.line_number for error in refused.value.line_errors] == [2, 4]
    assert refused.value.line_errors[0].error_message == (
        "invalid column type for column 'v', expected iox::column_type::field::integer, got iox::column_type::field::float"
    )
    assert refused.value.response.status == 400
    assert column(client, "v") == [1, 2, 4]


def test_a_tag_and_a_field_cannot_share_a_name(client: InfluxDBClient3) -> None:
    write(client, f"m,dom=a v=1i {T0}")
    with pytest.raises(InfluxDBPartialWriteError, match="expected iox::column_type::tag"):
        write(client, f'm dom="a",v=1i {T0}')


def test_all_or_nothing_on_request(client: InfluxDBClient3) -> None:
    write(client, f"m v=1i {T0}")
    with pytest.raises(InfluxDBError) as refused:
        write(client, f"m v=2i,extra=1i {T0 + 1}\nm v=3.5 {T0 + 2}", accept_partial=False)
    assert refused.value.response.status == 400
    assert column(client, "v") == [1]
    write(client, f"m extra=1.5 {T0 + 3}")
    assert column(client, "extra") == [None, 1.5], "and no column is left of what was refused"


def test_the_endpoint_of_version_2_takes_all_or_nothing_and_names_no_line(client: InfluxDBClient3) -> None:
    client.write(f"m v=1i {T0}")
    with pytest.raises(InfluxDBError) as refused:
        client.write(f"m v=2i {T0 + 1}\nm v=3.5 {T0 + 2}")
    assert refused.value.response.status == 400
    assert not isinstance(refused.value, InfluxDBPartialWriteError)
    assert column(client, "v") == [1]


def test_new_fields_may_come_later_and_known_tags_be_missing(client: InfluxDBClient3) -> None:
    client.write(f"m,dom=a,vmid=1 v=1i {T0}")
    client.write(f"m,dom=a w=2i {T0 + 1}")
    assert rows(client, "SELECT dom, vmid, v, w FROM m ORDER BY time") == [
        {"dom": "a", "vmid": "1", "v": 1, "w": None},
        {"dom": "a", "vmid": None, "v": None, "w": 2},
    ]


def test_the_order_of_tags_does_not_matter(client: InfluxDBClient3) -> None:
    client.write(f"m,dom=a,vmid=1 v=1i {T0}")
    client.write(f"m,vmid=1,dom=a v=1i {T0}")
    assert rows(client, "SELECT count(*) AS n FROM m") == [{"n": 1}]


def test_within_one_request_the_last_of_equal_points_stays(client: InfluxDBClient3) -> None:
    client.write(f"m,dom=a v=1i {T0}\nm,dom=a v=2i {T0}")
    assert column(client, "v") == [2]


def test_which_of_two_equal_points_stays_is_open_but_it_is_one(client: InfluxDBClient3) -> None:
    client.write(f"m,dom=a v=1i {T0}")
    client.write(f"m,dom=a v=2i {T0}")
    (found,) = column(client, "v")
    assert found in (1, 2)


@pytest.mark.parametrize(("precision", "unit"), [("ns", 1), ("us", 10**3), ("ms", 10**6), ("s", SEC)])
def test_times_count_in_the_unit_asked_for(client: InfluxDBClient3, precision: str, unit: int) -> None:
    for use_v2_api in (True, False):
        client.write(f"m v=1i {T0 // unit}", write_precision=precision, use_v2_api=use_v2_api)
    assert rows(client, "SELECT CAST(time AS BIGINT) AS time_ns FROM m") == [{"time_ns": T0}]


def test_a_window_of_time_is_half_open_in_the_order_asked_for(client: InfluxDBClient3) -> None:
    client.write("\n".join(f"m n={at}i {T0 + at * SEC}" for at in (3, 0, 2, 1, 4)))
    found = rows(
        client,
        "SELECT n FROM m WHERE time >= to_timestamp_nanos($since) AND time < to_timestamp_nanos($until) ORDER BY time LIMIT 10",
        {"since": T0 + SEC, "until": T0 + 4 * SEC},
    )
    assert [row["n"] for row in found] == [1, 2, 3]


def test_a_time_in_the_text_of_a_query_is_utc_to_the_nanosecond(client: InfluxDBClient3) -> None:
    client.write("m n=1i 1750000000123456789\nm n=2i 1750000000123456790")
    assert rows(client, "SELECT n FROM m WHERE time >= '2025-06-15T15:06:40.123456790Z'") == [{"n": 2}]


def test_parameters_are_never_sql(client: InfluxDBClient3) -> None:
    value = "x' OR '1'='1"
    client.write(Point("m").tag("dom", value).field("v", 1).time(T0))
    client.write(Point("m").tag("dom", "other").field("v", 2).time(T0))
    assert rows(client, "SELECT v FROM m WHERE dom = $dom", {"dom": value}) == [{"v": 1}]


def test_queries_only_read(client: InfluxDBClient3) -> None:
    client.write(f"m v=1i {T0}")
    for statement in ("DELETE FROM m", "DROP TABLE m", "UPDATE m SET v = 2", "INSERT INTO m (v) VALUES (2)"):
        with pytest.raises(InfluxDB3ClientQueryError):
            client.query(statement)
    assert column(client, "v") == [1]


def test_before_the_first_write_there_is_no_database(client: InfluxDBClient3) -> None:
    with pytest.raises(InfluxDB3ClientQueryError, match="database not found"):
        client.query("SELECT 1 FROM m")


def test_a_table_that_nobody_wrote_is_missing(client: InfluxDBClient3) -> None:
    client.write(f"m v=1 {T0}")
    with pytest.raises(InfluxDB3ClientQueryError, match=r"table 'public\.iox\.other' not found"):
        client.query("SELECT * FROM other")


def test_a_column_that_nobody_wrote_is_missing(client: InfluxDBClient3) -> None:
    client.write(f"m v=1 {T0}")
    with pytest.raises(InfluxDB3ClientQueryError, match="No field named"):
        client.query("SELECT w FROM m")


@pytest.mark.parametrize("use_v2_api", [True, False])
def test_a_wrong_token_neither_writes_nor_reads(influx: Influx, use_v2_api: bool) -> None:
    with connect(influx, "wrong") as wrong:
        with pytest.raises(InfluxDBError) as refused:
            wrong.write(f"m v=1 {T0}", use_v2_api=use_v2_api)
        assert refused.value.response.status == 401
        with pytest.raises(InfluxDB3ClientQueryError, match=r"(?i)unauthenticated"):
            wrong.query("SELECT * FROM m")


def test_the_version_is_told_to_those_who_have_the_token(influx: Influx, client: InfluxDBClient3) -> None:
    assert str(client.get_server_version()).startswith("3.")
    with connect(influx, "wrong") as wrong, pytest.raises(InfluxDBError):
        wrong.get_server_version()


def test_a_name_that_no_database_can_have(influx: Influx) -> None:
    with (
        InfluxDBClient3(host=influx.url, database="not a name", token=influx.token) as wrong,
        pytest.raises(InfluxDBError) as refused,
    ):
        wrong.write(f"m v=1 {T0}", use_v2_api=False)
    assert refused.value.response.status == 400
