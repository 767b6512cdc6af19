"""What was asked for and what became of it, in SQLite: triggers, jobs, capture processes, the activity log.

A job is kept whole as JSON; the columns beside it are what is searched for.
"""

from __future__ import annotations

import hashlib
import itertools
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec
import structlog

from app.access.audit import SCHEMA as AUDIT_SCHEMA
from app.access.audit import append, head_of, note, service_note
from app.access.chain import Head
from app.errors import IdempotencyKeyReused
from app.model import FINAL_PHASES, Activity, Job, Phase, Subject, Trigger, rfc3339
from app.scope import WHOLE, Scope
from app.state import State

log = structlog.get_logger()

SCHEMA = f"""{AUDIT_SCHEMA}
CREATE TABLE IF NOT EXISTS triggers (
    number INTEGER PRIMARY KEY, trigger_id TEXT NOT NULL UNIQUE, at TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY, job_id TEXT NOT NULL UNIQUE, trigger_id TEXT NOT NULL, phase TEXT NOT NULL, job TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS jobs_by_trigger ON jobs (trigger_id);
CREATE INDEX IF NOT EXISTS jobs_by_phase ON jobs (phase);
CREATE TABLE IF NOT EXISTS captures (
    job_id TEXT PRIMARY KEY, pid INTEGER NOT NULL, started INTEGER NOT NULL, dump_id TEXT
) STRICT;
CREATE TABLE IF NOT EXISTS idempotency (
    key TEXT PRIMARY KEY, operator TEXT NOT NULL, request TEXT NOT NULL, trigger_id TEXT NOT NULL, at TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS activity (
    number INTEGER PRIMARY KEY, line TEXT NOT NULL
) STRICT;
"""

_activity_decoder = msgspec.json.Decoder(Activity)

_KEY_HELD = timedelta(days=1)
_ACTIVITY_HELD = 10_000


@dataclass(frozen=True, slots=True)
class Survivor:
    """A capture process that a job had when the service ended. ``started`` as in /proc/PID/stat, for pids are used again."""

    job: Job
    pid: int
    started: int
    dump_id: str | None


@dataclass(frozen=True, slots=True)
class Claim:
    """An ``Idempotency-Key``, whose it is, and the request that came with it."""

    key: str
    operator: str
    request: bytes
    scope: Scope = WHOLE

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.request).hexdigest()


