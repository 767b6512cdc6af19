"""Publish and subscribe: nothing lost, nothing doubled, nobody held up, and the slow one told so."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.changes import HELD, Changes, Place, SubscriberLost, Subscription
from app.model import Phase, Progress


def publish(changes: Changes, count: int) -> None:
    for number in range(count):
        changes.publish("job", number)


def number_of(changes: Changes, cursor: str) -> int | None:
    place = changes.place_of(cursor)
    return place.change if place is not None else None


def progress(bytes_done: int) -> Progress:
    return Progress(bytes_done=bytes_done, bytes_total=100, rate_bytes_per_sec=1.0, eta_sec=None, guest_paused=False)


async def numbers(subscription: Subscription) -> list[int]:
    changes, _ = await subscription.next()
    return [change.number for change in changes]


async def test_everything_after_a_place_comes_once_and_in_order() -> None:
    changes = Changes()
    publish(changes, 5)
    with changes.subscribe(2) as subscription:
        assert await numbers(subscription) == [3, 4, 5]
        publish(changes, 2)
        assert await numbers(subscription) == [6, 7]


async def test_a_subscriber_waits_until_there_is_something() -> None:
    changes = Changes()
    with changes.subscribe(0) as subscription:
        waiting = asyncio.ensure_future(subscription.next())
        await asyncio.sleep(0)
        assert not waiting.done()
        changes.publish("stats", "news")
        told, _ = await waiting
        assert [(change.topic, change.subject) for change in told] == [("stats", "news")]


async def test_subscribers_do_not_take_from_each_other() -> None:
    changes = Changes()
    with changes.subscribe(0) as one, changes.subscribe(0) as other:
        publish(changes, 3)
        assert await numbers(one) == await numbers(other) == [1, 2, 3]


async def test_one_that_is_exactly_as_far_behind_as_is_held_loses_nothing() -> None:
    changes = Changes()
    with changes.subscribe(0) as subscription:
        publish(changes, HELD)
        assert not subscription.lost.is_set()
        assert await numbers(subscription) == list(range(1, HELD + 1))


async def test_one_that_is_one_change_further_behind_is_lost_and_told_so_while_others_go_on() -> None:
    changes = Changes()
    with changes.subscribe(0) as slow, changes.subscribe(0) as quick:
        publish(changes, HELD)
        assert len(await numbers(quick)) == HELD
        publish(changes, 1)
        assert slow.lost.is_set()
        assert not quick.lost.is_set()
        with pytest.raises(SubscriberLost):
            await slow.next()
        assert await numbers(quick) == [HELD + 1]


async def test_one_that_left_is_told_nothing() -> None:
    changes = Changes()
    with changes.subscribe(0) as subscription:
        pass
    publish(changes, HELD + 1)
    assert not subscription.lost.is_set()
    assert not subscription.news.is_set()


# --- progress


async def test_of_progress_only_the_newest_of_each_job_is_told() -> None:
    changes = Changes()
    with changes.subscribe(0) as subscription:
        for bytes_done in range(10):
            changes.advance("a", Phase.CAPTURING, progress(bytes_done))
        changes.advance("b", Phase.SEALING, progress(50))
        _, advances = await subscription.next()
        assert [(one.job_id, one.phase, one.progress.bytes_done) for one in advances] == [
            ("a", Phase.CAPTURING, 9), ("b", Phase.SEALING, 50),
        ]  # fmt: skip
        changes.publish("job", "x")
        assert (await subscription.next())[1] == []  # and not again


async def test_progress_is_not_replayed_and_is_forgotten_when_its_job_ends() -> None:
    changes = Changes()
    changes.advance("a", Phase.CAPTURING, progress(1))
    with changes.subscribe(0) as subscription:
        changes.advance("b", Phase.CAPTURING, progress(2))
        changes.ended("b")
        changes.ended("b")
        assert await subscription.next() == ([], [])


async def test_progress_pushes_nobody_out() -> None:
    changes = Changes()
    with changes.subscribe(0) as subscription:
        for bytes_done in range(HELD * 2):
            changes.advance("a", Phase.CAPTURING, progress(bytes_done))
        assert not subscription.lost.is_set()


# --- cursors


def test_a_cursor_leads_back_to_its_place() -> None:
    changes = Changes()
    publish(changes, 5)
    assert [number_of(changes, changes.cursor(number)) for number in range(6)] == list(range(6))


def test_a_cursor_of_another_run_too_old_or_yet_to_come_leads_nowhere() -> None:
    changes = Changes()
    publish(changes, HELD + 5)
    assert number_of(changes, Changes().cursor(0)) is None
    assert number_of(changes, changes.cursor(4)) is None
    assert number_of(changes, changes.cursor(5)) == 5  # the 1000 after it are held
    assert number_of(changes, changes.cursor(HELD + 6)) is None


async def test_a_cursor_that_knows_progress_leads_to_what_of_it_is_newer() -> None:
    changes = Changes()
    publish(changes, 2)
    changes.advance("a", Phase.CAPTURING, progress(1))
    cursor = changes.cursor_at(changes.place)
    assert changes.place_of(cursor) == Place(2, 1)
    assert changes.place_of(changes.cursor_at(Place(2, 2))) is None  # yet to come
    changes.advance("b", Phase.CAPTURING, progress(2))
    changes.advance("b", Phase.CAPTURING, progress(3))
    place = changes.place_of(cursor)
    assert place is not None
    with changes.subscribe(place.change, place.advance) as subscription:
        _, advances = await subscription.next()
        assert [(one.job_id, one.progress.bytes_done) for one in advances] == [("b", 3)]
        assert subscription.place == changes.place


async def test_a_place_that_nothing_came_after_is_waited_at() -> None:
    changes = Changes()
    changes.advance("a", Phase.CAPTURING, progress(1))
    place = changes.place
    with changes.subscribe(place.change, place.advance) as subscription:
        assert not subscription.news.is_set()


@given(st.text())
def test_no_text_whatever_is_mistaken_for_a_cursor(text: str) -> None:
    changes = Changes()
    publish(changes, 3)
    run = changes.cursor(0).partition(".")[0]
    assert number_of(changes, text) is None
    valid = {"0", "1", "2", "3"}
    for made in (f"{run}.{text}", f"{run}{text}", f"{text}.1", f"{run}.1{text}"):
        number = number_of(changes, made)
        head, _, tail = made.partition(".")
        tail, dot, advance = tail.partition(".")
        assert number is None or (head == run and tail.lstrip("0").rjust(1, "0") in valid and number == int(tail))
        assert number is None or not dot or set(advance) == {"0"}  # there was no progress yet


@given(st.lists(st.integers(0, 400), max_size=8), st.integers(0, 8))
def test_however_it_is_read_every_change_comes_once_or_the_reader_is_told(bursts: list[int], reads_every: int) -> None:
    async def read() -> None:
        changes, heard = Changes(), list[int]()
        with changes.subscribe(0) as subscription:
            for turn, burst in enumerate([*bursts, 0]):
                publish(changes, burst)
                assert subscription.lost.is_set() == (changes.newest - len(heard) > HELD)
                if subscription.lost.is_set():
                    with pytest.raises(SubscriberLost):
                        await subscription.next()
                    return
                if subscription.news.is_set() and (turn == len(bursts) or (reads_every and turn % reads_every == 0)):
                    heard += await numbers(subscription)
            assert heard == list(range(1, changes.newest + 1))

    asyncio.run(read())
