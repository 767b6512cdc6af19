"""Rows of the shared history that are no records: said once in the log, though they are read again and again."""

from __future__ import annotations

from collections import Counter

import structlog

from app.records.columns import NoRecord

log = structlog.get_logger()

MOST = 100
"""Kinds of them that are told and remembered; another program may write a new one every minute."""


class PassedOver:
    """What was passed over: a kind is a column with a value that no dump has."""

    def __init__(self) -> None:
        self._told: set[tuple[str, str]] = set()
        self._found: Counter[tuple[str, str]] = Counter()

    def note(self, row: NoRecord) -> None:
        """One more."""
        self._found[row.column, row.value] += 1

    def tell(self) -> None:
        """Say what is new since the last time, each kind with how many there were."""
        found, self._found = self._found, Counter()
        for (column, value), count in found.items():
            if (column, value) not in self._told and len(self._told) < MOST:
                self._told.add((column, value))
                log.warning("history_rows_passed_over", column=column, value=value, count=count)
                if len(self._told) == MOST:
                    log.warning("history_rows_passed_over", message=f"These were {MOST} kinds of them; no more are told.")
