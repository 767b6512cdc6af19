"""What is kept from a caller whose scope has limits in what is theirs: figures that other people's dumps are part of."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from app.errors import RUNS_ON, HostMemoryShort, HypervisorAway, HypervisorError, NoSpace, VmError
from app.model import Activity, Fault, HistoryState, HistoryStatus, HypervisorStatus, Job, Trigger
from app.scope import Scope

_WORDS = {
    NoSpace.code: "There is not enough room for this dump. Try again later, or ask an administrator.",
    HostMemoryShort.code: "The host has not enough memory for this dump. Try again later, or ask an administrator.",
}
_OF_THE_GUEST = (RUNS_ON, "The guest was not touched.")


def job_within(scope: Scope, job: Job) -> Job:
    """The job as somebody with this scope may see it."""
    if scope.whole or job.error is None or job.error.code not in _WORDS:
        return job
    return replace(job, error=Fault(job.error.code, _without_figures(job.error.code, job.error.message)))


def trigger_within(scope: Scope, trigger: Trigger) -> Trigger:
    """The same of all its jobs."""
    return replace(trigger, jobs=tuple(job_within(scope, job) for job in trigger.jobs))


def line_within(scope: Scope, line: Activity) -> Activity:
    """The same of a line of the activity log."""
    if scope.whole or line.code not in _WORDS:
        return line
    return replace(line, message=f"{line.dom}: {_without_figures(line.code, line.message)}")


def hypervisor_within(scope: Scope, status: HypervisorStatus) -> HypervisorStatus:
    """As it is; one that the scope names nothing of has no name."""
    if not scope.hypervisors or status.name in scope.hypervisors:
        return status
    return replace(status, name="", uri="", message=None)


def refusal_within(scope: Scope, status: HypervisorStatus, error: HypervisorError) -> HypervisorError:
    """Why no dump can be made now. Where libvirt is, and what it said, is told of a hypervisor that somebody may know of alone."""
    hidden = hypervisor_within(scope, status) is not status and not isinstance(error, VmError)
    return HypervisorAway() if hidden else error


def no_history() -> HistoryStatus:
    """What is told of the shared history instead of what waits for it."""
    return HistoryStatus(state=HistoryState.OFF, since=datetime.now(UTC))


def _without_figures(code: str, message: str) -> str:
    """What became of the guest stays."""
    guest = next((sentence for sentence in _OF_THE_GUEST if message.endswith(sentence)), "")
    return f"{_WORDS[code]} {guest}".rstrip()
