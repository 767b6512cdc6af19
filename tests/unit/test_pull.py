"""Pulling: every point of a history is asked for, in windows that fit, once; again for what came late; resumed after a stop."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Iterator, MutableMapping, Sequence
from pathlib import Path

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from app.errors import HistoryTooWide, HistoryUnreachable
from app.model import Manifest
from app.records.columns import NoRecord
from app.records.index import SCHEMA as INDEX_SCHEMA
from app.records.index import RecordIndex
from app.records.passed_over import MOST, PassedOver
from app.records.pull import AHEAD_NS, PAGE, SCHEMA, Progress, Sweep, clusters, rows_between, time_ns_of, unknown_to
from app.records.pull import MOST as MOST_ROWS
from app.records.puller import Puller
from app.state import State
from tests.histories import HOUR_NS, SEC_NS, MemoryHistory, manifest_at

NOW = 1_750_000_000 * SEC_NS
YEAR_NS = 365 * 24 * HOUR_NS
MOST_STEPS = 3000

moments = st.lists(st.integers(0, NOW // 1000).map(lambda us: us * 1000), max_size=60)


def swept(times: Sequence[int], sweep: Sweep, *, widest_ns: int | None = None) -> tuple[set[int], int]:
    """What a sweep to its end brings of points at ``times``, and how many questions that took."""
    brought: set[int] = set()
    for asked in range(MOST_STEPS):
        if sweep.done:
            return brought, asked
        since, until = sweep.window()
        assert since < until
        inside = sorted(at for at in times if since <= at < until)
        if widest_ns is not None and inside and until - since > widest_ns:
            sweep = sweep.narrower()
        else:
            brought |= set(inside[: sweep.limit])
            sweep = sweep.after(min(len(inside), sweep.limit))
    raise AssertionError("the sweep does not end")


@given(moments, st.integers(1, 20), st.one_of(st.none(), st.integers(HOUR_NS, YEAR_NS)))
def test_a_sweep_brings_everything_whatever_the_limits(times: list[int], limit: int, widest_ns: int | None) -> None:
    distinct = sorted(set(times))
    assert swept(distinct, Sweep(NOW + AHEAD_NS, limit=limit), widest_ns=widest_ns)[0] == set(distinct)


@given(moments, st.integers(0, NOW), st.integers(0, NOW))
def test_a_sweep_that_is_resumed_brings_all_but_what_was_read_before(times: list[int], one: int, other: int) -> None:
    low, high = sorted((one, other))
    if low < high:
        brought, _ = swept(times, Sweep(NOW + AHEAD_NS, read_ns=(low, high), limit=20))
        assert brought >= {at for at in times if not low <= at < high}


def test_an_empty_or_a_small_history_costs_few_questions() -> None:
    assert swept([], Sweep(NOW + AHEAD_NS))[1] < 12
    assert swept([NOW - HOUR_NS * number * 24 for number in range(100)], Sweep(NOW + AHEAD_NS))[1] < 12


def test_a_limit_of_files_does_not_make_the_empty_past_dear() -> None:
    a_month = [NOW - HOUR_NS * number for number in range(24 * 30)]
    assert swept(a_month, Sweep(NOW + AHEAD_NS), widest_ns=72 * HOUR_NS)[1] < 60


def test_where_one_moment_has_more_than_a_page_more_is_asked_for() -> None:
    sweep = Sweep(NOW, width_ns=1000)
    more = sweep.after(PAGE)
    assert (more.window(), more.limit) == (sweep.window(), PAGE * 10)
    assert (more.after(PAGE + 1).upper_ns, more.after(PAGE + 1).limit) == (NOW - 1000, PAGE)
    assert Sweep(NOW, width_ns=1000, limit=MOST_ROWS).after(MOST_ROWS).upper_ns == NOW - 1000  # there is an end to it


async def test_more_rows_of_one_moment_than_one_answer_holds_all_come() -> None:
    history = MemoryHistory()
    for at in (NOW, NOW + SEC_NS):
        history.add(*(manifest_at(at, dom=f"vm-{number}") for number in range(PAGE + 500)))
    found = {(row["time"], row["dom"]) async for rows in rows_between(history, NOW, NOW + HOUR_NS) for row in rows}
    assert len(found) == 2 * (PAGE + 500)


def test_a_window_that_is_too_wide_however_narrow_is_passed_over() -> None:
    sweep = Sweep(NOW, width_ns=1500)
    assert sweep.narrower().upper_ns < NOW


async def test_a_stretch_is_read_in_as_many_questions_as_it_takes() -> None:
    history = MemoryHistory(widest_ns=10 * HOUR_NS)
    history.add(*(manifest_at(NOW + number * HOUR_NS) for number in range(50)))
    found = [row["time"] async for rows in rows_between(history, NOW, NOW + 50 * HOUR_NS) for row in rows]
    assert found == [NOW + number * HOUR_NS for number in range(50)]


async def test_more_rows_than_one_answer_holds_all_come() -> None:
    history = MemoryHistory()
    history.add(*(manifest_at(NOW + number * 1000) for number in range(PAGE * 2 + 10)))
    found = {row["time"] async for rows in rows_between(history, NOW, NOW + HOUR_NS) for row in rows}
    assert len(found) == PAGE * 2 + 10


async def test_what_is_too_wide_at_its_narrowest_is_said() -> None:
    history = MemoryHistory(widest_ns=0)
    history.add(manifest_at(NOW))
    with pytest.raises(HistoryTooWide):
        [rows async for rows in rows_between(history, NOW, NOW + HOUR_NS)]


def test_records_far_apart_are_asked_for_apart() -> None:
    near = [manifest_at(NOW), manifest_at(NOW + HOUR_NS), manifest_at(NOW - YEAR_NS)]
    assert clusters(near) == [(NOW - YEAR_NS, NOW - YEAR_NS + 1000), (NOW, NOW + HOUR_NS + 1000)]
    assert clusters([]) == []


@given(st.integers(0, 4_000_000_000_000_000))
def test_a_records_time_is_exact(microseconds: int) -> None:
    assert time_ns_of(manifest_at(microseconds * 1000)) == microseconds * 1000


# --- with an index --------------------------------------------------------------------------------------------------


class Taken:
    """What a puller hands on, kept in an index."""

    def __init__(self, index: RecordIndex) -> None:
        self._index = index
        self.loud: list[Manifest] = []
        self.quiet: list[Manifest] = []

    async def take_in(self, records: Sequence[Manifest], quiet: bool) -> int:
        (self.quiet if quiet else self.loud).extend(records)
        return await self._index.add_many(records)


@pytest.fixture
async def state(tmp_path: Path) -> AsyncIterator[State]:
    with contextlib.closing(State.open(tmp_path / "state.sqlite3", INDEX_SCHEMA, SCHEMA)) as state:
        yield state


@pytest.fixture
def taken(state: State) -> Taken:
    return Taken(RecordIndex(state))


async def puller_of(history: MemoryHistory, state: State, taken: Taken) -> Puller:
    puller = Puller(history, state, Progress(state, "here"), taken.take_in)
    await puller.open()
    return puller


async def pull_all(puller: Puller) -> None:
    for _ in range(MOST_STEPS):
        if not await puller.step():
            return
    raise AssertionError("the pull does not end")


async def test_the_recent_window_brings_what_others_sealed_just_now_once(state: State, taken: Taken) -> None:
    history = MemoryHistory()
    puller = await puller_of(history, state, taken)
    new = manifest_at(time.time_ns() // 1000 * 1000 - SEC_NS)
    history.add(new, manifest_at(time.time_ns() - YEAR_NS))
    await puller.recent()
    await puller.recent()
    assert [record.dump_id for record in taken.loud] == [new.dump_id]
    late = manifest_at(time.time_ns() // 1000 * 1000 - 60 * SEC_NS, dom="slow")  # began before the other, arrived after it
    history.add(late)
    await puller.recent()
    assert [record.dump_id for record in taken.loud] == [new.dump_id, late.dump_id]


async def test_our_own_points_and_doubled_ones_do_not_double(state: State, taken: Taken) -> None:
    ours = manifest_at(time.time_ns() // 1000 * 1000 - SEC_NS)
    foreign = manifest_at(time.time_ns() // 1000 * 1000 - 2 * SEC_NS, dom="other")
    await RecordIndex(state).add(ours)
    history = MemoryHistory()
    history.add(ours, foreign, foreign)
    for one in (ours, foreign):
        history.rows.append({"time": time_ns_of(one), "dom": one.dom, "vmid": one.vmid})  # without its dump_id
    puller = await puller_of(history, state, taken)
    await puller.recent()
    await pull_all(puller)
    assert [record.dump_id for record in (*taken.loud, *taken.quiet)] == [foreign.dump_id]
    unknown = await state.read(lambda connection: unknown_to(connection, [ours, foreign]))
    assert unknown == ()


async def test_a_long_history_comes_newest_first_in_bounded_questions_and_is_known_to_be_finished(
    state: State, taken: Taken
) -> None:
    history = MemoryHistory(widest_ns=30 * 24 * HOUR_NS)
    history.add(*(manifest_at(time.time_ns() // 1000 * 1000 - number * 24 * HOUR_NS, dom=f"vm-{number}") for number in range(700)))
    puller = await puller_of(history, state, taken)
    await puller.step()
    assert taken.quiet[0].dom == "vm-0"
    assert puller.first is not None
    assert not puller.first.finished
    await pull_all(puller)
    assert len(taken.quiet) == 700
    assert (puller.first.finished, puller.first.found) == (True, 700)
    assert not await puller.step()  # not due again at once


async def test_a_first_pull_goes_on_where_it_stopped(state: State, taken: Taken) -> None:
    history = MemoryHistory(widest_ns=30 * 24 * HOUR_NS)
    history.add(*(manifest_at(time.time_ns() // 1000 * 1000 - number * 24 * HOUR_NS) for number in range(2, 700)))
    puller = await puller_of(history, state, taken)
    while len(taken.quiet) < 300:
        await puller.step()
    so_far = puller.first
    assert so_far is not None
    history.asked.clear()
    again = await puller_of(history, state, taken)
    assert again.first == so_far
    history.add(manifest_at(time.time_ns() // 1000 * 1000 - HOUR_NS))  # came while nobody looked
    await pull_all(again)
    assert len(taken.quiet) == 699
    read_twice = [(since, until) for since, until in history.asked if since >= so_far.upper_ns and until <= so_far.top_ns]
    assert read_twice == []


async def test_what_came_late_is_found_by_the_next_sweep(state: State, taken: Taken) -> None:
    history = MemoryHistory()
    puller = await puller_of(history, state, taken)
    await pull_all(puller)
    late = manifest_at(time.time_ns() // 1000 * 1000 - 100 * HOUR_NS)
    history.add(late)
    await puller.recent()
    assert taken.loud == []
    puller.begin_again()
    await pull_all(puller)
    assert [record.dump_id for record in taken.loud] == [late.dump_id]
    assert taken.quiet == []  # that is for the first pull


async def test_where_little_is_new_what_is_late_by_up_to_two_days_comes_with_it(state: State, taken: Taken) -> None:
    history = MemoryHistory()
    puller = await puller_of(history, state, taken)
    for _ in range(8):
        await puller.recent()
    now_ns = time.time_ns() // 1000 * 1000
    late, too_late = manifest_at(now_ns - 47 * HOUR_NS), manifest_at(now_ns - 50 * HOUR_NS)
    history.add(late, too_late)
    await puller.recent()
    assert [record.dump_id for record in taken.loud] == [late.dump_id]
    history.add(*(manifest_at(now_ns - HOUR_NS // 2, dom=f"vm-{number}") for number in range(400)))
    for _ in range(8):
        await puller.recent()
    since, until = history.asked[-1]
    assert until - since == HOUR_NS + AHEAD_NS  # each row is carried every time


async def test_an_outage_in_the_middle_loses_nothing(state: State, taken: Taken) -> None:
    history = MemoryHistory(widest_ns=30 * 24 * HOUR_NS)
    history.add(*(manifest_at(time.time_ns() // 1000 * 1000 - number * 24 * HOUR_NS) for number in range(2, 200)))
    puller = await puller_of(history, state, taken)
    await puller.step()
    history.failing = HistoryUnreachable("http://127.0.0.1:1", "refused")
    with pytest.raises(HistoryUnreachable):
        await puller.step()
    history.failing = None
    puller.begin_again()
    await pull_all(puller)
    assert len({record.dump_id for record in taken.quiet}) == 198


async def test_windows_that_are_not_answered_in_time_become_narrower_and_nothing_is_lost(state: State, taken: Taken) -> None:
    history = MemoryHistory(widest_ns=30 * 24 * HOUR_NS)
    history.of_wide = HistoryUnreachable("http://127.0.0.1:1", "no answer within 10 s")
    history.add(*(manifest_at(time.time_ns() // 1000 * 1000 - number * 24 * HOUR_NS) for number in range(2, 400)))
    puller = await puller_of(history, state, taken)
    await pull_all(puller)
    assert len(taken.quiet) == 398
    assert puller.first is not None
    assert puller.first.finished


async def test_time_that_the_history_cannot_be_asked_about_is_passed_over_and_said(
    state: State, taken: Taken, logged: list[MutableMapping[str, object]]
) -> None:
    history, now_ns = MemoryHistory(), time.time_ns() // 1000 * 1000
    history.add(*(manifest_at(now_ns - number * 24 * HOUR_NS) for number in range(2, 100)))
    history.ill_ns = (now_ns - 50 * 24 * HOUR_NS, now_ns - 50 * 24 * HOUR_NS + 3 * SEC_NS)
    await pull_all(await puller_of(history, state, taken))
    assert len(taken.quiet) == 97
    passed_over = [line for line in logged if line["event"] == "history_window_passed_over"]
    assert 3 <= len(passed_over) <= 8


@pytest.fixture
def logged() -> Iterator[list[MutableMapping[str, object]]]:
    with structlog.testing.capture_logs() as lines:
        yield lines


async def test_what_is_no_record_is_passed_over_and_said_once_with_how_many(
    state: State, taken: Taken, logged: list[MutableMapping[str, object]]
) -> None:
    now_ns = time.time_ns() // 1000 * 1000
    history = MemoryHistory()
    wrong = {"dom": "x", "vmid": "1", "gzip_size_bytes": -1}
    history.rows += [{**wrong, "time": now_ns - number * SEC_NS} for number in range(1, 4)]
    history.rows.append({"dom": "x", "vmid": "1", "duration_sec": 1e300, "time": now_ns - 5 * SEC_NS})
    good = manifest_at(now_ns - 10 * SEC_NS)
    history.add(good)
    puller = await puller_of(history, state, taken)
    await puller.recent()
    history.rows.append({**wrong, "time": now_ns - 7 * SEC_NS})
    await puller.recent()
    await pull_all(puller)
    assert [record.dump_id for record in taken.loud] == [good.dump_id]
    said = {(line["column"], line["value"]): line["count"] for line in logged if line["event"] == "history_rows_passed_over"}
    assert said == {("gzip_size_bytes", "-1"): 3, ("duration_sec", "1e+300"): 1}
    assert len(logged) == len(said)


def test_of_ever_new_kinds_no_more_are_told_than_a_log_can_bear(logged: list[MutableMapping[str, object]]) -> None:
    passed_over = PassedOver()
    for number in range(3 * MOST):
        passed_over.note(NoRecord("ctime", -number))
        passed_over.tell()
    assert [line.get("value") for line in logged[:MOST]] == [repr(-number) for number in range(MOST)]
    assert len(logged) == MOST + 1
    assert "no more" in str(logged[-1]["message"])


def test_a_value_is_told_short() -> None:
    assert len(NoRecord("time", "x" * 10_000).value) < 100


async def test_a_row_that_no_timestamp_can_show_is_passed_over(state: State, taken: Taken) -> None:
    history = MemoryHistory()
    history.rows.append({"time": None, "dom": "x", "vmid": "1"})
    good = manifest_at(time.time_ns() // 1000 * 1000 - SEC_NS)

    async def window(since_ns: int, until_ns: int, *, limit: int) -> list[dict[str, object]]:
        return [*history.rows, {"time": time_ns_of(good), "dom": good.dom, "vmid": good.vmid, "dump_id": good.dump_id}]

    history.window = window  # type: ignore[method-assign]
    puller = await puller_of(history, state, taken)
    await puller.recent()
    assert [record.dump_id for record in taken.loud] == [good.dump_id]
