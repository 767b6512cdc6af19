"""Searching: filters, pieces, orders, cursors, counts and totals agree with a plain list of the same records."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import re
import sqlite3
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.model import DayStats, Manifest, VmStats
from app.records import search
from app.records.index import RecordIndex, from_json
from app.records.schema import SCHEMA
from app.records.search import Filters, Order, Position, walk
from app.state import State
from tests.unit.test_index import decoded, listed, manifest_of

T = TypeVar("T")

ODD = (
    "",
    "a",
    "A",
    "%",
    "_",
    "'",
    '"',
    "\\",
    "\0",
    "\n",
    "ä",
    "Ä",
    "é",
    "e\u0301",
    "☃",
    "\U0001f600",
    "ÿ",
    "\ue0ff",
    "one-42",
    "AND",
    "*",
)
"""Pieces that SQL, LIKE, full-text search, C strings or Unicode would make something of."""

texts = st.lists(st.sampled_from(ODD), max_size=6).map("".join) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
moments = st.builds(
    "2026-{:02d}-{:02d}T{:02d}:30:00.{:06d}Z".format, st.integers(1, 2), st.integers(1, 3), st.integers(0, 1), st.integers(0, 1)
)
bounds = st.none() | moments | st.sampled_from(["2026-01-02T00:00:00.000000Z", "2026-01-02", "2026-02", "2026"])


@st.composite
def libraries(draw: st.DrawFn) -> list[Manifest]:
    """Records, some of the same VM, day and moment."""
    names = draw(st.lists(texts, min_size=1, max_size=3))
    record = st.builds(
        manifest_of,
        st.integers(0, 60),
        timestamp=moments,
        dom=st.sampled_from(names),
        vmid=st.sampled_from(["", "1", "2"]),
        uuid=st.sampled_from(["", "u1", "u2"]),
        sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
        stored_sha256=texts,
        dump_path=texts,
        gzip_size_bytes=st.integers(0, 2**50),
        duration_sec=st.floats(0, 1e6),
        guest_pause_ms=st.floats(0, 1e6),
    )
    return list({one.dump_id: one for one in draw(st.lists(record, max_size=25))}.values())


@st.composite
def pieces(draw: st.DrawFn, library: Sequence[Manifest]) -> str | None:
    """A piece that some record holds, in another case, or one that perhaps none does."""
    if not library or draw(st.booleans()):
        return draw(st.none() | texts)
    of = draw(st.sampled_from(library))
    value = draw(st.sampled_from([of.dom, of.uuid, of.sha256, of.stored_sha256, of.dump_path]))
    begin = draw(st.integers(0, len(value)))
    piece = value[begin : draw(st.integers(begin, len(value)))]
    return piece.upper() if draw(st.booleans()) else piece.lower()


def lowered(text: str) -> str:
    return text.encode().lower().decode()


def within(record: Manifest, since: str | None, until: str | None) -> bool:
    return (since is None or record.timestamp >= since) and (until is None or record.timestamp < until)


def matches(record: Manifest, filters: Filters) -> bool:
    """What the contract says of them, in plain words."""
    values = (record.dom, record.vmid, record.uuid, record.sha256, record.stored_sha256, record.dump_path)
    return (
        within(record, filters.since, filters.until)
        and filters.dom in (None, record.dom)
        and filters.vmid in (None, record.vmid)
        and any(lowered(filters.q or "") in lowered(value) for value in values)
    )


def place(record: Manifest) -> tuple[str, str]:
    return record.timestamp, record.dump_id


def on_index(records: Iterable[Manifest], work: Callable[[RecordIndex], Awaitable[T]]) -> T:
    async def run() -> T:
        with (
            tempfile.TemporaryDirectory() as folder,
            contextlib.closing(State.open(Path(folder) / "memory-dumps.sqlite3", SCHEMA)) as state,
        ):
            index = RecordIndex(state)
            await index.add_many(records)
            return await work(index)

    return asyncio.run(run())


@pytest.fixture(params=[(search.FEW, 512), (search.FEW, 3), (2, 3), (0, 512)])
def ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by trigrams, by looking through what these do not hold yet, or by walking because there are too many."""
    few, at_once = request.param
    monkeypatch.setattr("app.records.search.FEW", few)
    monkeypatch.setattr("app.records.schema.TRIGRAMS_AT_ONCE", at_once)
    monkeypatch.setattr("app.records.index.CHUNK", 3)


