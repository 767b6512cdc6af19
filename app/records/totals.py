"""Counts and totals, from what a trigger keeps for each VM, month and day; only of days that a range cuts are records added up."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.model import DayStats, Stats, VmStats
from app.records.covered import RECORDS, SPANS, VMS, Covered

MONTH, DAY = 7, 10
"""Characters of a timestamp that are its month and its day."""
END = "\U0010ffff"
"""Behind a month or day: after all timestamps in it, before the next one."""

_STATS = """
SELECT coalesce(sum(dumps), 0), coalesce(sum(size_bytes), 0), coalesce(sum(duration_sec) / sum(dumps), 0.0), max(newest)
FROM {vms}
"""
# A VM is its uuid; where a record has none, its (dom, vmid).
_COUNT_VMS = """
SELECT (SELECT count(DISTINCT uuid) FROM {vms} WHERE uuid <> '')
    + (SELECT count(*) FROM (SELECT DISTINCT dom, vmid FROM {vms} WHERE uuid = ''))
"""
_SUMS = "sum(spans.dumps), sum(spans.size_bytes), sum(spans.duration_sec), sum(pause_ms), max(longest_pause_ms), max(spans.newest)"
_SUMS_OF_RECORDS = "count(*), sum(size_bytes), sum(duration_sec), sum(pause_ms), max(pause_ms), max(timestamp)"


def stats(connection: sqlite3.Connection, covered: Covered | None) -> Stats:
    """Totals over all records."""
    vms, values = ("vms", []) if covered is None else (VMS, [covered.numbers])
    dumps, size_bytes, average_sec, newest = connection.execute(_STATS.format(vms=vms), values).fetchone()
    return Stats(
        total_dumps=dumps,
        total_vms=connection.execute(_COUNT_VMS.format(vms=vms), values * 2).fetchone()[0],
        total_size_bytes=size_bytes,
        avg_duration_sec=average_sec,
        last_dump=newest,
    )


@dataclass(frozen=True, slots=True)
class Part:
    """Of a range of timestamps the months or days from ``low`` on and before ``high``, or, if ``width`` is None, records."""

    width: int | None
    low: str
    high: str


def parts_of(since: str | None, until: str | None, *widths: int) -> list[Part]:
    """A range as whole spans of these widths, where there are such, and what is left at both ends."""
    return _split(since or "", until or END, widths)


def _split(low: str, high: str, widths: tuple[int, ...]) -> list[Part]:
    if low >= high:
        return []
    if not widths:
        return [Part(None, low, high)]
    width, *finer = widths
    first, end = low if len(low) <= width else low[:width] + END, high[:width]
    if first > end:
        return _split(low, high, tuple(finer))
    return [*_split(low, first, tuple(finer)), Part(width, first, end), *_split(end, high, tuple(finer))]


def index_for(dom: str | None, vmid: str | None) -> str:
    """The index in which the records of this name and vmid stand together, by time. By one of the two alone the records of a VM
    may lie behind a million of others that share it: names and libvirt IDs are given again."""
    if dom is None:
        return "records_by_time" if vmid is None else "records_by_vmid"
    return "records_by_dom" if vmid is None else "records_by_dom_and_vmid"


def count_without_piece(
    connection: sqlite3.Connection, since: str | None, until: str | None, dom: str | None, vmid: str | None
) -> int:
    """How many records there are within these bounds."""
    meant = [(f"{name} = ?", value) for name, value in (("dom", dom), ("vmid", vmid)) if value is not None]
    vm, values = " AND ".join(text for text, _ in meant) or "true", [value for _, value in meant]
    if since is None and until is None:
        return _one(connection, f"sum(dumps), 0) FROM vms WHERE {vm}", values)
    spans = "spans WHERE vm = 0" if not meant else f"vms CROSS JOIN spans USING (vm) WHERE {vm}"
    index = index_for(dom, vmid)
    return sum(
        _one(
            connection,
            f"count(*), 0) FROM records INDEXED BY {index} WHERE {vm} AND timestamp >= ? AND timestamp < ?"
            if part.width is None
            else f"sum(spans.dumps), 0) FROM {spans} AND width = {part.width} AND span >= ? AND span < ?",
            (*values, part.low, part.high),
        )
        for part in parts_of(since, until, MONTH, DAY)
    )


def _one(connection: sqlite3.Connection, question: str, values: Sequence[str]) -> int:
    return int(connection.execute(f"SELECT coalesce({question}", values).fetchone()[0])


def skip(
    connection: sqlite3.Connection, since: str | None, until: str | None, *, newest_first: bool, offset: int
) -> tuple[str | None, str | None, int]:
    """The same bounds and offset, without the days that the offset skips whole."""
    parts = parts_of(since, until, DAY)
    for part in reversed(parts) if newest_first else parts:
        question = f"SELECT span, dumps FROM spans WHERE vm = 0 AND width = {DAY} AND span >= ? AND span < ? ORDER BY span"
        spans = connection.execute(question, (part.low, part.high)).fetchall() if part.width is not None else []
        if part.width is None:
            spans = [(part.low, count_without_piece(connection, part.low, part.high, None, None))]
        for span, dumps in reversed(spans) if newest_first else spans:
            if offset < dumps:
                return since, until, offset
            offset -= dumps
            if newest_first:
                until = span
            else:
                since = part.high if part.width is None else span + END
    return since, until, offset


@dataclass(slots=True)
class _Sum:
    """Totals of some records, of which more may come."""

    dumps: int = 0
    size_bytes: int = 0
    duration_sec: float = 0.0
    pause_ms: float = 0.0
    longest_pause_ms: float = 0.0
    newest: str = ""

    def add(self, dumps: int, size_bytes: int, duration_sec: float, pause_ms: float, longest_pause_ms: float, newest: str) -> None:
        self.dumps += dumps
        self.size_bytes += size_bytes
        self.duration_sec += duration_sec
        self.pause_ms += pause_ms
        self.longest_pause_ms = max(self.longest_pause_ms, longest_pause_ms)
        self.newest = max(self.newest, newest)


def by_vm(connection: sqlite3.Connection, since: str | None, until: str | None, covered: Covered | None) -> tuple[VmStats, ...]:
    """Totals of each VM that has records from ``since`` on and before ``until``, by name; the names are its newest."""
    spans = "vms CROSS JOIN spans USING (vm)" if covered is None else SPANS
    by_span = f"SELECT vm, {_SUMS} FROM {spans} WHERE width = ? AND span >= ? AND span < ? GROUP BY vm"
    rows = _rows(connection, parts_of(since, until, MONTH, DAY), by_span, "vm", covered)
    vms = {vm: key for vm, *key in connection.execute("SELECT vm, uuid, dom, vmid FROM vms")}
    sums: dict[tuple[str, ...], _Sum] = {}
    names: dict[tuple[str, ...], tuple[str, str, str]] = {}
    for vm, *values in rows:
        uuid, dom, vmid = vms[vm]
        key = (uuid,) if uuid else (dom, vmid)
        total = sums.setdefault(key, _Sum())
        names[key] = max(names.get(key, ("", "", "")), (values[-1], dom, vmid))
        total.add(*values)
    found = (
        VmStats(
            uuid=key[0] if len(key) == 1 else "",
            dom=names[key][1],
            vmid=names[key][2],
            total_dumps=total.dumps,
            total_size_bytes=total.size_bytes,
            avg_duration_sec=total.duration_sec / total.dumps,
            avg_pause_ms=total.pause_ms / total.dumps,
            longest_pause_ms=total.longest_pause_ms,
            last_dump=total.newest,
        )
        for key, total in sums.items()
    )
    return tuple(sorted(found, key=lambda vm: (vm.dom, vm.vmid, vm.uuid)))


def by_day(connection: sqlite3.Connection, since: str | None, until: str | None, covered: Covered | None) -> tuple[DayStats, ...]:
    """Totals of each day (UTC) that has records from ``since`` on and before ``until``, oldest first."""
    spans = "spans WHERE vm = 0" if covered is None else f"{SPANS} WHERE true"
    by_span = f"SELECT span, {_SUMS} FROM {spans} AND width = ? AND span >= ? AND span < ? GROUP BY span"
    rows = _rows(connection, parts_of(since, until, DAY), by_span, f"substr(timestamp, 1, {DAY})", covered)
    sums: dict[str, _Sum] = {}
    for day, *values in rows:
        sums.setdefault(day, _Sum()).add(*values)
    return tuple(
        DayStats(
            day=day,
            total_dumps=total.dumps,
            total_size_bytes=total.size_bytes,
            avg_duration_sec=total.duration_sec / total.dumps,
            avg_pause_ms=total.pause_ms / total.dumps,
            longest_pause_ms=total.longest_pause_ms,
            last_dump=total.newest,
        )
        for day, total in sorted(sums.items())
    )


def _rows(
    connection: sqlite3.Connection, parts: Sequence[Part], by_span: str, key: str, covered: Covered | None
) -> list[tuple[Any, ...]]:
    """A key, perhaps several times, and totals."""
    records, values = ("records INDEXED BY records_by_time", ()) if covered is None else (RECORDS, (covered.numbers,))
    by_record = f"SELECT {key}, {_SUMS_OF_RECORDS} FROM {records} WHERE timestamp >= ? AND timestamp < ? GROUP BY 1"
    rows: list[tuple[Any, ...]] = []
    for part in parts:
        if part.width is None:
            rows += connection.execute(by_record, (*values, part.low, part.high))
        else:
            rows += connection.execute(by_span, (*values, part.width, part.low, part.high))
    return rows
