"""The outbox and delivery from it: nothing lost, nothing sent twice, and nobody held up by one bad record."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from app.errors import HistoryFailed, HistoryUnreachable
from app.model import Manifest
from app.records.deliver import deliver_all as deliver_to_the_end
from app.records.deliver import deliver_batch
from app.records.index import SCHEMA as INDEX_SCHEMA
from app.records.index import RecordIndex
from app.records.outbox import BATCH, SCHEMA, Counts, Entry, Outbox, commit
from app.records.point import Point
from app.records.rebuild import queue_lacking, redeliver
from app.state import State
from tests.histories import HOUR_NS, SEC_NS, MemoryHistory, manifest_at
from tests.other_process import run

T0 = 1_750_000_000 * SEC_NS
DOWN = HistoryUnreachable("http://127.0.0.1:1", "refused")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "memory-dumps.sqlite3"


@pytest.fixture
async def state(file: Path) -> AsyncIterator[State]:
    with contextlib.closing(State.open(file, INDEX_SCHEMA, SCHEMA)) as state:
        yield state


@pytest.fixture
def outbox(state: State) -> Outbox:
    return Outbox(state, "service")


async def keep(state: State, *manifests: Manifest, queue: bool = True, unsure: bool = False) -> None:
    for manifest in manifests:
        await state.run(lambda connection, manifest=manifest: commit(connection, manifest, queue=queue, unsure=unsure))  # type: ignore[misc]


async def deliver_all(history: MemoryHistory, outbox: Outbox) -> None:
    while await deliver_batch(history, outbox) is not None:
        pass


def manifests(count: int) -> list[Manifest]:
    return [manifest_at(T0 + number * SEC_NS, dom=f"vm-{number}") for number in range(count)]


async def test_a_record_is_in_index_and_outbox_or_in_neither(state: State, outbox: Outbox) -> None:
    def die(connection: sqlite3.Connection) -> None:
        commit(connection, manifest_at(T0), queue=True)
        raise OSError("power cut")

    with pytest.raises(OSError, match="power cut"):
        await state.run(die)
    assert await RecordIndex(state).newest() == 0
    assert await outbox.counts() == Counts(0, 0)
    await keep(state, manifest_at(T0))
    assert await RecordIndex(state).newest() > 0
    assert await outbox.counts() == Counts(1, 0)


async def test_without_a_shared_history_nothing_waits(state: State, outbox: Outbox) -> None:
    await keep(state, manifest_at(T0), queue=False)
    assert await outbox.counts() == Counts(0, 0)


async def test_a_record_that_is_known_already_is_not_queued_again(state: State, outbox: Outbox) -> None:
    history = MemoryHistory()
    await keep(state, manifest_at(T0))
    await deliver_all(history, outbox)
    await keep(state, manifest_at(T0))
    assert await deliver_batch(history, outbox) is None
    assert len(history.rows) == 1


async def test_everything_that_waits_is_delivered_once_in_batches(state: State, outbox: Outbox) -> None:
    history = MemoryHistory()
    await keep(state, *manifests(5))
    delivery = await deliver_batch(history, outbox)
    assert delivery is not None
    assert [record.dom for record in delivery.delivered] == [f"vm-{number}" for number in range(5)]
    assert history.writes == [5]
    assert history.asked == []  # what was never sent need not be asked for
    assert await outbox.counts() == Counts(0, 0)


async def test_what_was_sent_when_the_answer_was_lost_is_not_sent_again(state: State, outbox: Outbox) -> None:
    history = MemoryHistory()
    await keep(state, *manifests(3))
    history.failing_after_write = DOWN
    with pytest.raises(HistoryUnreachable):
        await deliver_batch(history, outbox)
    assert await outbox.counts() == Counts(3, 0)
    history.failing_after_write = None
    await deliver_all(history, outbox)
    assert len(history.rows) == 3
    assert await outbox.counts() == Counts(0, 0)


async def test_a_process_that_died_between_sending_and_knowing_leaves_nothing_lost_or_doubled(state: State, outbox: Outbox) -> None:
    history = MemoryHistory()
    sent, unsent = manifests(2)
    await keep(state, sent, unsent)
    assert len(await outbox.take()) == 2  # and then SIGKILL, one of the points having arrived
    history.add(sent)
    assert await outbox.take() == ()
    await outbox.give_back()
    await deliver_all(history, outbox)
    assert sorted(str(row["dom"]) for row in history.rows) == ["vm-0", "vm-1"]


async def test_two_who_deliver_do_not_get_the_same_records(state: State, outbox: Outbox) -> None:
    await keep(state, *manifests(2))
    mine = await outbox.take(limit=1)
    others = await Outbox(state, "by hand 7").take()
    assert [entry.record.dom for entry in (*mine, *others)] == ["vm-0", "vm-1"]
    await Outbox(state, "by hand 7").give_back()
    assert [entry.record.dom for entry in await outbox.take()] == ["vm-1"]


async def test_a_command_line_takes_its_own_dumps_alone(state: State) -> None:
    first, second = manifests(2)
    await keep(state, first, second)
    by_hand = Outbox(state, "by hand 7")
    assert [entry.record for entry in await by_hand.take([second.dump_id])] == [second]
    assert await by_hand.pending([second.dump_id]) == 1


async def test_while_the_history_is_away_everything_stays(state: State, outbox: Outbox) -> None:
    history = MemoryHistory()
    history.failing = DOWN
    await keep(state, *manifests(3))
    for _ in range(3):
        with pytest.raises(HistoryUnreachable):
            await deliver_batch(history, outbox)
    history.failing = None
    await deliver_all(history, outbox)
    assert len(history.rows) == 3


async def test_what_is_refused_for_good_is_set_aside_and_the_others_go(state: State, outbox: Outbox) -> None:
    history = MemoryHistory()
    history.refused_doms = {"vm-1"}
    await keep(state, *manifests(3))
    delivery = await deliver_batch(history, outbox)
    assert delivery is not None
    assert [(record.dom, why) for record, why in delivery.refused] == [("vm-1", "column type conflict")]
    assert [row["dom"] for row in history.rows] == ["vm-0", "vm-2"]
    assert await outbox.counts() == Counts(0, 1)
    assert await outbox.refusals([manifests(3)[1].dump_id]) == ["column type conflict"]
    assert await deliver_batch(history, outbox) is None


async def test_a_record_that_the_history_cannot_be_asked_for_holds_up_no_other(state: State, outbox: Outbox) -> None:
    history, (unsure, *fresh) = MemoryHistory(), manifests(3)
    history.ill_ns = (T0 - SEC_NS, T0 + SEC_NS)
    await keep(state, unsure, unsure=True)
    with pytest.raises(HistoryFailed):
        await deliver_batch(history, outbox)
    await keep(state, *fresh)
    delivery = await deliver_batch(history, outbox)
    assert delivery is not None
    assert [record.dom for record in delivery.delivered] == ["vm-1", "vm-2"]
    with pytest.raises(HistoryFailed):
        await deliver_batch(history, outbox)
    history.ill_ns = None
    await deliver_all(history, outbox)
    assert sorted(str(row["dom"]) for row in history.rows) == ["vm-0", "vm-1", "vm-2"]


async def test_in_one_batch_those_go_that_need_not_be_asked_for(state: State, outbox: Outbox) -> None:
    history, (unsure, *fresh) = MemoryHistory(), manifests(3)
    history.ill_ns = (T0 - SEC_NS, T0 + SEC_NS)
    await keep(state, unsure, unsure=True)
    await keep(state, *fresh)
    delivery = await deliver_batch(history, outbox)
    assert delivery is not None
    assert [record.dom for record in delivery.delivered] == ["vm-1", "vm-2"]
    assert await outbox.counts() == Counts(1, 0)


async def test_one_that_fails_without_a_reason_is_found_and_holds_up_no_other(state: State, outbox: Outbox) -> None:
    class Poisoned(MemoryHistory):
        async def write(self, points: Sequence[Point]) -> None:
            if any(point.dom == "vm-1" for point in points):
                raise HistoryFailed("InfluxDB answered with 500.")
            await super().write(points)

    history = Poisoned()
    await keep(state, *manifests(4))
    with pytest.raises(HistoryFailed):
        await deliver_batch(history, outbox)
    failures = 0
    while await outbox.counts() != Counts(1, 0):
        try:
            await deliver_batch(history, outbox)
        except HistoryFailed:
            failures += 1
    assert failures <= 1
    assert sorted(str(row["dom"]) for row in history.rows) == ["vm-0", "vm-2", "vm-3"]


async def test_a_record_that_can_be_no_point_is_set_aside(state: State, outbox: Outbox) -> None:
    await keep(state, replace(manifest_at(T0), raw_size_bytes=2**63), manifest_at(T0 + SEC_NS))
    delivery = await deliver_batch(MemoryHistory(), outbox)
    assert delivery is not None
    assert (len(delivery.delivered), len(delivery.refused)) == (1, 1)


async def test_what_the_history_lacks_is_queued_and_a_second_time_changes_nothing(state: State, outbox: Outbox) -> None:
    history = MemoryHistory()
    there, lacking, far = manifest_at(T0), manifest_at(T0 + SEC_NS, dom="vm-1"), manifest_at(T0 + 10_000 * HOUR_NS, dom="vm-2")
    history.add(there)
    await keep(state, there, lacking, far, queue=False)
    index = RecordIndex(state)
    assert await queue_lacking(index, history, outbox) == 2
    assert await queue_lacking(index, history, outbox) == 0
    await deliver_all(history, outbox)
    assert sorted(str(row["dom"]) for row in history.rows) == ["vm-1", "vm-2", "vm-web-01"]
    assert await queue_lacking(index, history, outbox) == 0


async def test_what_was_set_aside_is_tried_again_when_asked_for(state: State, outbox: Outbox) -> None:
    history = MemoryHistory()
    history.refused_doms = {"vm-0"}
    await keep(state, *manifests(1))
    await deliver_all(history, outbox)
    history.refused_doms = set()
    assert await queue_lacking(RecordIndex(state), history, outbox) == 1
    await deliver_all(history, outbox)
    assert await outbox.counts() == Counts(0, 0)
    assert len(history.rows) == 1


async def test_what_arrived_by_another_way_is_no_longer_set_aside(state: State, outbox: Outbox) -> None:
    history = MemoryHistory()
    history.refused_doms = {"vm-0"}
    await keep(state, *manifests(1))
    await deliver_all(history, outbox)
    history.add(*manifests(1))
    assert await queue_lacking(RecordIndex(state), history, outbox) == 0
    assert await outbox.counts() == Counts(0, 0)


# --- a command, to its end ------------------------------------------------------------------------------------------


async def test_a_command_delivers_all_it_can_and_counts_what_is_refused(state: State) -> None:
    history = MemoryHistory()
    history.refused_doms = {"vm-1"}
    await keep(state, *manifests(3), queue=False)
    done = await redeliver([], RecordIndex(state), history, Outbox(state, "by hand 7"))
    assert (done.lacked, done.delivered, done.waiting, done.refusals) == (3, 2, 0, ("column type conflict",))
    assert done.why is None


async def test_what_the_service_beside_a_command_delivers_or_is_refused_is_counted(state: State, outbox: Outbox) -> None:
    await keep(state, *manifests(2))
    delivered, refused = await outbox.take()

    class Beside(Outbox):
        """The command's; when it first looks for work, the service has just done it."""

        async def take(self, only: Sequence[str] | None = None, *, limit: int = BATCH) -> tuple[Entry, ...]:
            await outbox.delivered([delivered])
            await outbox.set_aside([refused], "no such column")
            return await super().take(only, limit=limit)

    done = await redeliver([], RecordIndex(state), MemoryHistory(), Beside(state, "by hand 7"))
    assert (done.lacked, done.delivered, done.waiting) == (0, 1, 0)
    assert (done.refusals, done.why) == (("no such column",), None)


