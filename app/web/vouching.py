"""Logging in at a provider: an attempt of a browser, whom a provider vouches for, and what a provider is."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class ProviderUnreachable(Exception):
    """It does not answer, or not as a provider does; the message says how."""


class NotVouchedFor(Exception):
    """The provider does not say, or not credibly, who that is."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of one browser to log in; ``secret`` is known to that browser alone.

    State, nonce and code verifier all follow from it, each by a hash of its own: so nothing is kept here, and nobody can fill it.
    """

    secret: str

    @property
    def state(self) -> str:
        return self._derived("state")

    @property
    def nonce(self) -> str:
        return self._derived("nonce")

    @property
    def verifier(self) -> str:
        return self._derived("verifier")

    def began(self, state: str) -> bool:
        """Whether an answer with this ``state`` belongs to it."""
        return hmac.compare_digest(self.state.encode(), state.encode(errors="surrogatepass"))

    def _derived(self, what: str) -> str:
        found = hmac.digest(self.secret.encode(errors="surrogatepass"), what.encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(found).rstrip(b"=").decode()


@dataclass(frozen=True, slots=True)
class Person:
    """Whom the provider vouches for. ``sub`` is theirs alone at that provider; the name may be that of others, too."""

    name: str
    sub: str
    groups: Sequence[str]


class LoginProvider(Protocol):
    """Where people log in. Both raise ``ProviderUnreachable``, ``person`` also ``NotVouchedFor`` and ``TooManyLogins``."""

    async def address(self, attempt: Attempt, back: str) -> str:
        """Where the browser is to go, to come back to ``back``."""

    async def person(self, attempt: Attempt, code: str, back: str) -> Person:
        """Who that is, for the code that the browser brought ``back``."""
