"""How often a login may fail, by address and by name: a bucket of tries each, that fills again with time."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable

from app.access.network import network_of
from app.errors import TooManyLogins

TRIES = 10
REFILL_SEC = 30.0
"""One more try."""

MOST = 20_000
"""So many addresses and so many names are remembered; beyond that the one that was tried longest ago is forgotten."""

_V4_BITS, _V6_BITS = 32, 64  # what one customer has


class Attempts:
    """Counts in memory: a service that starts again has forgotten them, and so has nobody locked out for ever."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        # Tries, and when there were so many. Apart: however many addresses come, no name is forgotten for them.
        self._left: dict[str, OrderedDict[str, tuple[float, float]]] = {"address": OrderedDict(), "name": OrderedDict()}

    def take(self, address: str, name: str | None = None) -> None:
        """One try, also of who names nobody. Raises ``TooManyLogins``, and takes none, where there is none left. Before anything is
        looked at: so many at once are not more than one after the other."""
        now = self._monotonic()
        keys = _keys(address, name)
        left = [self._left_at(key, now) for key in keys]
        if min(left) < 1:
            raise TooManyLogins(math.ceil((1 - min(left)) * REFILL_SEC))
        for key, tries in zip(keys, left, strict=True):
            self._keep(key, tries - 1, now)

    def give_back(self, address: str, name: str | None = None) -> None:
        """It was right, or was not looked at."""
        now = self._monotonic()
        for key in _keys(address, name):
            self._keep(key, min(self._left_at(key, now) + 1, TRIES), now)

    def _left_at(self, key: tuple[str, str], now: float) -> float:
        kind, which = key
        tries, at = self._left[kind].get(which, (TRIES, now))
        return min(tries + (now - at) / REFILL_SEC, TRIES)

    def _keep(self, key: tuple[str, str], tries: float, now: float) -> None:
        kind, which = key
        known = self._left[kind]
        known.pop(which, None)
        if tries < TRIES:
            known[which] = (tries, now)
        if len(known) > MOST:
            known.popitem(last=False)


def _keys(address: str, name: str | None) -> tuple[tuple[str, str], ...]:
    by_address = ("address", network_of(address, v4_bits=_V4_BITS, v6_bits=_V6_BITS))
    return (by_address,) if name is None else (by_address, ("name", name[:100]))