@pytest.mark.usefixtures("ways")
@settings(deadline=None, max_examples=60)
@given(st.data(), libraries(), st.sampled_from(["asc", "desc"]), st.integers(1, 12), st.integers(0, 12))
def test_pages_counts_and_chunks_agree_with_a_plain_list(
    data: st.DataObject, library: list[Manifest], order: Order, limit: int, offset: int
) -> None:
    filters = Filters(
        q=data.draw(pieces(library)),
        since=data.draw(bounds),
        until=data.draw(bounds),
        dom=data.draw(st.none() | st.sampled_from([one.dom for one in library] or [""])),
        vmid=data.draw(st.none() | st.sampled_from(["", "1", "none"])),
    )
    meant = listed(*sorted((one for one in library if matches(one, filters)), key=place, reverse=order == "desc"))
    after = data.draw(st.none() | st.builds(Position, moments, st.sampled_from([one.dump_id for one in library] or [""])))

    async def compare(index: RecordIndex) -> None:
        page = await index.page(filters, limit=limit, order=order, offset=offset)
        assert decoded(page) == meant[offset : offset + limit]
        assert page.count == len(meant)
        behind = [
            one
            for one in meant
            if after is None or ((place(one) > place_of(after)) if order == "asc" else (place(one) < place_of(after)))
        ]
        page = await index.page(filters, limit=limit, order=order, after=after)
        assert list(decoded(page)) == behind[:limit]
        assert page.count == len(meant)
        assert page.next == (Position(*place(behind[limit - 1])) if len(behind) > limit else None)
        assert list(itertools.chain(*[from_json(chunk) async for chunk in index.chunks(filters, order)])) == list(meant)

    on_index(library, compare)


def place_of(position: Position) -> tuple[str, str]:
    return position.timestamp, position.dump_id


@settings(deadline=None, max_examples=150)
@given(libraries(), bounds, bounds)
def test_totals_by_vm_and_by_day_agree_with_a_plain_list(library: list[Manifest], since: str | None, until: str | None) -> None:
    meant = sorted((one for one in library if within(one, since, until)), key=place)

    async def compare(index: RecordIndex) -> None:
        vms = await index.stats_by_vm(since, until)
        by_vm = {(vm.uuid,) if vm.uuid else (vm.dom, vm.vmid): vm for vm in vms}
        assert len(by_vm) == len(vms)
        assert list(vms) == sorted(vms, key=lambda vm: (vm.dom, vm.vmid, vm.uuid))
        for key, records in grouped(meant, lambda one: (one.uuid,) if one.uuid else (one.dom, one.vmid), by_vm).items():
            check(by_vm[key], records)
            newest = max(one.timestamp for one in records)
            assert (by_vm[key].dom, by_vm[key].vmid) in {(one.dom, one.vmid) for one in records if one.timestamp == newest}
        days = await index.stats_by_day(since, until)
        assert [day.day for day in days] == sorted({one.timestamp[:10] for one in meant})
        for day, records in grouped(meant, lambda one: one.timestamp[:10], {day.day: day for day in days}).items():
            check({one.day: one for one in days}[day], records)
        stats = await index.stats()
        assert stats.total_dumps == len(library)
        assert stats.total_vms == len({(one.uuid,) if one.uuid else (one.dom, one.vmid) for one in library})
        assert stats.total_size_bytes == sum(one.gzip_size_bytes for one in library)
        assert stats.last_dump == max((one.timestamp for one in library), default=None)
        assert math.isclose(stats.avg_duration_sec, mean([one.duration_sec for one in library]), rel_tol=1e-9, abs_tol=1e-9)

    on_index(library, compare)


