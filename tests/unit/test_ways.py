"""Which way is taken, and what is asked before: by guests of paper, for what no guest of the tests can be made to be."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from app.capture.pausemeter import Stops
from app.capture.ways import _allow_pause, take
from app.errors import HostMemoryShort, WouldPauseTooLong

GIB = 1 << 30


class Guest:
    """One of 7 GiB that runs: the paused way would stop it for about 10.7 s. Whatever else is asked of it fails the test."""

    domain = SimpleNamespace(name="vm-web-01", memory_bytes=7 * GIB)
    connection = SimpleNamespace(qemu=True, uri="qemu:///system")
    ran = True

    def check_host_memory(self, xml: str) -> None:
        raise HostMemoryShort(self.domain.name, 5 * GIB, GIB)


def under_way(*, stops_ms: tuple[float, ...] = (), **order: Any) -> Any:
    return SimpleNamespace(
        guest=Guest(),
        report=SimpleNamespace(),
        xml="<domain/>",
        meter=SimpleNamespace(stops=lambda: Stops(None, stops_ms)),
        order=SimpleNamespace(**order),
    )


@pytest.mark.parametrize("mode", ["auto", "live", "paused"])
def test_in_no_mode_is_a_guest_read_whose_memory_would_not_fit_beside_it(mode: str) -> None:
    with pytest.raises(HostMemoryShort):
        take(under_way(mode=mode, max_pause_ms=None))


@pytest.mark.parametrize(("stops_ms", "allowed_ms", "may"), [((), 11_000, True), ((400.0,), 11_000, False), ((), 10_000, False)])
def test_stops_that_there_were_already_count_against_what_is_allowed(
    stops_ms: tuple[float, ...], allowed_ms: int, may: bool
) -> None:
    asked = under_way(stops_ms=stops_ms, max_pause_ms=allowed_ms)
    if may:
        _allow_pause(asked, allowed_ms)
    else:
        with pytest.raises(WouldPauseTooLong):
            _allow_pause(asked, allowed_ms)
