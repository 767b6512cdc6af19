"""What a test can make the stand-in do wrong while it runs."""

from __future__ import annotations

import threading

_SCHEMES = ("Token", "Bearer", "Basic")


class Switches:
    """Set by a test, read by both halves. Every wait ends when the stand-in ends."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._arrived = threading.Condition()
        self._requests = 0
        self._ending = threading.Event()
        self.slow_sec = 0.0
        self.failing_status: int | None = None
        self.refusing = False

    def reset(self) -> None:
        self.slow_sec, self.failing_status, self.refusing = 0.0, None, False

    def end(self) -> None:
        self._ending.set()

    def request_arrived(self) -> None:
        with self._arrived:
            self._requests += 1
            self._arrived.notify_all()

    @property
    def requests(self) -> int:
        return self._requests

    def wait_for_requests(self, count: int, timeout_sec: float) -> bool:
        with self._arrived:
            return self._arrived.wait_for(lambda: self._requests >= count, timeout_sec)

    def wait_while_slow(self) -> None:
        if self.slow_sec:
            self._ending.wait(self.slow_sec)

    def refusal(self, authorization: str | None) -> tuple[int, str] | None:
        """Status and text for a header that does not do; both of the client's schemes do, ``Token`` and ``Bearer``."""
        scheme, _, token = (authorization or "").strip().partition(" ")
        if authorization is not None and (scheme not in _SCHEMES or not token or " " in token):
            return 400, (
                "Authorization header was malformed, the request was not in the form of 'Authorization: <auth-scheme> <token>', "
                "supported auth-schemes are Bearer, Token and Basic"
            )
        if self.refusing or scheme == "Basic" or token != self._token:
            return 401, "the request was not authenticated"
        return None
