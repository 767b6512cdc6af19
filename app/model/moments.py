"""Times as text."""

from __future__ import annotations

import re
from datetime import UTC, datetime


def rfc3339(moment: datetime) -> str:
    """``2026-11-23T10:30:00.000000Z``: UTC, always six digits of microseconds.

    And always four of the year, so that times sort as their texts do: ``strftime`` writes 999 for the year 999.
    """
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def from_rfc3339(text: str) -> datetime:
    """The aware UTC moment that ``rfc3339`` wrote. Raises ``ValueError`` for anything without an offset."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no offset from UTC")
    return moment.astimezone(UTC)


_WRITTEN = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z\Z")


def is_timestamp(text: str) -> bool:
    """Whether ``text`` is a time as manifests write it."""
    try:
        return _WRITTEN.match(text) is not None and from_rfc3339(text) is not None
    except ValueError:
        return False
