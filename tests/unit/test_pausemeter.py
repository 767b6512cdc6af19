"""Which of the stops that QEMU tells of is a dump's own."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from app.capture.guest import Guest
from app.capture.pausemeter import PauseMeter

QEMU_SAYS = {"S": ("STOP", "{}"), "R": ("RESUME", "{}"), "C": ("MIGRATION", '{"status": "completed"}')}
BEGUN = ("MIGRATION", '{"status": "active"}')


class FakeConnection:
    """Hands out what was registered with it, and is its own guest's connection."""

    qemu = True

    def call(self, function: Callable[[], Any]) -> int:
        return 7


def heard(meter: PauseMeter, letters: str) -> None:
    """Stops and resumes that follow one another by a second, from second 1 on."""
    for number, letter in enumerate(letters, 1):
        name, details = QEMU_SAYS[letter]
        meter.from_qemu(None, None, name, number, 0, details, None)


@pytest.fixture
def meter() -> PauseMeter:
    return PauseMeter(cast("Guest", SimpleNamespace(connection=FakeConnection())))


@pytest.mark.parametrize(
    ("events", "began", "stops_ms", "foreign"),
    [
        ("SCR", 1.0, (2000.0,), 0),
        ("SRSCR", 3.0, (2000.0,), 1),
        ("SRSRSCR", 5.0, (2000.0,), 2),
        ("SCRS", 1.0, (2000.0,), 0),
        ("SRSCRSR", 3.0, (2000.0,), 1),
        ("CR", None, (), 0),
        ("RSCR", 2.0, (2000.0,), 0),
    ],
    ids=[
        "its own alone",
        "another before it",
        "two before it",
        "a suspension that waited for its end",
        "before and after",
        "of a guest that stood",
        "a resume before it",
    ],
)
def test_own_stop_of_a_live_dump_is_the_last_before_the_migration_is_completed(
    meter: PauseMeter, events: str, began: float | None, stops_ms: tuple[float, ...], foreign: int
) -> None:
    meter.expect("live")
    heard(meter, events)
    assert (meter.instant(), meter.stops().each_ms, meter.foreign) == (began, stops_ms, foreign)


def test_migration_that_has_only_begun_settles_nothing(meter: PauseMeter) -> None:
    meter.expect("live")
    meter.from_qemu(None, None, BEGUN[0], 1, 0, BEGUN[1], None)
    heard(meter, "SCR")
    assert meter.instant() == 1.0


@pytest.mark.parametrize("way", ["paused", "plain"])
def test_own_stop_of_a_paused_dump_is_the_first(meter: PauseMeter, way: Any) -> None:
    meter.expect(way)
    heard(meter, "SRSR")
    assert (meter.instant(), meter.stops().each_ms, meter.foreign) == (1.0, (1000.0,), 0)


def test_stop_of_a_dump_that_has_ended_is_not_its_own(meter: PauseMeter) -> None:
    meter.expect("live")
    meter.expect(None)
    heard(meter, "SR")
    assert meter.stops().each_ms == ()


def test_second_dump_adds_its_stop_and_takes_none_of_the_first(meter: PauseMeter) -> None:
    meter.expect("live")
    heard(meter, "SCR")
    meter.expect(None)
    meter.expect("paused")
    heard(meter, "SR")
    assert (meter.stops().each_ms, meter.foreign) == ((2000.0, 1000.0), 0)


@pytest.mark.parametrize(("events", "resumed"), [("SCR", True), ("SCRS", True), ("SRSCR", True), ("SC", False), ("C", False)])
def test_guest_went_on_if_it_did_so_after_the_dump_s_own_stop(meter: PauseMeter, events: str, resumed: bool) -> None:
    meter.expect("live")
    heard(meter, events)
    assert meter.resumed() is resumed
