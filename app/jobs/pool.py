"""The bounded pool: which dumps run, which wait, and what a request for dumps is answered."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import msgspec
import structlog
import uuid_utils

from app.access.audit import nothing_done
from app.changes import Changes
from app.config import MAX_WAITING, Settings
from app.errors import (
    AlreadyDumping,
    DomainBusy,
    NothingToDump,
    StateError,
    TooManyWaiting,
    VmError,
    VmErrors,
    VmNotResponding,
    VmNotRunning,
)
from app.hypervisor import DUMP, Hypervisor
from app.jobs.alarms import Alarms
from app.jobs.journal import Claim, Journal, activity_now
from app.jobs.recorder import Recorder
from app.jobs.run import STOPPED, Parts, Run
from app.model import Called, Domain, Fault, Job, Phase, Trigger, Wish
from app.scope import WHOLE, Scope

log = structlog.get_logger()

HELD_JOBS = 10_000
"""Jobs that are kept in memory and listed; older ones are found in the journal by their id."""


class Pool:
    """All jobs, newest last, and the tasks of those that have not ended."""

    def __init__(
        self, settings: Settings, hypervisor: Hypervisor, journal: Journal, recorder: Recorder, alarms: Alarms, changes: Changes
    ) -> None:
        self._hypervisor = hypervisor
        self._journal = journal
        self._changes = changes
        self._places = asyncio.Semaphore(settings.max_concurrent_dumps)
        self._size = settings.max_concurrent_dumps
        self._triggering = asyncio.Lock()
        self._jobs: dict[str, Job] = {}
        self._runs: dict[str, Run] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._last: Trigger | None = None
        self._parts = Parts(
            settings=settings,
            hypervisor=hypervisor,
            journal=journal,
            recorder=recorder,
            alarms=alarms,
            changes=changes,
            keep=self._keep,
        )

    async def open(self) -> None:
        """Take in what the journal knows; every job in it has ended (``reconcile``)."""
        self._jobs = {job.job_id: job for job in reversed(await self._journal.newest_jobs(HELD_JOBS))}
        self._last = await self._journal.last_trigger()

    def jobs(self, scope: Scope = WHOLE) -> tuple[Job, ...]:
        """The newest ``HELD_JOBS`` jobs, of them those that ``scope`` covers, as they are now, newest first."""
        jobs = reversed(self._jobs.values())
        return tuple(self._now(job) for job in jobs if scope.whole or scope.covers(*job.subject))

    async def job(self, job_id: str, scope: Scope = WHOLE) -> Job | None:
        """One job as it is now, however old. One that ``scope`` does not cover is looked for as long as one that is not there."""
        held = self._held(job_id, scope)
        if held is not None:
            return self._now(held)
        found = await self._journal.job(job_id)
        return found if found is not None and scope.covers(*found.subject) else None

    def status(self, scope: Scope = WHOLE) -> Trigger | None:
        """The last trigger, its jobs as they are now. In a scope that is the last one that it covers a job of, and of its jobs
        those."""
        if not scope.whole:
            return self._status_within(scope)
        if self._last is None:
            return None
        return replace(self._last, jobs=tuple(self._now(self._jobs.get(job.job_id, job)) for job in self._last.jobs))

    def _held(self, job_id: str, scope: Scope) -> Job | None:
        job = self._jobs.get(job_id)
        return job if job is not None and scope.covers(*job.subject) else None

    def _status_within(self, scope: Scope) -> Trigger | None:
        jobs = self.jobs(scope)
        own = tuple(job for job in reversed(jobs) if job.trigger_id == jobs[0].trigger_id)
        return Trigger(trigger_id=own[0].trigger_id, at=own[0].requested_at, jobs=own) if own else None

    async def trigger(
        self, vm_ids: Sequence[str] | None, *, all: bool, wish: Wish, idempotency_key: str | None, scope: Scope = WHOLE
    ) -> Trigger:
        """Schedule dumps of the named VMs, or of ``all`` that run and are not being dumped: every one, or none. Only those that
        ``scope`` covers are there for it.

        The same key and request within a day give the same trigger again. Raises ``VmErrors``, ``NothingToDump``,
        ``TooManyWaiting``, ``IdempotencyKeyReused``, a ``HypervisorError`` or a ``StateError``.
        """
        asked = msgspec.json.encode((vm_ids, all, wish))
        claim = Claim(idempotency_key, wish.operator, asked, scope) if idempotency_key else None
        async with self._triggering:
            if claim and (earlier := await self._journal.claimed(claim)):
                nothing_done()
                return earlier
            self._hypervisor.check()
            known = tuple(one for one in self._hypervisor.domains() if scope.whole or scope.covers(*one.subject))
            domains = await (self._everything(known) if all else self._named(vm_ids or (), known))
            waiting = len(self._tasks) - self._size
            if waiting + len(domains) > MAX_WAITING:
                raise TooManyWaiting(max(0, waiting), len(domains), MAX_WAITING, counted=scope.whole)
            trigger = await self._journal.begin(_trigger(domains, wish), claim)
            self._last = trigger
            for job in trigger.jobs:
                self._start(job)
                await asyncio.sleep(0)  # readers of the changes get their turn, or a thousand jobs would push them out
        await self._tell(trigger, wish)
        return trigger

    async def cancel(self, job_id: str, by: str, scope: Scope = WHOLE) -> Job | None:
        """Ask a job to stop, for the operator ``by``; None if there is no such job in ``scope``. What has ended, or is sealed,
        stays as it is."""
        job = self._held(job_id, scope)
        if job is None or job.phase.final:
            nothing_done()
            return await self.job(job_id, scope)
        if job_id in self._runs:
            self._runs[job_id].cancel(by)
        elif job.phase is Phase.QUEUED:
            self._tasks[job_id].cancel()
            fault = Fault("cancelled", "The dump was cancelled before it began. The guest was not touched.")
            await self._keep(job.step(Phase.CANCELLED, datetime.now(UTC), error=fault))
            message = f"{by} cancelled the dump of {job.dom} before it began. The guest was not touched."
            await self._journal.tell(activity_now("info", "dump-cancelled", message, job=job))
        return await self.job(job_id)

    async def close(self) -> None:
        """End every capture and wait for it; what was not sealed by then is interrupted."""
        tasks = tuple(self._tasks.values())
        for job_id, task in tuple(self._tasks.items()):
            if job_id in self._runs:
                self._runs[job_id].stop()
            elif (job := self._jobs[job_id]).phase is Phase.QUEUED:
                task.cancel()
                with contextlib.suppress(StateError):  # then the next start finds it unfinished
                    await self._keep(job.step(Phase.INTERRUPTED, datetime.now(UTC), error=STOPPED))
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- what a request means

    async def _named(self, vm_ids: Sequence[str], known: Sequence[Domain]) -> tuple[Domain, ...]:
        """The VMs of a request among those that are ``known`` to it, each once. Raises ``VmErrors`` with every one that is at
        fault."""
        found: dict[str, Domain] = {}
        faults: list[VmError] = []
        called = Called(known)
        for vm in dict.fromkeys(vm_ids):
            try:
                domain = called.find(vm)
                if domain.uuid not in found:
                    await self._check(vm, domain)
                    found[domain.uuid] = domain
            except VmError as error:
                faults.append(error)
        if faults:
            raise VmErrors(faults)
        return tuple(found.values())

    async def _everything(self, known: Sequence[Domain]) -> tuple[Domain, ...]:
        """Every running VM of those that nobody dumps, be it we or somebody else. One whose QEMU hangs is left out, and told.

        Raises ``VmErrors`` for those that are busy with something else, ``NothingToDump``.
        """
        dumping = set(self._dumping())
        found: list[Domain] = []
        faults: list[VmError] = []
        hanging: list[tuple[VmError, Domain]] = []
        for domain in known:
            if not domain.active or domain.uuid in dumping:
                continue
            try:
                await self._check(domain.vmid or domain.uuid, domain)
                found.append(domain)
            except VmNotResponding as error:
                hanging.append((error, domain))
            except VmError as error:
                if not (isinstance(error, DomainBusy) and error.operation == DUMP):
                    faults.append(error)
        if faults or (hanging and not found):
            raise VmErrors(faults or [why for why, _ in hanging])
        if not found:
            raise NothingToDump
        for why, domain in hanging:
            line = activity_now("warning", why.code, f"Left out of a dump of all VMs: {why}", about=[domain.subject])
            await self._journal.tell(line)
        return tuple(found)

    async def _check(self, vm: str, domain: Domain) -> None:
        """Raises the ``VmError`` that keeps this VM from being dumped now."""
        called = f"{domain.name} (vmid {domain.vmid})" if domain.vmid else domain.name
        if not domain.active:
            raise VmNotRunning(vm, domain.state, called)
        if (job_id := self._dumping().get(domain.uuid)) is not None:
            raise AlreadyDumping(vm, job_id, called)
        try:
            operation = await self._hypervisor.foreign_job(domain.uuid)
        except VmNotResponding:
            raise VmNotResponding(vm, called) from None
        if operation is not None:
            raise DomainBusy(vm, operation, called)

    def _dumping(self) -> dict[str, str]:
        """Which VMs are being dumped or wait for it, and by which job."""
        return {self._jobs[job_id].uuid: job_id for job_id in self._tasks if not self._jobs[job_id].phase.final}

    # --- jobs

    def _start(self, job: Job) -> None:
        self._jobs[job.job_id] = job
        while len(self._jobs) > HELD_JOBS:
            oldest = next(iter(self._jobs))
            if oldest in self._tasks:
                break
            del self._jobs[oldest]
        self._changes.publish("job", job)
        task = asyncio.create_task(self._live(job), name=f"job {job.job_id}")
        self._tasks[job.job_id] = task
        task.add_done_callback(lambda _: self._tasks.pop(job.job_id, None))

    async def _live(self, job: Job) -> None:
        """Wait for a place, then run. A queued job whose task is cancelled by ``close`` is interrupted."""
        try:
            async with self._places:
                run = self._runs[job.job_id] = Run(job, self._parts)
                try:
                    await run.live()
                finally:
                    del self._runs[job.job_id]
        except asyncio.CancelledError:
            raise
        except Exception as error:
            log.error("job_failed_unexpectedly", job_id=job.job_id, exc_info=error)
            now = self._jobs[job.job_id]
            if not now.phase.final:
                fault = Fault("internal-error", "Something went wrong in the service; its log tells more.")
                await self._keep(now.step(Phase.FAILED, datetime.now(UTC), error=fault))

    async def _keep(self, job: Job) -> None:
        """A job's new state: in memory, in the journal, and for those who listen; of its end they hear when it is on disk."""
        self._jobs[job.job_id] = job
        if not job.phase.final:
            self._changes.publish("job", job)
        try:
            await self._journal.save(job)
        finally:
            if job.phase.final:
                self._changes.ended(job.job_id)
                self._changes.publish("job", job)

    def _now(self, job: Job) -> Job:
        run = self._runs.get(job.job_id)
        return run.job if run else job

    async def _tell(self, trigger: Trigger, wish: Wish) -> None:
        names = ", ".join(job.dom for job in trigger.jobs[:5])
        more = f" and {len(trigger.jobs) - 5} more" if len(trigger.jobs) > 5 else ""
        only = trigger.jobs[0] if len(trigger.jobs) == 1 else None
        message, about = f"{wish.operator} asked for a dump of {names}{more}.", [job.subject for job in trigger.jobs]
        line = activity_now("info", "dump-scheduled", message, job=only, about=about)
        with contextlib.suppress(StateError):  # the jobs are scheduled; the log has the line
            await self._journal.tell(line)


def _trigger(domains: Sequence[Domain], wish: Wish) -> Trigger:
    at, trigger_id = datetime.now(UTC), str(uuid_utils.uuid7())
    jobs = tuple(
        Job(
            job_id=str(uuid_utils.uuid7()),
            trigger_id=trigger_id,
            uuid=domain.uuid,
            vm_id=domain.vmid or domain.uuid,
            dom=domain.name,
            wish=wish,
            phase=Phase.QUEUED,
            requested_at=at,
            hypervisor=domain.hypervisor,
            group=domain.group,
        )
        for domain in domains
    )
    return Trigger(trigger_id=trigger_id, at=at, jobs=jobs)