async def test_a_command_waits_for_what_the_service_beside_it_has_taken(state: State, outbox: Outbox) -> None:
    await keep(state, *manifests(2))
    taken = await outbox.take()
    command = asyncio.create_task(deliver_to_the_end(MemoryHistory(), Outbox(state, "by hand 7")))
    await outbox.delivered(taken[:1])
    assert not command.done()
    await outbox.set_aside(taken[1:], "no such column")
    assert await command is None
    assert await outbox.refusals() == ["no such column"]


async def test_when_the_history_is_away_the_records_of_the_dumps_here_are_queued_and_twice_is_as_once(
    state: State, outbox: Outbox
) -> None:
    history = MemoryHistory()
    history.failing = DOWN
    here, elsewhere = manifests(2)
    await keep(state, here, elsewhere, queue=False)
    for _ in range(2):
        done = await redeliver([here.dump_id], RecordIndex(state), history, outbox)
        assert (done.lacked, done.delivered, done.waiting, done.refusals) == (None, 0, 1, ())
        assert done.why == str(DOWN)
    history.failing = None
    history.add(here)
    await deliver_all(history, outbox)
    assert [row["dump_id"] for row in history.rows] == [here.dump_id]


def test_none_of_it_imports_the_client() -> None:
    ended = run(
        "import sys, app.application, app.records.by_hand\n"
        "print([name for name in sys.modules if name.startswith(('influxdb_client_3', 'pyarrow', 'urllib3'))])"
    )
    assert ended.stdout.strip() == "[]", ended.stderr
