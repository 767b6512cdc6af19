"""Passwords, as Argon2 hashes, on a thread of their own: each takes a tenth of a second and 64 MiB on purpose."""

from __future__ import annotations

import asyncio
import secrets
from concurrent.futures import ThreadPoolExecutor

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from app.errors import RequestError, TooManyLogins

SHORTEST = 12
LONGEST = 1024
MOST_WAITING = 20
"""So many may wait for the thread; whoever comes then is told to come again."""

_AGAIN_SEC = 5
_hasher = PasswordHasher(time_cost=3, memory_cost=64 * 1024, parallelism=1)  # Argon2id, memory as RFC 9106 has it for servers


def password_hash(password: str) -> str:
    """What is kept of a password. Blocks. Raises ``RequestError``, place ``$.password``, for one that is no good."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise RequestError(f"A password has {SHORTEST} to {LONGEST} characters.", place="$.password")
    return _hasher.hash(_encoded(password))


def _encoded(password: str) -> bytes:
    return password.encode("utf-8", "surrogatepass")


class Passwords:
    """Makes and checks hashes away from the event loop, one at a time. ``close`` it."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="passwords")
        self._waiting = 0
        self._nobodys: str | None = None

    async def hash_of(self, password: str) -> str:
        """``password_hash`` of it."""
        return await asyncio.wrap_future(self._thread.submit(password_hash, password))

    async def fits(self, password: str, kept: str | None) -> bool:
        """Whether that is the password. None for nobody's is no, and takes as long. Raises ``TooManyLogins``."""
        if self._waiting >= MOST_WAITING:
            raise TooManyLogins(_AGAIN_SEC)
        self._waiting += 1
        try:
            return await asyncio.wrap_future(self._thread.submit(self._fits, password, kept))
        finally:
            self._waiting -= 1

    def _fits(self, password: str, kept: str | None) -> bool:
        if self._nobodys is None:  # before the first check, whosever it is
            self._nobodys = _hasher.hash(secrets.token_bytes(32))
        try:
            _hasher.verify(kept or self._nobodys, _encoded(password[: LONGEST + 1]))
        except (VerificationError, InvalidHashError):
            return False
        return kept is not None

    def close(self) -> None:
        """Finish what was begun. Blocks. A second call does nothing."""
        self._thread.shutdown()
