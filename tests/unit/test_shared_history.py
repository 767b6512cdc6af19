"""The two loops beside the index, on a history in memory: they go on after every kind of trouble, and end when they are told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from app.errors import HistoryRefused, HistoryUnreachable
from app.model import HistoryStatus, Manifest
from app.records.index import SCHEMA as INDEX_SCHEMA
from app.records.index import RecordIndex
from app.records.outbox import SCHEMA as OUTBOX_SCHEMA
from app.records.outbox import commit
from app.records.pull import SCHEMA as PULL_SCHEMA
from app.records.shared import SharedHistory
from app.state import State
from tests.histories import SEC_NS, MemoryHistory, manifest_at

T0 = 1_750_000_000 * SEC_NS
PATIENCE_SEC = 20.0


class Scene:
    """A shared history that turns, and what it tells."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.far = MemoryHistory()
        self.told: list[str] = []
        self.said: list[HistoryStatus] = []
        self.news = asyncio.Event()
        self.history = SharedHistory(self.far, state, "here", take_in=self._take_in, changed=self._changed, tell=self._tell)

    async def _take_in(self, records: Sequence[Manifest], quiet: bool) -> int:
        return await RecordIndex(self.state).add_many(records)

    def _changed(self, status: HistoryStatus) -> None:
        self.said.append(status)
        self.news.set()

    async def _tell(self, kind: str, code: str, message: str) -> None:
        self.told.append(code)

    async def keep(self, manifest: Manifest) -> None:
        await self.state.run(lambda connection: commit(connection, manifest, queue=True))
        self.history.queued()

    async def until(self, fits: Callable[[HistoryStatus], bool]) -> HistoryStatus:
        async with asyncio.timeout(PATIENCE_SEC):
            while not (self.said and fits(self.said[-1])):
                self.news.clear()
                await self.news.wait()
        return self.said[-1]


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    with contextlib.closing(State.open(tmp_path / "state.sqlite3", INDEX_SCHEMA, OUTBOX_SCHEMA, PULL_SCHEMA)) as state:
        yield Scene(state)


@contextlib.asynccontextmanager
async def turning(scene: Scene) -> AsyncIterator[None]:
    await scene.history.open()
    task = asyncio.create_task(scene.history.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_what_is_queued_is_delivered_and_the_line_says_so(scene: Scene) -> None:
    async with turning(scene):
        await scene.keep(manifest_at(T0))
        status = await scene.until(lambda status: status.state == "connected" and status.pending == 0 and bool(scene.far.writes))
    assert status.summary == "History: connected"
    assert len(scene.far.rows) == 1
    assert scene.told == ["history-connected"]


async def test_away_at_the_start_then_there(scene: Scene) -> None:
    scene.far.failing = HistoryUnreachable("http://127.0.0.1:1", "refused")
    async with turning(scene):
        await scene.keep(manifest_at(T0))
        away = await scene.until(lambda status: status.state == "unreachable" and status.pending == 1)
        assert away.summary == "History: unreachable · 1 record waits for InfluxDB"
        assert away.message == str(scene.far.failing)
        scene.far.failing = None
        await scene.until(lambda status: status.state == "connected" and status.pending == 0)
    assert len(scene.far.rows) == 1
    assert scene.told == ["history-unreachable", "history-connected"]


async def test_a_token_that_may_only_read_is_tried_again_without_haste(scene: Scene) -> None:
    refused = HistoryRefused("http://127.0.0.1:1", "vmstats", "it may not write")

    async def write(points: Sequence[object]) -> None:
        scene.far.writes.append(len(points))
        raise refused

    scene.far.write = write  # type: ignore[method-assign]
    async with turning(scene):
        await scene.keep(manifest_at(T0))
        status = await scene.until(lambda status: status.state == "refused")
    assert (status.pending, status.message) == (1, str(refused))
    assert len(scene.far.writes) < 5


async def test_what_is_refused_for_good_is_told_and_counted(scene: Scene) -> None:
    scene.far.refused_doms = {"vm-web-01"}
    async with turning(scene):
        await scene.keep(manifest_at(T0))
        status = await scene.until(lambda status: status.set_aside == 1 and status.state == "connected")
    assert status.summary == "History: connected · 1 record set aside, refused by InfluxDB"
    assert "history-type-conflict" in scene.told


async def test_it_ends_also_when_news_come_in_the_same_moment(scene: Scene) -> None:
    await scene.history.open()
    for _ in range(20):
        task = asyncio.create_task(scene.history.run())
        await scene.until(lambda status: True)
        scene.history.queued()
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=PATIENCE_SEC)
        assert done


async def test_an_unexpected_error_is_told_and_the_loops_go_on(scene: Scene) -> None:
    write, window = scene.far.write, scene.far.window

    async def broken(*_: object, **__: object) -> None:
        raise OverflowError("int too large")

    scene.far.write = scene.far.window = broken  # type: ignore[assignment, method-assign]
    async with turning(scene):
        await scene.keep(manifest_at(T0))
        status = await scene.until(lambda status: status.state == "failed" and status.pending == 1)
        assert "int too large" in str(status.message)
        scene.far.write, scene.far.window = write, window  # type: ignore[method-assign]
        await scene.until(lambda status: status.state == "connected" and status.pending == 0)
    assert len(scene.far.rows) == 1
