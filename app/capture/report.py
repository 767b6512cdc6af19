"""What a capture tells while it runs: phases, progress at most ten times a second, and warnings, as lines."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import msgspec

from app.errors import RUNS_ON
from app.lines import FifoLine, Line, ProgressLine, WarningLine, phase_line
from app.model import Phase, Way

_MOST_IN_A_SECOND = 10
_EVERY_SEC = 0.125
"""Eight a second, which leaves two for what must be told at once: the last byte, and that the guest runs on."""

_RATE_WINDOW_SEC = 2.0


class Report:
    """Tells one VM's lines to ``tell``. ``clock`` counts seconds. ``guest``: what was last seen of the guest, a sentence."""

    def __init__(self, vm: str, tell: Callable[[Line], None], clock: Callable[[], float] = time.monotonic) -> None:
        self.vm = vm
        self.warnings: list[str] = []
        self.guest = RUNS_ON
        self._tell = tell
        self._clock = clock
        self._phase: Phase | None = None
        self._way: Way | None = None
        self._told_at: deque[float] = deque(maxlen=_MOST_IN_A_SECOND)
        self._window: list[tuple[float, int]] = []
        self._last: ProgressLine | None = None

    def phase(self, phase: Phase, dom: str) -> None:
        """The capture of ``dom`` enters ``phase``, or, if it is in it already, begins with it again: that is not told."""
        entered, self._phase = phase is not self._phase, phase
        self._window.clear()
        if entered:
            self._tell(phase_line(self.vm, dom, phase, self._way if phase is Phase.CAPTURING else None))

    def way(self, way: Way) -> None:
        """From now on memory is captured in this way; it may have been another before."""
        self._way = way

    def fifo(self, directory: str) -> None:
        """The FIFO stands in ``directory``."""
        self._tell(FifoLine(vm=self.vm, directory=directory))

    def warn(self, code: str, message: str) -> None:
        """Tell it now, and keep it for the manifest."""
        self.warnings.append(message)
        self._tell(WarningLine(vm=self.vm, code=code, message=message))

    def progress(
        self,
        bytes_done: int,
        bytes_total: int,
        *,
        guest_paused: bool,
        iteration: int = 0,
        read_bytes: int | None = None,
        always: bool = False,
    ) -> None:
        """Where the bytes are; dropped if the last one was told a moment ago, unless ``always``.

        ``read_bytes`` is how many were read in all, for the rate: where memory is gone through more than once ``bytes_done``
        begins anew each time, and leaps over what need not be read again.
        """
        now = self._clock()
        if not self._may_tell(now, always=always):
            return
        rate = self._rate(now, bytes_done if read_bytes is None else read_bytes)
        left = max(0, bytes_total - bytes_done)
        self._say(
            now,
            ProgressLine(
                vm=self.vm,
                phase=self._phase or Phase.PREPARING,
                bytes_done=bytes_done,
                bytes_total=bytes_total,
                rate_bytes_per_sec=round(rate, 1),
                eta_sec=round(left / rate, 3) if rate and bytes_total else None,
                guest_paused=guest_paused,
                iteration=iteration,
                mode=self._way,
            ),
        )

    def guest_runs(self, runs: bool) -> None:
        """Correct what the last progress said of the guest: its going on is heard a little later than its last byte."""
        now = self._clock()
        if self._last is not None and self._last.guest_paused is runs and self._may_tell(now, always=True):
            self._say(now, msgspec.structs.replace(self._last, phase=self._phase or self._last.phase, guest_paused=not runs))

    def _may_tell(self, now: float, *, always: bool) -> bool:
        told = self._told_at
        if len(told) == _MOST_IN_A_SECOND and now - told[0] < 1.0:
            return False
        return always or not told or now - told[-1] >= _EVERY_SEC

    def _say(self, now: float, line: ProgressLine) -> None:
        self._told_at.append(now)
        self._last = line
        self._tell(line)

    def _rate(self, now: float, read_bytes: int) -> float:
        """Bytes a second over the last two seconds, or since the phase began."""
        self._window.append((now, read_bytes))
        while len(self._window) > 2 and now - self._window[0][0] > _RATE_WINDOW_SEC:
            self._window.pop(0)
        since, before = self._window[0]
        return max(0.0, (read_bytes - before) / (now - since)) if now > since else 0.0
