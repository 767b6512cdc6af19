"""A question of somebody who may not know of all is answered as if there were nothing else, and as fast."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.model import DayStats, Manifest, Stats, Subject, VmStats
from app.records.index import Page, RecordIndex, from_json
from app.records.schema import SCHEMA
from app.records.search import Filters, Order, Position
from app.scope import WHOLE, Scope
from app.state import State
from tests.unit.test_index import decoded, listed, manifest_of
from tests.unit.test_search import bounds, libraries, on_index, pieces

HYPERVISORS = ("", "kvm-07", "kvm-08")
GROUPS = (None, "", "blue", "red")


@st.composite
def spread(draw: st.DrawFn) -> list[Manifest]:
    """Records of several tenants, some of VMs that changed hands."""
    places = st.tuples(st.sampled_from(HYPERVISORS), st.sampled_from(GROUPS))
    return [replace(one, hypervisor=place[0], group=place[1]) for one in draw(libraries()) for place in [draw(places)]]


def scopes(library: Sequence[Manifest]) -> st.SearchStrategy[Scope]:
    names = st.sampled_from([one.dom for one in library] or [""])
    patterns = names | names.map(lambda name: f"{name[:1]}*") | st.sampled_from(["*", "?", "[ab]", "[!a]*", "none"])
    return st.builds(
        Scope,
        hypervisors=st.lists(st.sampled_from(HYPERVISORS), max_size=2).map(tuple),
        vms=st.lists(patterns, max_size=2).map(tuple),
        groups=st.lists(st.sampled_from(["", "blue", "red"]), max_size=2).map(tuple),
    )


async def answers(
    index: RecordIndex, filters: Filters, order: Order, limit: int, offset: int, after: Position | None, ids: Sequence[str]
) -> list[object]:
    """What the index says to every question that it takes a scope with."""
    scope, since, until = filters.scope, filters.since, filters.until
    return [
        await index.page(filters, limit=limit, order=order, offset=offset),
        await index.page(filters, limit=limit, order=order, after=after),
        [one async for chunk in index.chunks(filters, order) for one in from_json(chunk)],
        [await index.get(dump_id, scope) for dump_id in ids],
        await index.stats(scope),
        await index.stats_by_vm(since, until, scope),
        await index.stats_by_day(since, until, scope),
    ]


@settings(deadline=None, max_examples=60)
@given(st.data(), spread(), st.sampled_from(["asc", "desc"]), st.integers(1, 12), st.integers(0, 12))
def test_every_question_is_answered_as_by_an_index_that_holds_only_what_is_in_scope(
    data: st.DataObject, library: list[Manifest], order: Order, limit: int, offset: int
) -> None:
    scope = data.draw(scopes(library))
    filters = Filters(
        q=data.draw(pieces(library)),
        since=data.draw(bounds),
        until=data.draw(bounds),
        dom=data.draw(st.none() | st.sampled_from([one.dom for one in library] or [""])),
        vmid=data.draw(st.none() | st.sampled_from(["", "1", "2"])),
        scope=scope,
    )
    at = data.draw(st.sampled_from([None, *library]))
    after = Position(at.timestamp, at.dump_id) if at is not None else None
    ids = [one.dump_id for one in library]
    inside = [one for one in library if scope.covers(*one.subject)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.records.index.CHUNK", 3)
        limited = on_index(library, lambda index: answers(index, filters, order, limit, offset, after, ids))
        whole = replace(filters, scope=WHOLE)
        alone = on_index(inside, lambda index: answers(index, whole, order, limit, offset, after, ids))
    assert list(map(told, limited)) == list(map(told, alone))
    assert averages(limited) == pytest.approx(averages(alone))


TOTALS = (Stats, VmStats, DayStats)


def told(answer: object) -> object:
    """An answer without its averages: sums of floats come out a little different in another order of adding."""
    if isinstance(answer, TOTALS):
        return [getattr(answer, name) for name in answer.__slots__ if "avg" not in name]
    return [told(one) for one in answer] if isinstance(answer, tuple) and answer and isinstance(answer[0], TOTALS) else answer


def averages(found: list[object]) -> list[float]:
    rows = [row for answer in found for row in (answer if isinstance(answer, tuple) else (answer,)) if isinstance(row, TOTALS)]
    return [getattr(row, name) for row in rows for name in row.__slots__ if "avg" in name]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "memory-dumps.sqlite3"


BLUE = Scope(groups=("blue",))


async def test_what_comes_into_a_scope_later_is_seen_at_once_whoever_adds_it(file: Path) -> None:
    with contextlib.closing(State.open(file, SCHEMA)) as state, contextlib.closing(State.open(file, SCHEMA)) as other:
        index, beside = RecordIndex(state), RecordIndex(other)
        assert await index.page(Filters(scope=BLUE), limit=10) == Page((), 0, None)
        await index.add(manifest_of(1, group="red"))
        await beside.add(manifest_of(2, group="blue", dom="a"))
        assert decoded(await index.page(Filters(scope=BLUE), limit=10)) == listed(manifest_of(2, group="blue", dom="a"))
        await beside.add_many([manifest_of(3, group="blue", dom="b"), manifest_of(4)])
        assert [(await index.page(Filters(scope=scope), limit=10)).count for scope in (BLUE, WHOLE)] == [2, 4]
        assert await index.get(manifest_of(1).dump_id, BLUE) is None


async def test_a_vms_last_dump_is_told_by_what_it_was_for_a_scope_then(file: Path) -> None:
    with contextlib.closing(State.open(file, SCHEMA)) as state:
        index = RecordIndex(state)
        await index.add_many([manifest_of(1, group="red"), manifest_of(2, group="red"), manifest_of(3, group="blue", dom="new")])
        assert await index.last_dumps() == {
            manifest_of(1).uuid: {
                Subject("kvm-07", "vm-web-01", "red"): manifest_of(2).timestamp,
                Subject("kvm-07", "new", "blue"): manifest_of(3).timestamp,
            }
        }


@pytest.mark.parametrize("asked", [Filters(), Filters(q="shop"), Filters(q="nothing holds this"), Filters(dom="other")])
@pytest.mark.parametrize("offset", [0, 300])
def test_what_a_question_costs_tells_nothing_of_what_is_out_of_scope(asked: Filters, offset: int) -> None:
    """Counted in steps of SQLite's machine, which grow with all that is looked at."""
    ours = [record_at(number, "shop") for number in range(400)]
    others = [record_at(number, "other") for number in range(400, 2000)]
    wanted = replace(asked, scope=Scope(vms=("shop",)))
    alone, among_others = (on_index(made, lambda index: steps(index, wanted, offset)) for made in (ours, [*others, *ours]))
    assert among_others == pytest.approx(alone, rel=0.05, abs=30)


def record_at(number: int, dom: str) -> Manifest:
    month, day = number // 25 % 12 + 1, number % 25 + 1
    return manifest_of(number, dom=dom, timestamp=f"2026-{month:02d}-{day:02d}T10:30:00.{number:06d}Z")


async def steps(index: RecordIndex, filters: Filters, offset: int) -> int:
    counted = 0

    def count() -> int:
        nonlocal counted
        counted += 1
        return 0

    def work(connection: sqlite3.Connection) -> None:
        connection.set_progress_handler(count, 10)
        index._found(connection, filters, "desc", 51, offset, None)
        connection.set_progress_handler(None, 0)

    await index.stats(filters.scope)  # which VMs it covers is known from now on
    await index._state.read(work)
    return counted