class Journal:
    """The journal in ``state``; ``tell`` hears of every new line of the activity log."""

    def __init__(self, state: State, tell: Callable[[Activity], None]) -> None:
        self._state = state
        self._tell = tell

    async def claimed(self, claim: Claim) -> Trigger | None:
        """The trigger that the same request made within a day. Raises ``IdempotencyKeyReused`` if it was another request."""
        return await self._state.read(lambda db: _claimed(db, claim))

    async def begin(self, trigger: Trigger, claim: Claim | None) -> Trigger:
        """Keep a new trigger and its jobs, all or nothing; the trigger that ``claim`` already made, if it did. The audit trail has
        an entry of each job."""
        noted = [note("dump", job.dom, result="scheduled", who=job.wish.operator, **_told(job)) for job in trigger.jobs]

        def work(db: sqlite3.Connection) -> Trigger:
            earlier = _claimed(db, claim) if claim else None
            if earlier is not None:
                return earlier
            at = rfc3339(trigger.at)
            db.execute("INSERT INTO triggers (trigger_id, at) VALUES (?, ?)", (trigger.trigger_id, at))
            db.executemany(
                "INSERT INTO jobs (job_id, trigger_id, phase, job) VALUES (?, ?, ?, ?)",
                [(job.job_id, job.trigger_id, job.phase, _json(job)) for job in trigger.jobs],
            )
            for each in noted:
                append(db, each)
            if claim:
                db.execute("DELETE FROM idempotency WHERE at < ?", (rfc3339(trigger.at - _KEY_HELD),))
                row = (_scoped(claim), claim.operator, claim.digest, trigger.trigger_id, at)
                db.execute("INSERT INTO idempotency (key, operator, request, trigger_id, at) VALUES (?, ?, ?, ?, ?)", row)
            return trigger

        return await self._state.run(work)

    async def save(self, job: Job) -> None:
        """Keep the job as it is now; one that has ended has no capture process any more, and if it ended without a dump an entry in
        the audit trail. (Of a dump its record has one.)"""
        ended = job.phase.final and job.phase is not Phase.COMPLETED
        why = job.error.code if job.error else None
        noted = (
            service_note("dump", job.dom, result=job.phase.value, who=job.wish.operator, code=why, **_told(job)) if ended else None
        )

        def work(db: sqlite3.Connection) -> None:
            db.execute("UPDATE jobs SET phase = ?, job = ? WHERE job_id = ?", (job.phase, _json(job), job.job_id))
            if noted is not None:
                append(db, noted)
            if job.phase.final:
                db.execute("DELETE FROM captures WHERE job_id = ?", (job.job_id,))

        await self._state.run(work)

    async def audit_head(self) -> Head:
        """The last entry of the audit trail."""
        return await self._state.read(head_of)

    async def note_process(self, job_id: str, pid: int, started: int) -> None:
        """Keep which process captures for a job, so that a restart can end it."""
        row = (job_id, pid, started)
        await self._state.run(lambda db: db.execute("INSERT OR REPLACE INTO captures (job_id, pid, started) VALUES (?, ?, ?)", row))

    async def note_dump(self, job_id: str, dump_id: str) -> None:
        """Keep which dump a job's capture process makes, so that a restart can find it."""
        row = (dump_id, job_id)
        await self._state.run(lambda db: db.execute("UPDATE captures SET dump_id = ? WHERE job_id = ?", row))

    async def tell(self, line: Activity) -> None:
        """Add a line to the activity log, on disk, in the program's log, and for those who listen.

        Raises ``StateError`` if it cannot be kept; whoever listens has heard it all the same.
        """
        self._log(line)

        def work(db: sqlite3.Connection) -> None:
            number = db.execute("INSERT INTO activity (line) VALUES (?)", (_json(line),)).lastrowid or 0
            db.execute("DELETE FROM activity WHERE number <= ?", (number - _ACTIVITY_HELD,))

        try:
            await self._state.run(work)
        finally:
            self._tell(line)

    async def activity(self, limit: int, scope: Scope = WHOLE) -> tuple[Activity, ...]:
        """The newest lines of the activity log that somebody with this scope may see, newest first."""

        def work(db: sqlite3.Connection) -> tuple[Activity, ...]:
            rows = db.execute("SELECT line FROM activity ORDER BY number DESC LIMIT ?", (limit if scope.whole else -1,))
            lines = (_activity_decoder.decode(line) for (line,) in rows)
            return tuple(itertools.islice((line for line in lines if may_see(scope, line)), limit))

        return await self._state.read(work, slow=not scope.whole)

    async def job(self, job_id: str) -> Job | None:
        """The job of that id."""
        row = await self._state.read(lambda db: db.execute("SELECT job FROM jobs WHERE job_id = ?", (job_id,)).fetchone())
        return _job(row[0]) if row else None

    async def newest_jobs(self, limit: int) -> tuple[Job, ...]:
        """The newest jobs, newest first."""
        rows = await self._state.read(
            lambda db: db.execute("SELECT job FROM jobs ORDER BY number DESC LIMIT ?", (limit,)).fetchall()
        )
        return tuple(_job(text) for (text,) in rows)

    async def last_trigger(self) -> Trigger | None:
        """The newest trigger."""

        def work(db: sqlite3.Connection) -> Trigger | None:
            row = db.execute("SELECT trigger_id FROM triggers ORDER BY number DESC LIMIT 1").fetchone()
            return _trigger(db, row[0]) if row else None

        return await self._state.read(work)

    async def unfinished(self) -> tuple[Job, ...]:
        """Jobs that no end was written for, oldest first: the service died under them."""
        return await self._state.read(_unfinished)

    async def survivors(self) -> tuple[Survivor, ...]:
        """Those of them that had a capture process."""

        def work(db: sqlite3.Connection) -> tuple[Survivor, ...]:
            captures = {row[0]: row[1:] for row in db.execute("SELECT job_id, pid, started, dump_id FROM captures")}
            return tuple(Survivor(job, *captures[job.job_id]) for job in _unfinished(db) if job.job_id in captures)

        return await self._state.read(work)

    def _log(self, line: Activity) -> None:
        level = {"error": log.error, "warning": log.warning}.get(line.kind, log.info)
        level("activity", code=line.code, message=line.message, dom=line.dom, job_id=line.job_id, dump_id=line.dump_id)


