"""What one long request is answered with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from app.changes import Advance, Changes, Subscription
from app.model import Phase, Progress
from app.web.longrequest import gathered
from app.web.subscriber import News, Subscriber

EVERYTHING = frozenset({"job", "stats", "progress"})


def advance(changes: Changes, job_id: str, bytes_done: int) -> None:
    progress = Progress(bytes_done=bytes_done, bytes_total=100, rate_bytes_per_sec=1.0, eta_sec=None, guest_paused=False)
    changes.advance(job_id, Phase.CAPTURING, progress)


def subscriber(changes: Changes, subscription: Subscription, topics: frozenset[str] = EVERYTHING) -> Subscriber:
    return Subscriber(changes, subscription, topics, None)


def told(news: list[News]) -> list[object]:
    """Progress as job and bytes, a change as what it is about."""
    return [(one.job_id, one.progress.bytes_done) if isinstance(one, Advance) else one.subject for one in news]


async def answer(
    *events: Callable[[Changes], None], topics: frozenset[str] = EVERYTHING, wait_sec: float = 20, gather_sec: float = 20
) -> list[object]:
    """What a request is answered with while these happen, one in each turn of the loop."""
    changes = Changes()
    with changes.subscribe(0) as subscription:
        asked = asyncio.ensure_future(gathered(subscriber(changes, subscription, topics), wait_sec, gather_sec))
        for event in events:
            for _ in range(3):
                await asyncio.sleep(0)
            event(changes)
        return told(await asked)


async def test_a_change_is_the_answer_at_once_and_progress_that_waited_for_more_goes_before_it() -> None:
    assert await answer(
        lambda changes: advance(changes, "a", 1),
        lambda changes: advance(changes, "b", 1),
        lambda changes: advance(changes, "a", 2),
        lambda changes: changes.publish("job", "sealed"),
    ) == [("a", 2), ("b", 1), "sealed"]


async def test_of_progress_alone_the_newest_of_each_job_is_the_answer() -> None:
    assert await answer(
        lambda changes: advance(changes, "a", 1),
        lambda changes: advance(changes, "b", 1),
        lambda changes: advance(changes, "a", 2),
        gather_sec=1,
    ) == [("a", 2), ("b", 1)]


async def test_what_nobody_asked_for_is_no_answer() -> None:
    assert await answer(
        lambda changes: changes.publish("stats", "not wanted"),
        lambda changes: advance(changes, "a", 1),
        lambda changes: changes.publish("job", "wanted"),
        topics=frozenset({"job"}),
    ) == ["wanted"]  # fmt: skip


async def test_without_any_wait_the_answer_is_what_is_there() -> None:
    assert await answer(wait_sec=0) == []
    changes = Changes()
    place = changes.place
    advance(changes, "a", 1)
    with changes.subscribe(place.change, place.advance) as subscription:
        assert told(await gathered(subscriber(changes, subscription), 0)) == [("a", 1)]


async def test_one_that_is_stopped_waits_no_longer_and_can_come_back_where_it_was() -> None:
    changes = Changes()
    changes.publish("job", "old")
    with changes.subscribe(1) as subscription:
        stopped = subscriber(changes, subscription)
        asked = asyncio.ensure_future(gathered(stopped, 20))
        await asyncio.sleep(0)
        stopped.stop()
        assert await asked == []
        assert changes.place_of(stopped.cursor) == changes.place
        assert await gathered(stopped, 20) == []
