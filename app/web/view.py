"""What the first message of the live feed says, kept ready: the state of everything, folded from the changes.

The view hears each change in the moment that it is published and knows its cursor. A browser gets the view and then
resumes from that cursor: so it misses nothing and hears nothing twice, without a lock, and however many browsers come,
the stores are asked once, at the start.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from app import __version__, model
from app.changes import Advance, Change, Changes
from app.model import rfc3339
from app.web import messages
from app.web.answers import Activity, Job, Record, Vm, encode

NEWEST_JOBS = 50
NEWEST_RECORDS = 50
NEWEST_ACTIVITY = 20

_NO_STATS = model.Stats(total_dumps=0, total_vms=0, total_size_bytes=0, avg_duration_sec=0.0, last_dump=None)
_NO_TIME = '"now":""'


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The view at one moment: as a cursor, as a message, and as that message's text."""

    cursor: str
    message: messages.Snapshot
    encoded: str


class View:
    """The state as the feed shows it, from ``begin`` on."""

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self._seen = changes.newest
        self._vms: tuple[Vm, ...] = ()
        self._hypervisor: messages.Hypervisor | None = None
        self._history: messages.History | None = None
        self._room: model.Room | None = None
        self._stats: model.Stats | None = None
        self._hears = False
        self._jobs: dict[str, Job] = {}  # oldest first
        self._records: deque[Record] = deque(maxlen=NEWEST_RECORDS)  # newest first, as the next
        self._activity: deque[Activity] = deque(maxlen=NEWEST_ACTIVITY)
        self._kept: Snapshot | None = None  # without the time of day

    def begin(
        self,
        *,
        jobs: Sequence[model.Job],
        records: Sequence[msgspec.Raw],
        stats: model.Stats,
        activity: Sequence[model.Activity],
    ) -> None:
        """Take in what the stores hold, each newest first, and hear what is published from now on. What was heard is newer."""
        ended = {job.job_id for job in [job for job in jobs if job.phase.final][:NEWEST_JOBS]}
        kept = [job for job in jobs if job.job_id in ended or not job.phase.final]
        self._jobs = {job.job_id: Job.of(job) for job in reversed(kept)} | self._jobs
        for record in records[:NEWEST_RECORDS]:
            self._fold_record(msgspec.json.decode(record, type=Record))
        heard = tuple(self._activity)
        older = [line for line in map(Activity.of, activity) if line not in heard]
        self._activity.extend(older[: NEWEST_ACTIVITY - len(heard)])
        self._stats = self._stats or stats
        self._kept = None
        self.hear()

    def hear(self) -> None:
        """Hear what is published from now on: already before ``begin``, where the stores are asked while things happen."""
        if not self._hears:
            self._hears = True
            self._seen = self._changes.newest  # what was told before is in the stores
            self._changes.listen(self._hear)

    def _hear(self, news: Change | Advance) -> None:
        if isinstance(news, Change):
            self._fold(news)
        elif news.job_id in self._jobs:
            self._jobs[news.job_id] = msgspec.structs.replace(self._jobs[news.job_id], progress=news.progress)
        self._kept = None

    def snapshot(self) -> Snapshot:
        """Everything as it is now. But for the time of day it is made once for all who ask between two changes."""
        if self._kept is None:
            self._kept = self._made()
        now = rfc3339(datetime.now(UTC))
        before, _, after = self._kept.encoded.partition(_NO_TIME)  # its first place: only the type and the cursor stand before
        message = msgspec.structs.replace(self._kept.message, now=now)
        return Snapshot(message.cursor, message, f'{before}"now":"{now}"{after}')

    def _made(self) -> Snapshot:
        message = messages.Snapshot(
            cursor=self._changes.cursor(self._seen),
            now="",
            version=__version__,
            hypervisor=self._hypervisor,
            history=self._history,
            room=self._room,
            vms=self._vms,
            jobs=tuple(reversed(self._jobs.values())),
            stats=self._stats or _NO_STATS,
            records=tuple(self._records),
            activity=tuple(self._activity),
        )
        return Snapshot(message.cursor, message, encode(message).decode())

    def _fold(self, change: Change) -> None:
        self._seen = change.number
        match messages.noun(change):
            case tuple() as vms:
                self._vms = vms
            case messages.Hypervisor() as hypervisor:
                self._hypervisor = hypervisor
            case messages.History() as history:
                self._history = history
            case model.Room() as room:
                self._room = room
            case model.Stats() as stats:
                self._stats = stats
            case Job() as job:
                self._fold_job(job)
            case Record() as record:
                self._fold_record(record)
            case Activity() as line:
                self._activity.appendleft(line)

    def _fold_job(self, job: Job) -> None:
        """Active jobs stay; of those that have ended, the oldest go."""
        self._jobs[job.job_id] = job
        for job_id in [job_id for job_id, job in self._jobs.items() if job.phase.final][:-NEWEST_JOBS]:
            del self._jobs[job_id]

    def _fold_record(self, record: Record) -> None:
        """Newest first by their timestamp, which need not be the order in which they came."""
        others = (one for one in self._records if one.dump_id != record.dump_id)
        newest = sorted((record, *others), key=lambda one: (one.timestamp, one.dump_id), reverse=True)
        self._records = deque(newest[:NEWEST_RECORDS], maxlen=NEWEST_RECORDS)
