"""What a test can make the stand-in do wrong while it runs."""

from __future__ import annotations

import threading


class Switches:
    """Set by a test, read by both halves; every wait ends when the stand-in ends."""

    def __init__(self, token: str) -> None:
        self._token = token
        self.slow_sec = 0.0
        self.failing_status: int | None = None
        self.refusing = False
        self.ending = threading.Event()

    def reset(self) -> None:
        self.slow_sec, self.failing_status, self.refusing = 0.0, None, False

    def wait_while_slow(self) -> None:
        if self.slow_sec:
            self.ending.wait(self.slow_sec)

    def admits(self, authorization: str | None) -> bool:
        """Both schemes of the client: ``Token`` over HTTP, ``Bearer`` over Flight."""
        return not self.refusing and authorization in (f"Token {self._token}", f"Bearer {self._token}")
