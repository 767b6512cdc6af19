"""What the command line shows a person who waits."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from app.lines import ProgressLine, phase_line
from app.model import Phase
from scripts.terminal import Shown, Terminal, shown, size

MIB = 1 << 20
LIVE = ProgressLine(
    vm="101",
    phase=Phase.CAPTURING,
    bytes_done=256 * MIB,
    bytes_total=1024 * MIB,
    rate_bytes_per_sec=512.0 * MIB,
    eta_sec=1.5,
    guest_paused=False,
    iteration=1,
    mode="live",
)
FIRST_PASS = Shown(
    what="vm-web-01: capturing, live",
    completed=256 * MIB,
    total=1024 * MIB,
    far="25 %",
    rate="512 MiB/s",
    left="2 s left",
    guest="guest runs",
)


def test_a_live_capture_says_so_and_what_is_left() -> None:
    assert shown(LIVE, "vm-web-01") == FIRST_PASS


def test_a_later_pass_is_named_and_draws_no_bar_that_would_jump() -> None:
    again = msgspec.structs.replace(LIVE, iteration=2)
    assert shown(again, "vm-web-01") == replace(FIRST_PASS, total=None, far="pass 2", left="2 s left in this pass")


def test_after_a_fallback_it_says_paused_and_that_the_guest_stands_still() -> None:
    fallen = msgspec.structs.replace(LIVE, mode="paused", iteration=0, guest_paused=True)
    expected = replace(FIRST_PASS, what="vm-web-01: capturing, paused", guest="guest stands still")
    assert shown(fallen, "vm-web-01") == expected


def test_what_is_not_known_is_not_shown() -> None:
    unknown = msgspec.structs.replace(LIVE, bytes_total=0, rate_bytes_per_sec=0.0, eta_sec=None)
    assert shown(unknown, "vm-web-01") == replace(FIRST_PASS, total=None, far="256 MiB", rate="", left="")


def test_sealing_has_no_way_of_its_own() -> None:
    assert shown(msgspec.structs.replace(LIVE, phase=Phase.SEALING), "vm-web-01").what == "vm-web-01: sealing"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"), (15, "15 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (1536, "1.50 KiB"), (15 * MIB, "15.0 MiB"),
        (999 * MIB, "999 MiB"), (1023 * MIB, "1.00 GiB"), (1074008443, "1.00 GiB"), (3584 * MIB, "3.50 GiB"), (1 << 40, "1.00 TiB"),
    ],
)  # fmt: skip
def test_sizes_are_in_the_unit_that_fits(count: int, text: str) -> None:
    assert size(count) == text


def test_without_a_terminal_it_is_a_line_a_phase_with_the_way(capsys: pytest.CaptureFixture[str]) -> None:
    with Terminal() as terminal:
        terminal.tell(phase_line("101", "vm-web-01", Phase.PREPARING))
        terminal.tell(phase_line("101", "vm-web-01", Phase.CAPTURING, "live"))
        terminal.tell(LIVE)
    assert capsys.readouterr().err.splitlines() == ["vm-web-01: preparing", "vm-web-01: capturing, live"]
