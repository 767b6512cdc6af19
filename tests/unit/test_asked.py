"""Which records a query string asks for, and what is said about one that asks for none."""

from __future__ import annotations

import base64
import contextlib
from datetime import UTC

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from app.errors import RequestError
from app.records.search import Filters, Order, Position
from app.web import asked, requests


def wanted(query: str) -> asked.PageWanted:
    return requests.query(URL(f"/?{query}").query, asked.RecordsQuery).page()


def understand(query: str, shape: type[asked.RangeQuery]) -> object:
    it = requests.query(URL(f"/?{query}").query, shape)
    return it.page() if isinstance(it, asked.RecordsQuery) else it.bounds()


def refused(query: str, shape: type[asked.RangeQuery] = asked.RecordsQuery) -> RequestError:
    with pytest.raises(RequestError) as caught:
        understand(query, shape)
    return caught.value


@pytest.mark.parametrize(
    ("query", "filters"),
    [
        ("", Filters()),
        ("q=", Filters()),
        ("q=%25_%00%27", Filters(q="%_\x00'")),
        ("dom=a&vmid=", Filters(dom="a", vmid="")),
        ("date=2026-11-23", Filters(since="2026-11-23T00:00:00.000000Z", until="2026-11-24T00:00:00.000000Z")),
        ("date=2024-02-29", Filters(since="2024-02-29T00:00:00.000000Z", until="2024-03-01T00:00:00.000000Z")),
        ("date=9999-12-31", Filters(since="9999-12-31T00:00:00.000000Z")),
        ("date=0001-01-01", Filters(since="0001-01-01T00:00:00.000000Z", until="0001-01-02T00:00:00.000000Z")),
        ("from=2026-11-23", Filters(since="2026-11-23T00:00:00.000000Z")),
        ("to=2026-11-23T10:30:00Z", Filters(until="2026-11-23T10:30:00.000000Z")),
        ("from=2026-11-23t10:30:00.5z", Filters(since="2026-11-23T10:30:00.500000Z")),
        ("from=2026-11-23T10:30:00%2B02:00", Filters(since="2026-11-23T08:30:00.000000Z")),
        ("from=2026-11-23T10:30:00.123456000Z", Filters(since="2026-11-23T10:30:00.123456Z")),
        ("from=2026-11-23T10:30:00.123456001Z", Filters(since="2026-11-23T10:30:00.123457Z")),
        (
            "from=2026-11-23&to=2026-11-23",
            Filters(since="2026-11-23T00:00:00.000000Z", until="2026-11-23T00:00:00.000000Z"),
        ),
    ],
)
def test_a_query_means_these_filters(query: str, filters: Filters) -> None:
    assert wanted(query).filters == filters


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ("limit=0", "limit"),
        ("limit=10001", "limit"),
        ("limit=", "limit"),
        ("limit=-1", "limit"),
        ("limit=1e3", "limit"),
        ("limit=5.0", "limit"),
        ("limit=%205", "limit"),
        ("limit=٣", "limit"),
        ("limit=" + "9" * 30, "limit"),
        ("offset=-1", "offset"),
        ("offset=x", "offset"),
        ("order=up", "order"),
        ("order=", "order"),
        ("order=DESC", "order"),
        ("date=2026-11-31", "date"),
        ("date=20261123", "date"),
        ("date=2026-11-23T00:00:00Z", "date"),
        ("date=", "date"),
        ("date=٢٠٢٦-11-23", "date"),
        ("date=0000-01-01", "date"),
        ("date=2026-11-23&from=2026-11-23", "date"),
        ("date=2026-11-23&to=2026-11-23", "date"),
        ("from=yesterday", "from"),
        ("from=", "from"),
        ("from=2026-11-23T10:30:00", "from"),
        ("from=2026-11-23T25:30:00Z", "from"),
        ("to=2026-W48-1", "to"),
        ("to=9999-12-31T23:59:59.9999999Z", "to"),
        ("from=0001-01-01T00:00:00%2B05:00", "from"),
        ("from=2026-11-24&to=2026-11-23", "to"),
        ("cursor=", "cursor"),
        ("cursor=garbage", "cursor"),
        ("cursor=%C3%BC", "cursor"),
        ("cursor=W10", "cursor"),
        ("cursor=x&offset=0", "cursor"),
        ("limit=1&limit=2", "limit"),
        ("pages=1", "pages"),
    ],
)
def test_what_cannot_be_is_refused_by_the_name_of_its_parameter(query: str, place: str) -> None:
    error = refused(query)
    assert (error.code, error.place) == ("request-invalid", place)
    assert place in str(error)


