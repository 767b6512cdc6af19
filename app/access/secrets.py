"""Secrets: made here, given away once, and from then on known by their hash alone."""

from __future__ import annotations

import hashlib
import secrets

TOKEN_PREFIX = "mdt_"  # noqa: S105 - what every API token begins with, so that people and scanners know one
_BYTES = 32


def make_secret(prefix: str = "") -> str:
    """256 random bits as text that may stand in a URL, a header or a cookie."""
    return prefix + secrets.token_urlsafe(_BYTES)


def hash_of(secret: str) -> bytes:
    """What is kept of a secret.

    A plain SHA-256 is right here, and a slow password hash would only make every request slow: with 256 random bits there
    is nothing to guess. Neither does the time that a look-up takes tell anything: it depends on the hash, and to choose
    hashes one would have to invert SHA-256. Takes any text, also the lone surrogates that odd header bytes become.
    """
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