def grouped(records: list[Manifest], key: Callable[[Manifest], T], expected: Iterable[object]) -> dict[T, list[Manifest]]:
    groups: dict[T, list[Manifest]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    assert set(groups) == set(expected)
    return groups


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0


def check(total: VmStats | DayStats, records: list[Manifest]) -> None:
    assert total.total_dumps == len(records)
    assert total.total_size_bytes == sum(one.gzip_size_bytes for one in records)
    assert math.isclose(total.avg_duration_sec, mean([one.duration_sec for one in records]), rel_tol=1e-9, abs_tol=1e-9)
    assert math.isclose(total.avg_pause_ms, mean([one.guest_pause_ms for one in records]), rel_tol=1e-9, abs_tol=1e-9)
    assert total.longest_pause_ms == max(one.guest_pause_ms for one in records)
    assert total.last_dump == max(one.timestamp for one in records)


@settings(deadline=None, max_examples=60)
@given(texts, texts, texts)
@example("%", "", "")
@example("x" * 4096, "", "\0")
def test_a_piece_is_found_exactly_where_it_stands(piece: str, before: str, behind: str) -> None:
    holds = manifest_of(1, dom=before + piece + behind)
    other = manifest_of(2, dom="z")

    async def compare(index: RecordIndex) -> None:
        found = decoded(await index.page(Filters(q=piece), limit=10, order="asc"))
        assert found == listed(*(one for one in (holds, other) if matches(one, Filters(q=piece))))
        assert listed(holds)[0] in found

    on_index((holds, other), compare)


async def test_a_piece_never_reaches_from_one_value_into_the_next(tmp_path: Path) -> None:
    with contextlib.closing(State.open(tmp_path / "memory-dumps.sqlite3", SCHEMA)) as state:
        index = RecordIndex(state)
        await index.add(manifest_of(1, dom="web", vmid="101"))
        for piece in ("web101", "web\0" + "101", "web 101", "web\xff101", "web\ue0ff101", "b\udcff1"):
            assert (await index.page(Filters(q=piece), limit=10)).count == 0
        assert (await index.page(Filters(q="WEB"), limit=10)).count == 1


# --- how much work it is ------------------------------------------------------------------------------------------


class Counted:
    """A state whose reads count the steps that SQLite makes: what stays equal when there are more records is quick."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.steps = 0

    def _step(self) -> int:
        self.steps += 1
        return 0

    async def read(self, work: Callable[[sqlite3.Connection], T], *, slow: bool = False) -> T:
        self._connection.set_progress_handler(self._step, 1)
        return work(self._connection)


def filled(folder: Path, records: int) -> sqlite3.Connection:
    """An index of ten VMs, each with ten dumps a day."""
    file = folder / f"{records}.sqlite3"
    with contextlib.closing(State.open(file, SCHEMA)) as state:
        asyncio.run(RecordIndex(state).add_many(map(spread, range(records))))
    return sqlite3.connect(file)


def spread(number: int) -> Manifest:
    vm, day, hour = number % 10, number // 100, number // 10 % 10
    return manifest_of(
        number,
        timestamp=f"20{10 + day // 336:02d}-{1 + day // 28 % 12:02d}-{1 + day % 28:02d}T{hour:02d}:00:00.{number:06d}Z",
        dom=f"vm-{vm}",
        vmid=str(vm),
        uuid=f"u{vm}",
        sha256=f"{number * 2654435761 % 2**32:08x}" * 8,
        stored_sha256=f"{number * 2246822519 % 2**32:08x}" * 8,
    )


DAY = ("2010-01-02T00:00:00.000000Z", "2010-01-03T00:00:00.000000Z")
MIDDLE = Position("2010-01-05T05:00:00.000000Z", "")
QUESTIONS: dict[str, Callable[[RecordIndex], Awaitable[object]]] = {
    "first page": lambda index: index.page(Filters(), limit=50),
    "first page, oldest first": lambda index: index.page(Filters(), limit=50, order="asc"),
    "page of a VM": lambda index: index.page(Filters(dom="vm-3"), limit=20),
    "page of a vmid": lambda index: index.page(Filters(vmid="3"), limit=20),
    "page of a VM by both": lambda index: index.page(Filters(dom="vm-3", vmid="3"), limit=20),
    "page of a day": lambda index: index.page(Filters(since=DAY[0], until=DAY[1]), limit=50),
    "page of a VM's day": lambda index: index.page(Filters(since=DAY[0], until=DAY[1], vmid="3"), limit=50),
    "page by cursor": lambda index: index.page(Filters(since=DAY[0], until="2010-01-06"), limit=50, after=MIDDLE),
    "page by cursor, oldest first": lambda index: index.page(
        Filters(since=DAY[0], until="2010-01-06"), limit=50, after=MIDDLE, order="asc"
    ),
    "page by cursor of a VM": lambda index: index.page(
        Filters(since=DAY[0], until="2010-01-06", dom="vm-3"), limit=5, after=MIDDLE
    ),
    "piece of a hash": lambda index: index.page(Filters(q=spread(77).sha256[3:20]), limit=50),
    "totals": lambda index: index.stats(),
    "newest of each VM": lambda index: index.last_dumps(),
    "totals of two days by VM": lambda index: index.stats_by_vm(DAY[0], "2010-01-04T12:00:00.000000Z"),
    "totals of two days by day": lambda index: index.stats_by_day(DAY[0], "2010-01-04T12:00:00.000000Z"),
    "news": lambda index: index.since(1),
    "one": lambda index: index.get(manifest_of(3).dump_id),
}


@pytest.fixture(scope="module")
def small_and_large(tmp_path_factory: pytest.TempPathFactory) -> Iterable[tuple[sqlite3.Connection, sqlite3.Connection]]:
    folder = tmp_path_factory.mktemp("filled")
    with contextlib.closing(filled(folder, 1024)) as small, contextlib.closing(filled(folder, 4096)) as large:
        yield small, large


@pytest.mark.parametrize("question", QUESTIONS)
async def test_what_is_asked_often_is_no_more_work_with_more_records(
    small_and_large: tuple[sqlite3.Connection, sqlite3.Connection], question: str
) -> None:
    steps = []
    for connection in small_and_large:
        counted = Counted(connection)
        await QUESTIONS[question](RecordIndex(cast(State, counted)))
        steps.append(counted.steps)
    assert steps[1] <= 1.2 * steps[0] + 100, steps


# --- a VM whose dumps are old


def shared_names(folder: Path, records: int) -> sqlite3.Connection:
    """An index in which the forty oldest records are the only ones of one VM; all later ones have either its name or its vmid."""
    file = folder / f"shared-{records}.sqlite3"
    names = ({"dom": "vm-1", "vmid": "8"}, {"dom": "vm-3", "vmid": "1"})
    later = (replace(spread(40 + number), **names[number % 2]) for number in range(records))  # type: ignore[arg-type]  # texts
    old = (replace(spread(number), dom="vm-1", vmid="1", uuid="u") for number in range(40))
    with contextlib.closing(State.open(file, SCHEMA)) as state:
        asyncio.run(RecordIndex(state).add_many((*old, *later)))
    return sqlite3.connect(file)


@pytest.fixture(scope="module")
def few_and_many_since(tmp_path_factory: pytest.TempPathFactory) -> Iterable[tuple[sqlite3.Connection, sqlite3.Connection]]:
    folder = tmp_path_factory.mktemp("shared")
    with contextlib.closing(shared_names(folder, 500)) as few, contextlib.closing(shared_names(folder, 4000)) as many:
        yield few, many


@pytest.mark.parametrize("order", ["desc", "asc"])
@pytest.mark.parametrize(
    "more",
    [{}, {"since": "2010-01-01T00:00:00.000000Z"}, {"until": "2040-01-01T00:00:00.000000Z"}, {"since": DAY[0], "until": DAY[1]}],
)
async def test_the_old_dumps_of_a_vm_are_no_more_work_to_find_with_more_newer_ones_of_its_name_or_vmid(
    few_and_many_since: tuple[sqlite3.Connection, sqlite3.Connection], order: Order, more: dict[str, Any]
) -> None:
    steps, found = [], []
    for connection in few_and_many_since:
        counted = Counted(connection)
        page = await RecordIndex(cast(State, counted)).page(Filters(dom="vm-1", vmid="1", **more), limit=50, order=order)
        steps.append(counted.steps)
        found.append((len(page.records), page.count))
    assert found == [(0, 0) if "until" in more and "since" in more else (40, 40)] * 2
    assert steps[1] <= 1.2 * steps[0] + 100, steps


async def test_an_old_path_is_no_more_work_to_find_when_the_newest_dumps_lie_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "FEW", 40)
    steps = []
    for name, folder in (("stayed", "/srv/images/dumps"), ("moved", "/mnt/evidence/2026")):
        with contextlib.closing(State.open(tmp_path / name, SCHEMA)) as state:
            index = RecordIndex(state)
            await index.add_many(replace(spread(number), dump_path=f"/srv/images/dumps/{number}.mem") for number in range(3000))
            await index.add_many(replace(spread(number), dump_path=f"{folder}/{number}.mem") for number in range(3000, 3200))
        with contextlib.closing(sqlite3.connect(tmp_path / name)) as connection:
            counted = Counted(connection)
            page = await RecordIndex(cast(State, counted)).page(Filters(q="/srv/images/dumps/1234.mem"), limit=50)
            assert page.count == 1
            steps.append(counted.steps)
    assert steps[1] <= 1.5 * steps[0], steps


PLANS = {
    "records_by_time": Filters(),
    "records_by_dom": Filters(dom="vm-1"),
    "records_by_vmid": Filters(vmid="1"),
    "records_by_dom_and_vmid": Filters(dom="vm-1", vmid="1"),
}


@pytest.mark.parametrize("order", ["desc", "asc"])
@pytest.mark.parametrize("after", [None, MIDDLE])
@pytest.mark.parametrize("index", PLANS)
def test_a_page_is_a_stretch_of_one_index_and_nothing_is_sorted(
    few_and_many_since: tuple[sqlite3.Connection, sqlite3.Connection], index: str, after: Position | None, order: Order
) -> None:
    class Explained:
        """A connection that tells how a question would be answered, instead of the answer."""

        def execute(self, question: str, values: tuple[object, ...]) -> sqlite3.Cursor:
            return few_and_many_since[0].execute(f"EXPLAIN QUERY PLAN {question}", values)

    steps = walk(cast(sqlite3.Connection, Explained()), PLANS[index], order, 50, 0, after)
    (plan,) = (str(step[3]) for step in steps)  # type: ignore[misc]  # a row of a plan has four columns
    assert re.match(rf"(SEARCH|SCAN) records USING COVERING INDEX {index}\b", plan)
