"""One job from its place in the pool to its end: the capture process's lines become phases, a record, or a fault."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import structlog

from app.changes import Changes
from app.config import Settings
from app.errors import (
    RUNS_ON,
    CaptureCancelled,
    CaptureDied,
    CaptureError,
    CaptureTimedOut,
    GuestLeftPaused,
    StateError,
)
from app.hypervisor import Hypervisor
from app.jobs.alarms import Alarms
from app.jobs.journal import Journal, activity_now
from app.jobs.leftovers import drop_fifos, dump_of, sealed_after_all
from app.jobs.process import CaptureProcess
from app.jobs.promises import keep_promises
from app.jobs.recorder import Recorder
from app.jobs.standing import Watch
from app.lines import FailedLine, FifoLine, Line, PhaseLine, ProgressLine, SealedLine, WarningLine
from app.model import DomainState, Fault, Job, Manifest, Phase, Progress, may_follow

log = structlog.get_logger()

_OVERDUE_SEC = 15.0
"""How much longer than its own time limit a capture process may take to say so, before it is killed."""

_CANCEL_SEC = 15.0
"""How long a capture process may take to end when it is asked to, before it is killed."""

STOPPED = Fault("interrupted", "The service was stopped before this dump was sealed. Nothing of it was kept.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a run works with. ``keep`` makes a job's new state known to everybody."""

    settings: Settings
    hypervisor: Hypervisor
    journal: Journal
    recorder: Recorder
    alarms: Alarms
    changes: Changes
    keep: Callable[[Job], Awaitable[None]]


