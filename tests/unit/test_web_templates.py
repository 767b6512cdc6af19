"""How figures and times read on a page."""

from __future__ import annotations

import pytest

from app.web.templates import bytes_text, duration_text, short_text, when_text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "–"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (347_025_836, "331 MiB"),
        (2**30, "1 GiB"),
        (1_074_008_443, "1 GiB"),
        (3.5 * 2**30, "3.5 GiB"),
        (2**30 - 1, "1 GiB"),
        (5 * 2**40, "5 TiB"),
        (5000 * 2**40, "5000 TiB"),
    ],
)
def test_bytes_are_binary_and_short(count: float | None, text: str) -> None:
    assert bytes_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0.0, "0.00 s"),
        (5.234, "5.23 s"),
        (9.999, "10.0 s"),
        (59.94, "59.9 s"),
        (59.97, "1 min 00 s"),
        (245, "4 min 05 s"),
        (3599.7, "1 h 00 min"),
        (7384, "2 h 03 min"),
    ],
)
def test_durations_have_two_units_at_most(seconds: float | None, text: str) -> None:
    assert duration_text(seconds) == text


def test_times_are_utc_and_say_so() -> None:
    assert when_text("2026-11-23T10:30:00.123456Z") == "2026-11-23 10:30:00 UTC"
    assert when_text("2026-11-23T12:30:00+02:00") == "2026-11-23 10:30:00 UTC"
    assert when_text(None) == "–"


def test_a_short_hash_is_its_head() -> None:
    assert short_text("0123456789abcdef") == "0123456789ab"
    assert short_text(None) == ""
