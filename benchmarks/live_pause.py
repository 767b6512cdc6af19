"""How long the guest stands still for a live capture: idle, busy, and against the paused way."""

from __future__ import annotations

from benchmarks.figures import RUNS, Figure, in_turn, median, spread
from benchmarks.stage import BUSY, GUEST, LARGE, Dumped, Stage, dump, present, service
from demo import Guest
from tests.service import Service

_IDLE_MS = 50
_BUDGET_MS = 300
_OVER = 1.2
_TIMES = 15


def idle(on: Stage) -> Figure:
    """Two idle guests of different size; each of their captures counts, the first too, for the bound is on each."""
    with service(on, "idle") as by:
        small = [_pause_ms(dump(by, [GUEST], "gzip", "live")) for _ in range(RUNS)]
        large = [_pause_ms(dump(by, [LARGE], "gzip", "live")) for _ in range(RUNS)]
    longest = max(*small, *large)
    return Figure(
        claim="live: pause of an idle guest, 1 GiB and 3.5 GiB, every capture",
        ours=f"1 GiB: {spread(small, 'ms', 0)}",
        baseline=f"3.5 GiB: {spread(large, 'ms', 0)}",
        ratio=f"longest {longest:.0f} ms",
        bound=f"{_IDLE_MS} ms",
        met=longest <= _IDLE_MS,
    )


def busy(on: Stage) -> Figure:
    """A guest that rewrites 200 MiB without rest, with the default budget, beside one that does nothing."""
    with present(on, BUSY), service(on, "busy") as by:
        ours, other = in_turn(lambda: _live_ms(by, BUSY), lambda: _live_ms(by, GUEST))
    return Figure(
        claim=f"live: pause of a guest that rewrites {BUSY.rewrites_mib} MiB without rest, beside an idle one",
        ours=spread(ours, "ms", 0),
        baseline=spread(other, "ms", 0),
        ratio=f"longest {max(ours):.0f} ms",
        bound=f"{_BUDGET_MS} ms + 20 %",
        met=max(ours) <= _BUDGET_MS * _OVER,
    )


def against_the_paused_way(on: Stage) -> Figure:
    """The same guest, seen by the same events."""
    with service(on, "ways") as by:
        ours, paused = in_turn(lambda: _live_ms(by, GUEST), lambda: _pause_ms(dump(by, [GUEST], "gzip", "paused")))
    ratio = median(paused) / median(ours)
    return Figure(
        claim="live: pause, against the paused way on the same guest",
        ours=spread(ours, "ms", 0),
        baseline=spread(paused, "ms", 0),
        ratio=f"1/{ratio:.0f}",
        bound=f"1/{_TIMES}",
        met=ratio >= _TIMES,
    )


def _live_ms(by: Service, guest: Guest) -> float:
    return _pause_ms(dump(by, [guest], "gzip", "live"))


def _pause_ms(dumped: Dumped) -> float:
    return float(dumped[1][0]["guest_pause_ms"])