class Run:
    """The life of one job outside the queue."""

    def __init__(self, job: Job, parts: Parts) -> None:
        self.job = job
        self._parts = parts
        self._process: CaptureProcess | None = None
        self._dump_id: str | None = None
        self._manifest: Manifest | None = None
        self._fault: Fault | None = None
        self._guest = ""  # what was last seen of the guest: where a fault is told, its last sentence
        self._standing = False
        self._overdue = self._cancelled = self._asked = self._stopped = self._ran = self._unsure = False
        self._cancelled_by: str | None = None
        self._timer: asyncio.TimerHandle | None = None

    def cancel(self, by: str | None = None) -> None:
        """Ask the capture to end, for the operator ``by``. In ``recording`` and after it nothing happens: the dump exists."""
        self._cancelled = True
        self._cancelled_by = self._cancelled_by or by
        if self._process is not None and not self._asked and may_follow(self.job.phase, Phase.CANCELLED):
            self._asked = True  # who asks again puts nothing off
            self._process.cancel()
            self._kill_in(_CANCEL_SEC)

    def stop(self) -> None:
        """The same, because the service ends: the job is interrupted, not cancelled."""
        self._stopped = True
        self.cancel()

    async def live(self) -> None:
        """Capture, record, and end in a final phase, whatever happens."""
        try:
            await self._to(Phase.PREPARING)
            known = self._parts.hypervisor.domains()
            self._ran = any(domain.uuid == self.job.uuid and domain.state is DomainState.RUNNING for domain in known)
            if self._ran:
                await self._parts.alarms.debts.owe(self.job.uuid)
            await self._capture()
            if self._manifest is None:  # without a FIFO it died, if it did, before it touched its guest
                await (self._drop_leftovers() if self._dump_id is None else self._tidy())
            await self._end()
            if self._ran:
                await self._settle()
        except StateError as error:
            log.error("job_not_journalled", job_id=self.job.job_id, code=error.code, message=str(error))
            await self._drop_leftovers()
            if self._ran:
                self._parts.alarms.debts.fall_due(self.job.uuid)
            await self._fail_unjournalled(error)
        finally:
            self._stop_timer()
            self._parts.changes.ended(self.job.job_id)

    # --- the capture process

    async def _capture(self) -> None:
        head = (await self._parts.journal.audit_head()).hash
        try:
            process = await CaptureProcess.start(self.job, self._parts.settings, head)
        except OSError as error:
            self._fault = Fault("capture-failed", f"The capture process could not be started: {error}. The guest was not touched.")
            return
        self._process = process
        if self._cancelled:
            self.cancel()
        if self._parts.settings.dump_timeout_sec:
            self._kill_in(self._parts.settings.dump_timeout_sec + _OVERDUE_SEC, overdue=True)
        try:
            await self._parts.journal.note_process(self.job.job_id, process.pid, process.started)
            async for line in process.lines():
                await self._hear(line)
        except BaseException:
            process.kill()
            raise
        finally:
            code = await process.ended()
            log.info("capture_process_ended", job_id=self.job.job_id, pid=process.pid, exit_code=code)
        if self._manifest is None and self._fault is None:
            self._fault = self._died(code)

    async def _hear(self, line: Line) -> None:
        match line:
            case PhaseLine() if line.phase is not self.job.phase and may_follow(self.job.phase, line.phase):
                if line.phase is Phase.SEALING and not self._cancelled:
                    self._stop_timer()
                await self._to(line.phase)
            case ProgressLine():
                self._advance(line)
            case FifoLine():
                self._dump_id = dump_of(Path(line.directory))
                await self._parts.journal.note_dump(self.job.job_id, self._dump_id)
            case WarningLine():
                await self._parts.journal.tell(activity_now("warning", line.code, _about(self.job, line.message), job=self.job))
                await self._keep(replace(self.job, warnings=(*self.job.warnings, line.message)))
                await self._hear_of_guest(line)
            case SealedLine():
                self._manifest = line.manifest
            case FailedLine():
                self._fault, self._guest = Fault(line.code, line.message.removesuffix(line.guest).rstrip()), line.guest
            case PhaseLine():
                pass

    async def _hear_of_guest(self, line: WarningLine) -> None:
        alarms, domains = self._parts.alarms, self._parts.hypervisor.domains()
        if line.code == "guest-state-unknown":
            self._unsure = True
        elif line.code == "guest-resumed":
            self._standing = False
            await alarms.end(self.job.uuid, domains)
        elif line.code == GuestLeftPaused.code and any(each.uuid == self.job.uuid and each.active for each in domains):
            self._standing = True
            await alarms.raise_for(self.job.uuid, line.message)

    def _advance(self, line: ProgressLine) -> None:
        progress = Progress(
            bytes_done=line.bytes_done,
            bytes_total=line.bytes_total,
            rate_bytes_per_sec=line.rate_bytes_per_sec,
            eta_sec=line.eta_sec,
            guest_paused=line.guest_paused,
            iteration=line.iteration,
            mode=line.mode,
        )
        self.job = replace(self.job, progress=progress)
        self._parts.changes.advance(self.job.job_id, line.phase, progress)

    def _died(self, code: int) -> Fault:
        if self._overdue:
            error: CaptureError = CaptureTimedOut(self._parts.settings.dump_timeout_sec)
        elif self._cancelled:
            error = CaptureCancelled()
        else:
            how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
            error = CaptureDied(
                f"The capture process ended {how} without a result. Nothing of the dump was kept.", "Try again.", RUNS_ON
            )
        self._guest, error.guest = (RUNS_ON if self._ran else ""), ""
        return Fault(error.code, str(error))

    def _kill_in(self, seconds: float, *, overdue: bool = False) -> None:
        """Give the process so long; one timer at a time, the newest."""
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._kill, overdue)

    def _kill(self, overdue: bool) -> None:
        self._overdue = overdue
        if self._process is not None:
            log.error("capture_process_killed", job_id=self.job.job_id, pid=self._process.pid, overdue=overdue)
            self._process.kill()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    # --- its end

    async def _tidy(self) -> None:
        """After a capture process that gave no dump: what it may have left, and the guest."""
        await self._drop_leftovers()
        seen = await self._watch().see_it_run_on(self.job.uuid if self._ran else "", self.job)
        if self._guest or seen != RUNS_ON:
            self._guest = seen
        await keep_promises(self._parts.settings, self._watch())

    async def _drop_leftovers(self) -> None:
        """The FIFO and the partial files of its dead process; a dump that was sealed all the same is kept."""
        settings = self._parts.settings
        await asyncio.to_thread(drop_fifos, settings.libvirt_uri, settings.dump_dir)
        with contextlib.suppress(OSError):  # a folder that cannot be read holds nothing that could be finished
            self._manifest = await asyncio.to_thread(sealed_after_all, settings.dump_dir, self._dump_id)

    def _watch(self) -> Watch:
        return Watch(hypervisor=self._parts.hypervisor, journal=self._parts.journal, alarms=self._parts.alarms)

    async def _settle(self) -> None:
        """Strike out the debt, unless nobody could see that the guest runs on: then it falls due."""
        debts = self._parts.alarms.debts
        if self._unsure and self._manifest is not None:  # without a dump it was looked at already
            await self._watch().see_it_run_on(self.job.uuid, self.job)
        if self._standing and self._manifest is not None:
            debts.fall_due(self.job.uuid)
        if self.job.uuid not in debts.due():
            await debts.settle(self.job.uuid)

    async def _end(self) -> None:
        if self._manifest is not None:
            await self._record(self._manifest)
            return
        fault = self._with_guest(self._fault or Fault(CaptureDied.code, "The capture ended without a result."))
        if fault.code == CaptureCancelled.code and self._stopped:
            stopped = self._with_guest(STOPPED)
            await self._to(Phase.INTERRUPTED, stopped)
            await self._parts.journal.tell(activity_now("warning", stopped.code, _about(self.job, stopped.message), job=self.job))
        elif fault.code == CaptureCancelled.code:
            await self._to(Phase.CANCELLED, fault)
            message = _about(self.job, fault.message)
            if self._cancelled_by:
                message = f"{self._cancelled_by} cancelled the dump of {self.job.dom}. Nothing was kept. {self._guest}".rstrip()
            await self._parts.journal.tell(activity_now("info", "dump-cancelled", message, job=self.job))
        else:
            await self._fail(fault)

    def _with_guest(self, fault: Fault) -> Fault:
        return Fault(fault.code, f"{fault.message} {self._guest}".rstrip())

    async def _record(self, manifest: Manifest) -> None:
        for phase in (Phase.CAPTURING, Phase.SEALING):  # that its process may not have lived to tell
            if may_follow(self.job.phase, phase):
                await self._to(phase)
        self.job = replace(self.job, dump_id=manifest.dump_id, guest_pause_ms=manifest.guest_pause_ms)
        await self._to(Phase.RECORDING)
        try:
            await self._parts.recorder.record(manifest)
        except StateError as error:
            await self._fail(Fault(error.code, _unrecorded(manifest, error)))
            return
        await self._to(Phase.COMPLETED)
        await self._parts.journal.tell(activity_now("success", "dump-sealed", _success(manifest), job=self.job))

    async def _fail(self, fault: Fault) -> None:
        await self._to(Phase.FAILED, fault)
        await self._parts.journal.tell(activity_now("error", fault.code, _about(self.job, fault.message), job=self.job))

    async def _fail_unjournalled(self, error: StateError) -> None:
        """The disk does not take it; whoever is looking hears of it all the same."""
        if not self.job.phase.final:
            message = _unrecorded(self._manifest, error) if self._manifest is not None else str(error)
            self.job = self.job.step(Phase.FAILED, datetime.now(UTC), error=Fault(error.code, message))
        with contextlib.suppress(StateError):
            await self._keep(self.job)

    async def _to(self, phase: Phase, fault: Fault | None = None) -> None:
        job = self.job.step(phase, datetime.now(UTC), error=fault)
        if phase.final and job.progress is not None:  # nothing that this job does keeps the guest any more
            job = replace(job, progress=replace(job.progress, guest_paused=False))
        await self._keep(job)

    async def _keep(self, job: Job) -> None:
        self.job = job
        await self._parts.keep(job)


def _unrecorded(manifest: Manifest, error: StateError) -> str:
    sealed = f"The dump is sealed at {manifest.dump_path}, but its record is not kept yet: {error}"
    return f"{sealed} It is made when that is possible, at the latest at the next start."


def _about(job: Job, message: str) -> str:
    """A sentence that says which VM it is about."""
    return message if message.startswith(job.dom) else f"{job.dom}: {message}"


def _success(manifest: Manifest) -> str:
    took = f"{manifest.dom} was dumped in {manifest.duration_sec:.1f} s"
    if manifest.mode == "plain":
        return f"{took}, as its driver could."
    pause_ms = manifest.guest_pause_ms
    return f"{took}; it stood still for {f'{pause_ms:.0f} ms' if pause_ms < 1000 else f'{pause_ms / 1000:.2f} s'}."
