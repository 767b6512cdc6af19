"""What a capture tells of its progress: how often, how fast, how long it still takes, and in which way."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.capture.report import Report
from app.lines import Line, PhaseLine, ProgressLine
from app.model import Phase

MIB = 1 << 20


class Told:
    """A report under a clock that the test turns, and what it told."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.lines: list[Line] = []
        self.told_at: list[float] = []
        self.report = Report("7", self._hear, lambda: self.now)

    def _hear(self, line: Line) -> None:
        self.lines.append(line)
        if isinstance(line, ProgressLine):
            self.told_at.append(self.now)

    @property
    def progress(self) -> Sequence[ProgressLine]:
        return [line for line in self.lines if isinstance(line, ProgressLine)]

    @property
    def last(self) -> ProgressLine:
        return self.progress[-1]

    def read(self, mib_a_sec: float, seconds: float, *, iteration: int, before_mib: float = 0, total_mib: float = 1000) -> float:
        """One pass of ``seconds`` that begins at its memory's beginning; how many MiB were read in all."""
        for step in range(1, round(seconds * 20) + 1):
            self.now += 0.05
            done = mib_a_sec * step / 20
            self.report.progress(
                int(done * MIB),
                int(total_mib * MIB),
                guest_paused=False,
                iteration=iteration,
                read_bytes=int((before_mib + done) * MIB),
            )
        return before_mib + mib_a_sec * seconds


@pytest.fixture
def told() -> Told:
    made = Told()
    made.report.phase(Phase.CAPTURING, "vm-web-01")
    return made


# --- how often

turns = st.lists(
    st.tuples(
        st.floats(0, 0.4),
        st.sampled_from(["progress", "always", "stands", "runs", "preparing", "capturing", "sealing"]),
    ),
    max_size=200,
)


@given(turns)
def test_no_second_ever_has_more_than_ten(turns: list[tuple[float, str]]) -> None:
    told = Told()
    for seconds, what in turns:
        told.now += seconds
        if what in ("progress", "always"):
            told.report.progress(1, 2, guest_paused=True, always=what == "always")
        elif what in ("stands", "runs"):
            told.report.guest_runs(what == "runs")
        else:
            told.report.phase(Phase(what), "vm-web-01")
    for at in told.told_at:
        assert sum(at <= other < at + 1 for other in told.told_at) <= 10


def test_what_must_be_told_finds_room_among_what_comes_all_the_time(told: Told) -> None:
    for step in range(300):
        told.now += 0.01
        told.report.progress(step, 300, guest_paused=True)
    told.report.progress(300, 300, guest_paused=True, always=True)
    told.report.guest_runs(True)
    assert [(line.bytes_done, line.guest_paused) for line in told.progress[-2:]] == [(300, True), (300, False)]
    assert len(told.progress) <= 3 * 10


# --- how fast, and how long


def test_rate_goes_on_when_a_live_capture_begins_its_next_pass(told: Told) -> None:
    read = told.read(500, 2, iteration=1)
    first = told.last
    read = told.read(500, 0.5, iteration=2, before_mib=read)
    told.read(500, 0.5, iteration=3, before_mib=read)
    rates = [line.rate_bytes_per_sec for line in told.progress[2:]]
    assert first.rate_bytes_per_sec == pytest.approx(500 * MIB, rel=0.01)
    assert rates == pytest.approx([500 * MIB] * len(rates), rel=0.01)


def test_remaining_time_is_that_of_the_pass(told: Told) -> None:
    read = told.read(500, 1, iteration=1)
    assert told.last.eta_sec == pytest.approx(1, rel=0.1)
    told.read(500, 0.5, iteration=2, before_mib=read)
    assert told.last.iteration == 2
    assert told.last.eta_sec == pytest.approx(1.5, rel=0.1)


def test_memory_that_is_passed_over_is_not_counted_as_read(told: Told) -> None:
    """A later pass goes from end to end and reads what was written meanwhile: here 10 MiB of 1000."""
    read = told.read(500, 2, iteration=1)
    told.now += 0.2
    told.report.progress(990 * MIB, 1000 * MIB, guest_paused=False, iteration=2, read_bytes=int((read + 10) * MIB))
    assert told.last.rate_bytes_per_sec < 510 * MIB


def test_a_try_that_begins_anew_has_a_rate_of_its_own(told: Told) -> None:
    told.read(900, 1, iteration=1)
    told.report.phase(Phase.CAPTURING, "vm-web-01")
    told.read(100, 1, iteration=1)
    assert told.last.rate_bytes_per_sec == pytest.approx(100 * MIB, rel=0.01)
    assert len([line for line in told.lines if isinstance(line, PhaseLine)]) == 1


def test_what_cannot_be_predicted_is_not(told: Told) -> None:
    told.report.progress(0, 0, guest_paused=False)
    told.now += 1
    told.report.progress(5, 0, guest_paused=False)
    told.now += 1
    assert [line.eta_sec for line in told.progress] == [None, None]


@given(st.lists(st.tuples(st.floats(0, 3), *[st.integers(0, 1 << 45)] * 3), max_size=50))
def test_figures_are_never_negative_and_always_numbers(steps: list[tuple[float, int, int, int]]) -> None:
    told = Told()
    for seconds, done, total, read in steps:
        told.now += seconds
        told.report.progress(done, total, guest_paused=False, read_bytes=read, always=True)
    for line in told.progress:
        for figure in (line.rate_bytes_per_sec, line.eta_sec or 0):
            assert math.isfinite(figure)
            assert figure >= 0


# --- in which way


def test_the_way_is_told_with_the_phase_and_with_all_progress_and_may_change() -> None:
    told = Told()
    told.report.phase(Phase.PREPARING, "vm-web-01")
    told.report.way("live")
    told.report.phase(Phase.CAPTURING, "vm-web-01")
    told.report.progress(1, 2, guest_paused=False, iteration=1)
    told.report.way("paused")
    told.report.phase(Phase.CAPTURING, "vm-web-01")
    told.now += 1
    told.report.progress(1, 2, guest_paused=True)
    told.report.phase(Phase.SEALING, "vm-web-01")
    assert [(line.phase, line.mode) for line in told.lines if isinstance(line, PhaseLine)] == [
        ("preparing", None),
        ("capturing", "live"),
        ("sealing", None),
    ]
    assert [line.mode for line in told.progress] == ["live", "paused"]
