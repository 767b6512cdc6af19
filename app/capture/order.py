"""What is to be captured, and how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from app.model import Algorithm, Mode


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One request for one guest. ``timeout_sec`` 0: no limit. ``level`` None: the codec's default.

    ``max_pause_ms`` is what this capture was asked for, and binds every mode, whatever way it takes; without it a live capture
    may stop the guest for ``live_pause_ms``, and ``auto`` falls back to the paused way if that is predicted to stop it for no
    longer than ``fallback_pause_ms``; ``spool_memory_bytes`` None: a quarter of what is available.
    """

    vm: str
    dump_dir: Path
    mode: Mode
    algorithm: Algorithm
    level: int | None
    timeout_sec: float
    operator: str
    reason: str | None
    case: str | None
    max_pause_ms: int | None = None
    live_pause_ms: int = 300
    fallback_pause_ms: int = 10_000
    spool_memory_bytes: int | None = None
    audit_head: str | None = None

    @property
    def final_stop_ms(self) -> int:
        """The longest final stop of a live capture."""
        return self.live_pause_ms if self.max_pause_ms is None else self.max_pause_ms

    @property
    def paused_way_ms(self) -> int:
        """The longest pause for which ``auto`` may fall back to the paused way."""
        return self.fallback_pause_ms if self.max_pause_ms is None else min(self.fallback_pause_ms, self.max_pause_ms)
