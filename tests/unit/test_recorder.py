"""What is recorded is told, also when something beside it cannot be kept or told; and what could not be told is told later."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from app.changes import Changes, Subscription
from app.errors import StateUnwritable
from app.jobs.inventory import Inventory
from app.jobs.journal import SCHEMA as JOURNAL_SCHEMA
from app.jobs.journal import Journal, activity_now
from app.jobs.recorder import Recorder
from app.model import Activity, DumpRecord, Manifest
from app.records.by_hand import record_by_hand
from app.records.index import SCHEMA as INDEX_SCHEMA
from app.records.index import RecordIndex
from app.records.outbox import SCHEMA as OUTBOX_SCHEMA
from app.records.outbox import commit
from app.state import State
from tests.histories import SEC_NS, manifest_at

T0 = 1_750_000_000 * SEC_NS
PATIENCE_SEC = 20.0
FULL = StateUnwritable("The state file cannot be written: database or disk is full.")


class FullJournal(Journal):
    """Its disk is full as long as ``full`` is set."""

    full = False

    async def tell(self, line: Activity) -> None:
        if self.full:
            raise FULL
        await super().tell(line)


class FullIndex(RecordIndex):
    """Cannot say what is new as long as ``full`` is set."""

    full = False

    async def since(self, number: int) -> tuple[int, tuple[DumpRecord, ...]]:
        if self.full:
            raise FULL
        return await super().since(number)


class NoVms:
    """An inventory without VMs."""

    def dumped(self, record: DumpRecord) -> None:
        """Nobody sees it."""

    def publish(self) -> None:
        """There is nothing to tell."""


class Scene:
    """A recorder, and what it tells."""

    def __init__(self, state: State, heard: Subscription, changes: Changes) -> None:
        self.state = state
        self.heard = heard
        self.index = FullIndex(state)
        self.journal = FullJournal(state, lambda line: changes.publish("activity", line))
        self.recorder = Recorder(state, self.index, cast(Inventory, NoVms()), self.journal, changes)

    async def next(self, topic: str) -> list[object]:
        """The subjects of the next changes with one of this topic among them."""
        async with asyncio.timeout(PATIENCE_SEC):
            while True:
                changes, _ = await self.heard.next()
                if found := [change.subject for change in changes if change.topic == topic]:
                    return found

    async def by_hand(self, manifest: Manifest) -> None:
        """As the command line commits it."""
        await self.state.run(lambda connection: commit(connection, manifest, queue=False))


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with contextlib.closing(State.open(tmp_path / "state.sqlite3", INDEX_SCHEMA, OUTBOX_SCHEMA, JOURNAL_SCHEMA)) as state:
        yield state


@pytest.fixture
async def scene(state: State) -> AsyncIterator[Scene]:
    changes = Changes()
    with changes.subscribe(0) as heard:
        scene = Scene(state, heard, changes)
        await scene.recorder.open()
        yield scene


@contextlib.asynccontextmanager
async def watching(scene: Scene) -> AsyncIterator[None]:
    task = asyncio.create_task(scene.recorder.watch())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def dump_ids(records: list[object]) -> list[str]:
    return [record.dump_id for record in records if isinstance(record, Manifest)]


def fresh(number: int) -> Manifest:
    return replace(manifest_at(T0 + number * SEC_NS), mtime=int(time.time()))


async def test_a_record_by_hand_is_told_though_its_line_of_the_activity_log_cannot_be_kept(scene: Scene) -> None:
    scene.journal.full = True
    for number in (1, 2):
        await scene.by_hand(fresh(number))
    await scene.recorder.tell_new()
    assert dump_ids(await scene.next("record")) == [fresh(1).dump_id, fresh(2).dump_id]


async def test_a_line_that_cannot_be_kept_is_told_and_the_error_is_raised(scene: Scene) -> None:
    await scene.state.run(lambda connection: connection.execute("PRAGMA query_only=ON"))
    line = activity_now("info", "dump-scheduled", "admin asked for a dump.")
    with pytest.raises(StateUnwritable):
        await scene.journal.tell(line)
    assert await scene.next("activity") == [line]


async def test_a_record_that_is_kept_and_cannot_be_told_is_no_failure_and_is_told_later(scene: Scene) -> None:
    scene.index.full = True
    await scene.recorder.record(fresh(1))
    assert await scene.index.get(fresh(1).dump_id) is not None
    scene.index.full = False
    async with watching(scene):
        assert dump_ids(await scene.next("record")) == [fresh(1).dump_id]
    assert await scene.journal.activity(10) == ()  # for it was not made by hand


async def test_records_of_others_that_could_not_be_told_are_told_later_and_not_taken_for_those_of_a_command_line(
    scene: Scene,
) -> None:
    await scene.recorder.take_in([fresh(1)], False)
    assert dump_ids(await scene.next("record")) == [fresh(1).dump_id]

    async def breaks(number: int) -> tuple[int, tuple[DumpRecord, ...]]:
        if await scene.index.get(fresh(2).dump_id) is not None:
            raise FULL
        return number, ()

    since = scene.index.since
    scene.index.since = breaks  # type: ignore[method-assign]
    with pytest.raises(StateUnwritable):
        await scene.recorder.take_in([fresh(2)], False)
    scene.index.since = since  # type: ignore[method-assign]
    async with watching(scene):
        assert dump_ids(await scene.next("record")) == [fresh(2).dump_id]
    assert await scene.journal.activity(10) == ()


async def test_a_record_that_cannot_be_kept_is_an_error_and_is_by_hand_when_the_command_line_makes_it(
    scene: Scene, tmp_path: Path
) -> None:
    await scene.state.run(lambda connection: connection.execute("PRAGMA query_only=ON"))
    with pytest.raises(StateUnwritable):
        await scene.recorder.record(fresh(1))
    record_by_hand(tmp_path / "state.sqlite3", fresh(1))
    await scene.recorder.tell_new()
    changes, _ = await scene.heard.next()
    told = {change.topic: change.subject for change in changes}
    assert dump_ids([told["record"]]) == [fresh(1).dump_id]
    assert cast(Activity, told["activity"]).code == "dumped-by-hand"


async def test_totals_that_could_not_be_told_are_told_later(scene: Scene) -> None:
    stats = scene.index.stats

    async def breaks() -> None:
        raise FULL

    scene.index.stats = breaks  # type: ignore[assignment, method-assign]
    await scene.recorder.record(fresh(1))
    scene.index.stats = stats  # type: ignore[method-assign]
    async with watching(scene):
        await scene.next("stats")


async def test_an_error_that_nobody_thought_of_ends_no_watching(scene: Scene) -> None:
    since = scene.index.since

    async def breaks(_: int) -> tuple[int, tuple[DumpRecord, ...]]:
        scene.index.since = since  # type: ignore[method-assign]
        raise ValueError("nobody thought of this")

    scene.index.since = breaks  # type: ignore[assignment, method-assign]
    await scene.by_hand(fresh(1))
    async with watching(scene):
        assert dump_ids(await scene.next("record")) == [fresh(1).dump_id]
