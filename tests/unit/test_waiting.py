"""Waiting for an event: it comes or it does not, and a cancellation is never lost to it."""

from __future__ import annotations

import asyncio

import pytest

from app.waiting import happens

LONG_SEC = 60.0


async def test_an_event_that_comes_is_noticed_at_once() -> None:
    event = asyncio.Event()
    waiting = asyncio.create_task(happens(event, LONG_SEC))
    await asyncio.sleep(0)
    event.set()
    assert await waiting


async def test_an_event_that_is_set_already_is_not_waited_for() -> None:
    event = asyncio.Event()
    event.set()
    assert await happens(event, 0.0)
    assert await happens(event, -1.0)


async def test_an_event_that_does_not_come_is_waited_for_no_longer_than_allowed() -> None:
    assert not await happens(asyncio.Event(), 0.001)


@pytest.mark.parametrize("turns", range(6))
async def test_a_cancellation_that_comes_with_the_event_is_not_lost(turns: int) -> None:
    """However many turns of the loop lie between the two."""
    event = asyncio.Event()
    waiting = asyncio.create_task(happens(event, LONG_SEC))
    await asyncio.sleep(0)
    event.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    if waiting.done():
        assert waiting.result()
        return
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