def may_see(scope: Scope, line: Activity) -> bool:
    """Whether somebody who is limited to ``scope`` may read it: it is about VMs, and all of them are theirs."""
    return scope.whole or (bool(line.about) and all(scope.covers(*subject) for subject in line.about))


def activity_now(
    kind: str,
    code: str,
    message: str,
    *,
    job: Job | None = None,
    dump_id: str | None = None,
    about: Iterable[Subject] = (),
) -> Activity:
    """A line of this moment, about ``job`` and its VM if there is one, and whatever other VMs it tells something of: a line that
    names none is for those alone who may know of all. ``kind`` is success, error, warning or info."""
    line = {
        "at": datetime.now(UTC),
        "kind": kind,
        "code": code,
        "message": message,
        "job_id": job.job_id if job else None,
        "dump_id": dump_id or (job.dump_id if job else None),
        "dom": job.dom if job else None,
        "about": tuple(dict.fromkeys((*((job.subject,) if job else ()), *about))),
    }
    return msgspec.convert(line, Activity)


def _told(job: Job) -> dict[str, str | None]:
    """What the audit trail says of a job beside its VM's name."""
    wish = job.wish
    return {"uuid": job.uuid, "job_id": job.job_id, "mode": wish.mode, "reason": wish.reason, "case": wish.case}


def _json(of: Job | Activity | Scope) -> str:
    return msgspec.json.encode(of).decode()


def _job(text: str) -> Job:
    return msgspec.json.decode(text, type=Job)


def _scoped(claim: Claim) -> str:
    """Two operators may use the same key; so may one with logins of different scopes, who must not be shown through the one what
    only the other may see."""
    within = "" if claim.scope.whole else f"\n{_json(claim.scope)}"
    return f"{claim.operator}\n{claim.key}{within}"


def _claimed(db: sqlite3.Connection, claim: Claim) -> Trigger | None:
    since = rfc3339(datetime.now(UTC) - _KEY_HELD)
    row = db.execute("SELECT request, trigger_id FROM idempotency WHERE key = ? AND at >= ?", (_scoped(claim), since)).fetchone()
    if row is None:
        return None
    if row[0] != claim.digest:
        raise IdempotencyKeyReused
    return _trigger(db, row[1])


def _trigger(db: sqlite3.Connection, trigger_id: str) -> Trigger:
    (at,) = db.execute("SELECT at FROM triggers WHERE trigger_id = ?", (trigger_id,)).fetchone()
    rows: Sequence[tuple[str]] = db.execute("SELECT job FROM jobs WHERE trigger_id = ? ORDER BY number", (trigger_id,)).fetchall()
    return Trigger(trigger_id=trigger_id, at=datetime.fromisoformat(at), jobs=tuple(_job(text) for (text,) in rows))


def _unfinished(db: sqlite3.Connection) -> tuple[Job, ...]:
    ended = tuple(FINAL_PHASES)
    marks = ", ".join("?" * len(ended))
    rows = db.execute(f"SELECT job FROM jobs WHERE phase NOT IN ({marks}) ORDER BY number", ended)  # noqa: S608 - only marks
    return tuple(_job(text) for (text,) in rows)
