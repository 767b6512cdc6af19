"""The room that is left for dumps."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from app.changes import Changes
from app.jobs.dumproom import DumpRoom, worth_telling
from app.model import Room


def room(free_bytes: int | None, total_bytes: int | None = 10**12, message: str | None = None) -> Room:
    return Room(dump_dir="/dumps", free_bytes=free_bytes, total_bytes=total_bytes, message=message)


GONE = room(None, None, "gone")


@pytest.mark.parametrize(
    ("now", "worth"),
    [
        (room(1_000_000), False),
        (room(1_001_000), False),
        (room(999_000), False),
        (room(1_001_001), True),
        (room(998_999), True),
        (room(1_000_000, 2 * 10**12), True),
        (GONE, True),
    ],
)
def test_a_thousandth_more_or_less_another_disk_or_none_is_news(now: Room, worth: bool) -> None:
    assert worth_telling(room(1_000_000), now) is worth


def test_a_full_disk_and_one_that_is_gone_are_news_once() -> None:
    assert not worth_telling(room(0), room(0))
    assert worth_telling(room(0), room(1))
    assert not worth_telling(GONE, GONE)
    assert worth_telling(GONE, room(None, None, "another reason"))
    assert worth_telling(GONE, room(0))


async def test_it_is_told_at_the_first_look_and_then_when_it_is_news(tmp_path: Path) -> None:
    changes = Changes()
    watched = DumpRoom(tmp_path / "dumps", changes)
    for _ in range(2):
        await watched.look()
    (tmp_path / "dumps").mkdir()
    await watched.look()
    await asyncio.get_running_loop().shutdown_default_executor()
    with changes.subscribe(0) as subscription:
        told, _ = await subscription.next()
    missing, there = (change.subject for change in told)
    assert isinstance(missing, Room)
    assert missing.free_bytes is missing.total_bytes is None
    assert str(tmp_path / "dumps") in (missing.message or "")
    assert isinstance(there, Room)
    assert there.message is None
    assert 0 <= (there.free_bytes or 0) <= (there.total_bytes or 0)
