"""From the request to the sealed dump, the live way against the paused way on the same guest."""

from __future__ import annotations

from benchmarks.figures import Figure, in_turn, median, spread
from benchmarks.stage import EMPTY, GUEST, Stage, dump, service
from demo import Guest


def half_full(on: Stage) -> Figure:
    """1 GiB, a third of it random bytes."""
    return _compared(on, GUEST, "1 GiB half full", 1.5)


def mostly_empty(on: Stage) -> Figure:
    """3.5 GiB, of which the guest has touched little."""
    return _compared(on, EMPTY, "3.5 GiB mostly empty", 1.2)


def _compared(on: Stage, guest: Guest, what: str, times: float) -> Figure:
    with service(on, f"time-{guest.name}") as by:
        live, paused = in_turn(lambda: dump(by, [guest], "gzip", "live")[0], lambda: dump(by, [guest], "gzip", "paused")[0])
    ratio = median(live) / median(paused)
    return Figure(
        claim=f"live: request to sealed, against the paused way, {what}",
        ours=spread(live, "s"),
        baseline=spread(paused, "s"),
        ratio=f"{ratio:.2f} times",
        bound=f"{times:g} times",
        met=ratio <= times,
    )