@pytest.mark.parametrize("query", ["from=2026-11-23", "to=2026-11-23"])
def test_totals_of_a_range_are_those_of_vms_or_days(query: str) -> None:
    assert refused(query, asked.StatsQuery).place == query.partition("=")[0]
    assert refused("by=hour", asked.StatsQuery).place == "by"


def test_a_plus_that_was_not_escaped_is_explained() -> None:
    assert "%2B" in str(refused("from=2026-11-23T10:30:00+02:00"))


moments = st.datetimes(timezones=st.just(UTC)).map(lambda moment: f"{moment.isoformat(timespec='microseconds')[:26]}Z")
dump_ids = st.uuids().map(str) | st.text(min_size=1)


@given(moments, dump_ids, st.sampled_from(["desc", "asc"]))
def test_a_cursor_is_one_word_and_comes_back_as_the_place_that_it_was_made_of(timestamp: str, dump_id: str, order: Order) -> None:
    cursor = asked.cursor_of(Position(timestamp, dump_id), order)
    assert set(cursor) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    assert asked.position_of(cursor, order) == Position(timestamp, dump_id)
    assert wanted(f"order={order}&cursor={cursor}").after == Position(timestamp, dump_id)


PLACE = Position("2026-11-23T10:30:00.000000Z", "0199a0f0-0000-7000-8000-000000000001")


def test_a_cursor_of_the_other_order_is_refused() -> None:
    cursor = asked.cursor_of(PLACE, "asc")
    assert refused(f"cursor={cursor}").place == "cursor"
    assert "order=asc" in str(refused(f"cursor={cursor}"))


@pytest.mark.parametrize(
    "text",
    [
        '["desc","2026","x"]',
        '["desc","","x"]',
        '["desc","2026-02-30T00:00:00.000000Z","x"]',
        '["desc","2026-11-23T10:30:00Z","x"]',
        '["desc","2026-11-23T10:30:00.000000Z",""]',
        '["desc","2026-11-23T10:30:00.000000Z","x","y"]',
        '["desc","2026-11-23T10:30:00.000000Z"]',
        '["desc","2026-11-23T10:30:00.000000Z",1]',
        '["up","2026-11-23T10:30:00.000000Z","x"]',
        '["desc", "2026-11-23T10:30:00.000000Z", "x"]',
        '["desc","2026-11-23T10:30:00.000000Z","\\u0078"]',
        '{"order":"desc"}',
        "null",
    ],
)
def test_a_cursor_that_was_made_by_hand_is_refused(text: str) -> None:
    cursor = base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()
    assert refused(f"cursor={cursor}").place == "cursor"


def test_a_cursor_with_its_padding_is_none_that_was_given() -> None:
    text = b'["desc","2026-11-23T10:30:00.000000Z","xy"]'
    assert refused(f"cursor={base64.urlsafe_b64encode(text).decode()}").place == "cursor"


@given(st.binary())
def test_whatever_comes_as_a_cursor_is_a_place_or_refused(garbage: bytes) -> None:
    cursor = base64.urlsafe_b64encode(garbage).decode()
    with contextlib.suppress(RequestError):
        assert isinstance(asked.position_of(cursor, "desc"), Position)


def test_unknown_parameters_are_answered_with_those_that_there_are() -> None:
    assert "limit" in str(refused("limits=1"))
    with pytest.raises(RequestError, match="none here"):
        requests.query({"a": "b"}, requests.Query)
