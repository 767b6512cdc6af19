"""What the first message of the live feed says, kept ready: the state of everything, folded from the changes.

The view hears each change in the moment that it is published and knows its cursor. A browser gets the view and then
resumes from that cursor: so it misses nothing and hears nothing twice, without a lock, and however many browsers come,
the stores are asked once, at the start.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from app.changes import Advance, Change, Changes
from app.model import Activity, Job, Phase, Stats
from app.web import wire

NEWEST_JOBS = 50
NEWEST_RECORDS = 50
NEWEST_ACTIVITY = 20

Entry = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The view at one moment: as a cursor, as a message, and as that message's text."""

    cursor: str
    message: dict[str, Any]
    encoded: str


class View:
    """The state as the wire shows it, from ``begin`` on."""

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self._seen = changes.newest
        self._vms: Sequence[Entry] = ()
        self._hypervisor: Entry = {}
        self._history: Entry = {}
        self._stats: Entry = {}
        self._jobs: dict[str, Entry] = {}  # oldest first
        self._records: deque[Entry] = deque(maxlen=NEWEST_RECORDS)  # newest first, as the next
        self._activity: deque[Entry] = deque(maxlen=NEWEST_ACTIVITY)
        self._snapshot: Snapshot | None = None

    def begin(self, *, jobs: Sequence[Job], records: Sequence[msgspec.Raw], stats: Stats, activity: Sequence[Activity]) -> None:
        """Take in what the stores hold, each newest first, and hear what is published from now on."""
        self._jobs = {job.job_id: wire.job(job) for job in reversed(jobs[:NEWEST_JOBS])}
        self._records.extend(msgspec.json.decode(record) for record in records[:NEWEST_RECORDS])
        self._activity.extend(wire.activity(line) for line in activity[:NEWEST_ACTIVITY])
        self._stats = wire.stats(stats)
        self._seen = self._changes.newest  # what was told before is in the stores
        self._changes.listen(self._hear)

    def _hear(self, news: Change | Advance) -> None:
        if isinstance(news, Change):
            self._fold(news)
        elif news.job_id in self._jobs:
            progress = msgspec.to_builtins(news.progress)
            self._jobs[news.job_id] = {**self._jobs[news.job_id], "progress": progress}
        self._snapshot = None

    def snapshot(self) -> Snapshot:
        """Everything as it is now; made once for all who ask between two changes."""
        if self._snapshot is None:
            cursor = self._changes.cursor(self._seen)
            message = {
                "type": "snapshot",
                "cursor": cursor,
                "hypervisor": self._hypervisor,
                "history": self._history,
                "vms": self._vms,
                "jobs": list(reversed(self._jobs.values())),
                "stats": self._stats,
                "records": list(self._records),
                "activity": list(self._activity),
            }
            self._snapshot = Snapshot(cursor, message, wire.encode(message).decode())
        return self._snapshot

    def _fold(self, change: Change) -> None:
        self._seen = change.number
        entry = wire.subject(change)
        match change.topic:
            case "vms":
                self._vms = entry
            case "hypervisor":
                self._hypervisor = entry
            case "history":
                self._history = entry
            case "stats":
                self._stats = entry
            case "job":
                self._fold_job(entry)
            case "record":
                self._fold_record(entry)
            case "activity":
                self._activity.appendleft(entry)

    def _fold_job(self, entry: Entry) -> None:
        """Active jobs stay; of those that have ended, the oldest go."""
        self._jobs[entry["job_id"]] = entry
        for job_id in [job_id for job_id, job in self._jobs.items() if Phase(job["phase"]).final][:-NEWEST_JOBS]:
            del self._jobs[job_id]

    def _fold_record(self, entry: Entry) -> None:
        """Newest first by their timestamp, which need not be the order in which they came."""
        newest = sorted((entry, *self._records), key=lambda record: (record["timestamp"], record["dump_id"]), reverse=True)
        self._records = deque(newest[:NEWEST_RECORDS], maxlen=NEWEST_RECORDS)
