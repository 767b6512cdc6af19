"""What an address of the list means, what is said of one that means nothing, and where its links lead."""

from __future__ import annotations

import pytest
from yarl import URL

from app.records.search import Filters
from app.web.listing import ListQuery, pages_of, understood


def meant(query: str) -> tuple[ListQuery, list[str]]:
    return understood(URL(f"/memory-dumps?{query}").query)


def test_an_address_without_anything_is_the_newest_records() -> None:
    view, problems = meant("")
    assert view.is_newest
    assert view.address() == "/memory-dumps"
    assert view.csv == "/api/memory-dumps/records.csv"
    assert problems == []


def test_empty_fields_of_a_form_ask_for_nothing() -> None:
    view, problems = meant("q=&date=&limit=50&order=desc&vm=&from=&to=")
    assert (view, problems) == (ListQuery(), [])


def test_a_vm_is_meant_by_its_whole_name_and_a_day_ends_before_the_next() -> None:
    view, _ = meant("vm=web-01&date=2026-11-23&q=abc")
    assert view.filters() == Filters(
        q="abc", dom="web-01", since="2026-11-23T00:00:00.000000Z", until="2026-11-24T00:00:00.000000Z"
    )


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("foo=1", "“foo” is nothing that this page knows"),
        ("date=2026-02-30", "date='2026-02-30' is not in the calendar."),
        ("page=0", "page='0' is not a whole number"),
        ("limit=10", "limit='10' is not one of 25, 50, 100, 250."),
        ("order=up", "order='up' is not one of asc, desc."),
        ("sizes=both", "sizes='both' is not one of original, stored."),
        ("from=2026-11-23&to=2026-11-01", "is before from="),
        ("date=2026-11-23&from=2026-11-01", "not both"),
        ("q=a&q=b", "“q” is given twice; the first one counts."),
        (f"date={'x' * 4000}", "xxx…” cannot be understood."),
    ],
)
def test_what_cannot_be_is_said_and_the_rest_counts(query: str, said: str) -> None:
    view, problems = meant(f"vm=web-01&{query}")
    assert len(problems) == 1
    assert said in problems[0]
    assert len(problems[0]) < 200
    assert view.vm == "web-01"


def test_of_very_many_things_that_cannot_be_few_are_said() -> None:
    _, problems = meant("&".join(f"p{number}=1" for number in range(100)))
    assert len(problems) == 5
    assert problems[-1] == "96 more things in this address are left out."


def test_a_link_to_another_filter_leads_to_its_first_page_and_keeps_the_rest() -> None:
    view, _ = meant("q=a+b&page=7&order=asc&sizes=stored&limit=25")
    assert view.address() == "/memory-dumps?q=a+b&order=asc&page=7&limit=25&sizes=stored"
    assert view.address(page=8) == "/memory-dumps?q=a+b&order=asc&page=8&limit=25&sizes=stored"
    assert view.address(q=None) == "/memory-dumps?order=asc&limit=25&sizes=stored"
    assert view.csv == "/api/memory-dumps/records.csv?q=a+b&order=asc"


def test_there_is_always_a_first_page() -> None:
    assert [pages_of(count, 50) for count in (0, 1, 50, 51)] == [1, 1, 1, 2]
