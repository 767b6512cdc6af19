"""Jobs, and which phase may follow which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Literal, Self

from app.model.domains import Subject
from app.model.dumps import Algorithm, Way

Mode = Literal["auto", "live", "paused"]
Outcome = Literal["idle", "scheduled", "running", "completed", "failed", "partial", "cancelled"]

MODES: tuple[Mode, ...] = ("auto", "live", "paused")


class Phase(StrEnum):
    """Where a job is. The last four are final."""

    QUEUED = "queued"
    PREPARING = "preparing"
    CAPTURING = "capturing"
    SEALING = "sealing"
    RECORDING = "recording"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"

    @property
    def final(self) -> bool:
        return self in FINAL_PHASES


FINAL_PHASES = frozenset({Phase.COMPLETED, Phase.FAILED, Phase.CANCELLED, Phase.INTERRUPTED})

_FORWARD = (Phase.QUEUED, Phase.PREPARING, Phase.CAPTURING, Phase.SEALING, Phase.RECORDING, Phase.COMPLETED)


def may_follow(now: Phase, then: Phase) -> bool:
    """Whether a job in phase ``now`` may go to ``then``: one step forward, or to an end; never out of an end.

    What is sealed can no longer be cancelled: in ``recording`` the dump exists.
    """
    if now.final:
        return False
    if then is Phase.CANCELLED:
        return now is not Phase.RECORDING
    if then in (Phase.FAILED, Phase.INTERRUPTED):
        return True
    return _FORWARD.index(then) == _FORWARD.index(now) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far the bytes are. ``bytes_total`` is 0 while it is not known yet; ``iteration`` and ``mode`` as in
    ``lines.ProgressLine``."""

    bytes_done: int
    bytes_total: int
    rate_bytes_per_sec: float
    eta_sec: float | None
    guest_paused: bool
    iteration: int = 0
    mode: Way | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a job ended badly: a stable code and a sentence for a person."""

    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a dump is asked to be: everything of a trigger but the VMs."""

    mode: Mode
    compression: Algorithm
    max_pause_ms: int | None = None
    reason: str | None = None
    case: str | None = None
    operator: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One VM's dump from request to record. ``trigger_id`` joins the jobs of one request."""

    job_id: str
    trigger_id: str
    uuid: str
    vm_id: str
    dom: str
    wish: Wish
    phase: Phase
    requested_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    progress: Progress | None = None
    error: Fault | None = None
    dump_id: str | None = None
    guest_pause_ms: float | None = None
    warnings: tuple[str, ...] = ()
    hypervisor: str = ""
    group: str | None = None

    @property
    def subject(self) -> Subject:
        """Of its VM, as that was when it was asked for."""
        return Subject(self.hypervisor, self.dom, self.group)

    def step(self, phase: Phase, at: datetime, *, error: Fault | None = None) -> Self:
        """The job, one phase on. Raises ``ValueError`` for a step that ``may_follow`` forbids."""
        if not may_follow(self.phase, phase):
            raise ValueError(f"job {self.job_id} cannot go from {self.phase} to {phase}")
        return replace(
            self,
            phase=phase,
            started_at=at if phase is Phase.PREPARING else self.started_at,
            finished_at=at if phase.final else self.finished_at,
            error=error,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """One accepted request for dumps, and its jobs as they are now."""

    trigger_id: str
    at: datetime
    jobs: tuple[Job, ...]


def outcome_of(jobs: Sequence[Job]) -> Outcome:
    """One word for the jobs of a trigger, as ``GET …/status`` says it; an interrupted job counts as failed."""
    phases = {job.phase for job in jobs}
    if not phases:
        return "idle"
    if phases == {Phase.QUEUED}:
        return "scheduled"
    if not phases <= FINAL_PHASES:
        return "running"
    if phases == {Phase.COMPLETED}:
        return "completed"
    if Phase.COMPLETED in phases:
        return "partial"
    return "cancelled" if phases == {Phase.CANCELLED} else "failed"
