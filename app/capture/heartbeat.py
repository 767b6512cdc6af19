"""Whether libvirtd is there: asked again and again beside a live dump, at the end of which it alone can resume the guest."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

EVERY_SEC = 0.25

SILENT_AFTER_SEC = 1.0
"""So long a libvirtd that has hung passes for one that is there."""


class Heartbeat:
    """A question that needs no lock and is answered by libvirtd itself, on a thread of its own, until ``stop``.

    The thread is a daemon: a question that is never answered does not keep the process. Whoever looks takes no lock.
    """

    def __init__(self, ask: Callable[[], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._clock = clock
        self._stopped = threading.Event()
        self._answered_at = clock()
        threading.Thread(target=self._beat, name="libvirt-heartbeat", daemon=True).start()

    @property
    def silent(self) -> bool:
        """Whether the last answer is older than libvirtd may be away."""
        return self._clock() - self._answered_at > SILENT_AFTER_SEC

    def stop(self) -> None:
        """Ask no more; a question under way is not waited for."""
        self._stopped.set()

    def _beat(self) -> None:
        while not self._stopped.wait(EVERY_SEC):
            with contextlib.suppress(Exception):  # no answer, whatever it was: the dump's own call tells what happened
                self._ask()
                self._answered_at = self._clock()
