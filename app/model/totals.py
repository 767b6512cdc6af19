"""Totals over records."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """Totals over all records. ``last_dump`` is the newest record's timestamp."""

    total_dumps: int
    total_vms: int
    total_size_bytes: int
    avg_duration_sec: float
    last_dump: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VmStats:
    """Totals over the records of one VM: of one uuid or, where records have none, of one (dom, vmid). It may have had other
    names before."""

    uuid: str
    dom: str
    vmid: str
    total_dumps: int
    total_size_bytes: int
    avg_duration_sec: float
    avg_pause_ms: float
    longest_pause_ms: float
    last_dump: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DayStats:
    """Totals over the records of one day (UTC), ``YYYY-MM-DD``."""

    day: str
    total_dumps: int
    total_size_bytes: int
    avg_duration_sec: float
    avg_pause_ms: float
    longest_pause_ms: float
    last_dump: str
