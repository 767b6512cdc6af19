"""The unit of a timestamp, as ``influxdb3_types/src/write.rs`` of InfluxDB 3 Core has it."""

from __future__ import annotations

from tests.influx.line_protocol import Malformed

AUTO = "Auto"
UNITS_NS = {"Nanosecond": 1, "Microsecond": 10**3, "Millisecond": 10**6, "Second": 10**9}
BY_PARAMETER = {
    "auto": AUTO,
    **dict.fromkeys(("ns", "n", "nanosecond"), "Nanosecond"),
    **dict.fromkeys(("us", "u", "microsecond"), "Microsecond"),
    **dict.fromkeys(("ms", "millisecond"), "Millisecond"),
    **dict.fromkeys(("s", "second"), "Second"),
}
_GUESSES = ((5, "Second"), (5_000, "Millisecond"), (5_000_000, "Microsecond"))


def nanoseconds(timestamp: int | None, precision: str, now_ns: int) -> int:
    if timestamp is None:
        return now_ns - now_ns % UNITS_NS.get(precision, 1)
    time_ns = timestamp * UNITS_NS[_guess(timestamp) if precision == AUTO else precision]
    if not -(2**63) <= time_ns < 2**63:
        raise Malformed(f"timestamp, {timestamp}, out of range for precision: {precision}")
    return time_ns


def _guess(timestamp: int) -> str:
    """From its size alone, as of this century."""
    return next((name for below, name in _GUESSES if abs(timestamp) // 10**9 < below), "Nanosecond")
