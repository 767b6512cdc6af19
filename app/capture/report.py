"""What a capture tells while it runs: phases, progress at most ten times a second, and warnings, as lines."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from app.lines import FifoLine, Line, ProgressLine, WarningLine, phase_line
from app.model import Phase

_EVERY_SEC = 0.1
_RATE_WINDOW_SEC = 2.0


class Report:
    """Tells one VM's lines to ``tell``."""

    def __init__(self, vm: str, tell: Callable[[Line], None]) -> None:
        self.vm = vm
        self.warnings: list[str] = []
        self._tell = tell
        self._phase: Phase | None = None
        self._told_at = 0.0
        self._window: list[tuple[float, int]] = []
        self._last: ProgressLine | None = None

    def phase(self, phase: Phase, dom: str) -> None:
        """The capture of ``dom`` enters ``phase``, or, if it is in it already, begins with it again: that is not told."""
        entered, self._phase = phase is not self._phase, phase
        self._told_at = 0.0
        self._window.clear()
        if entered:
            self._tell(phase_line(self.vm, dom, phase))

    def fifo(self, directory: str) -> None:
        """The FIFO stands in ``directory``."""
        self._tell(FifoLine(vm=self.vm, directory=directory))

    def warn(self, code: str, message: str) -> None:
        """Tell it now, and keep it for the manifest."""
        self.warnings.append(message)
        self._tell(WarningLine(vm=self.vm, code=code, message=message))

    def progress(self, bytes_done: int, bytes_total: int, *, guest_paused: bool, iteration: int = 0, always: bool = False) -> None:
        """Where the bytes are; dropped if the last one was told less than 100 ms ago, unless ``always``."""
        now = time.monotonic()
        if not always and now - self._told_at < _EVERY_SEC:
            return
        self._told_at = now
        rate = self._rate(now, bytes_done)
        left = max(0, bytes_total - bytes_done)
        self._last = ProgressLine(
            vm=self.vm,
            phase=self._phase or Phase.PREPARING,
            bytes_done=bytes_done,
            bytes_total=bytes_total,
            rate_bytes_per_sec=round(rate, 1),
            eta_sec=round(left / rate, 3) if rate and bytes_total else None,
            guest_paused=guest_paused,
            iteration=iteration,
        )
        self._tell(self._last)

    def guest_runs(self, runs: bool) -> None:
        """Correct what the last progress said of the guest: its going on is heard a little later than its last byte."""
        if self._last is not None and self._last.guest_paused is runs:
            self._tell(msgspec.structs.replace(self._last, phase=self._phase or self._last.phase, guest_paused=not runs))

    def _rate(self, now: float, bytes_done: int) -> float:
        """Bytes a second over the last two seconds."""
        if self._window and bytes_done < self._window[-1][1]:  # a live capture begins its next pass
            self._window.clear()
        self._window.append((now, bytes_done))
        while len(self._window) > 2 and now - self._window[0][0] > _RATE_WINDOW_SEC:
            self._window.pop(0)
        since, before = self._window[0]
        return (bytes_done - before) / (now - since) if now > since else 0.0
