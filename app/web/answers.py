"""What goes out: the shapes of all answers. They encode, and the description of the API is made from them.

Names and their order are the contract's, sections 5, 7 and 8. Moments are texts, for they always have six digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal, Self

import msgspec
from msgspec import Meta

from app import model
from app.model import rfc3339

encode = msgspec.json.Encoder().encode
"""Any answer as JSON."""

Moment = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
RawRecord = Annotated[msgspec.Raw, Meta(extra_json_schema={"$ref": "#/components/schemas/Record"})]
"""A record that is JSON already, as the index keeps it."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A part of an answer."""


# --- records ------------------------------------------------------------------------------------------------------


class Record(Answer, frozen=True, kw_only=True):
    """One sealed dump: its manifest without the domain's XML, which is long."""

    dump_id: str
    timestamp: Annotated[Moment, Meta(description="The start of the capture.")]
    dom: Annotated[str, Meta(description="The VM's name.")]
    vmid: Annotated[str, Meta(description="OpenNebula's VM id, else libvirt's id, else empty.")]
    uuid: Annotated[str, Meta(description="The VM; empty in records of other producers.")]
    hypervisor: str
    uri: str
    mode: Annotated[model.Way, Meta(description="How it was captured.")]
    format: Literal["elf", "raw"]
    captured_at: Annotated[Moment, Meta(description="The instant that the image shows.")]
    guest_pause_ms: Annotated[float, Meta(description="The sum of all stops that the capture caused.")]
    guest_pauses_ms: tuple[float, ...]
    duration_sec: float
    raw_size_bytes: int
    sha256: Annotated[str, Meta(description="Of the image, unpacked.")]
    gzip_size_bytes: Annotated[int, Meta(description="The stored size, whatever the algorithm.")]
    stored_sha256: Annotated[str, Meta(description="Of the stored file.")]
    compression: model.Compression
    ctime: Annotated[int, Meta(description="Seconds since 1970; as mtime and atime.")]
    mtime: int
    atime: int
    dump_path: str
    operator: str
    reason: str | None
    case: str | None
    versions: model.Versions
    warnings: tuple[str, ...]
    audit_head: Annotated[
        str | None, Meta(description="Hash of the last entry that the audit trail had when the capture began.")
    ] = None
    group: Annotated[str | None, Meta(description="The VM's OpenNebula group; null where it has none.")] = None

    @classmethod
    def of(cls, manifest: model.Manifest) -> Self:
        return cls(**{name: getattr(manifest, name) for name in cls.__struct_fields__})


class Manifest(Record, frozen=True, kw_only=True):
    """The whole manifest of a dump."""

    domain_xml: Annotated[str, Meta(description="The domain as libvirt described it, without secrets.")]


class Records(Answer, frozen=True, kw_only=True):
    """A page of records."""

    records: Sequence[RawRecord]
    count: Annotated[int, Meta(description="All that match, on this page or not.")]
    limit: int
    offset: Annotated[int | None, Meta(description="Null where `cursor` was used.")]
    next_cursor: Annotated[str | None, Meta(description="Where the next page begins; null on the last one.")]


class StatsByVm(Answer, frozen=True, kw_only=True):
    """Totals of each VM that has records in the range, by name. A VM is its uuid; where records have none, its name and vmid."""

    by: Literal["vm"] = "vm"
    since: Moment | None = msgspec.field(name="from")
    until: Moment | None = msgspec.field(name="to")
    vms: tuple[model.VmStats, ...]


class StatsByDay(Answer, frozen=True, kw_only=True):
    """Totals of each day (UTC) that has records in the range, oldest first."""

    by: Literal["day"] = "day"
    since: Moment | None = msgspec.field(name="from")
    until: Moment | None = msgspec.field(name="to")
    days: tuple[model.DayStats, ...]


# --- jobs ---------------------------------------------------------------------------------------------------------


class Job(Answer, frozen=True, kw_only=True):
    """One VM's dump, from request to record."""

    job_id: str
    trigger_id: Annotated[str, Meta(description="Joins the jobs of one request.")]
    vm_id: Annotated[str, Meta(description="The VM's vmid or, where it has none, its name.")]
    dom: str
    uuid: str
    phase: model.Phase
    mode: Annotated[model.Mode, Meta(description="What was asked for.")]
    compression: model.Algorithm
    max_pause_ms: int | None
    reason: str | None
    case: str | None
    operator: str
    requested_at: Moment
    started_at: Moment | None
    finished_at: Moment | None
    progress: model.Progress | None
    error: model.Fault | None
    dump_id: str | None
    guest_pause_ms: float | None
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, job: model.Job) -> Self:
        wish = job.wish
        return cls(
            job_id=job.job_id,
            trigger_id=job.trigger_id,
            vm_id=job.vm_id,
            dom=job.dom,
            uuid=job.uuid,
            phase=job.phase,
            mode=wish.mode,
            compression=wish.compression,
            max_pause_ms=wish.max_pause_ms,
            reason=wish.reason,
            case=wish.case,
            operator=wish.operator,
            requested_at=rfc3339(job.requested_at),
            started_at=_moment(job.started_at),
            finished_at=_moment(job.finished_at),
            progress=job.progress,
            error=job.error,
            dump_id=job.dump_id,
            guest_pause_ms=job.guest_pause_ms,
            warnings=job.warnings,
        )


class Jobs(Answer, frozen=True, kw_only=True):
    """Jobs, newest first."""

    jobs: tuple[Job, ...]


class ScheduledJob(Answer, frozen=True, kw_only=True):
    """A job that was made."""

    job_id: str
    vm_id: str
    dom: str


class Scheduled(Answer, frozen=True, kw_only=True):
    """What a trigger made."""

    status: Literal["scheduled"] = "scheduled"
    message: str
    vm_ids: tuple[str, ...]
    timestamp: Moment
    jobs: tuple[ScheduledJob, ...]

    @classmethod
    def of(cls, trigger: model.Trigger) -> Self:
        return cls(
            message=f"Memory dump scheduled for {len(trigger.jobs)} VM(s)",
            vm_ids=tuple(job.vm_id for job in trigger.jobs),
            timestamp=rfc3339(trigger.at),
            jobs=tuple(ScheduledJob(job_id=job.job_id, vm_id=job.vm_id, dom=job.dom) for job in trigger.jobs),
        )


class Status(Answer, frozen=True, kw_only=True):
    """The last trigger: one word for all of its jobs."""

    status: model.Outcome = "idle"
    vm_ids: tuple[str, ...] = ()
    timestamp: Moment | None = None
    duration: Annotated[float | None, Meta(description="Seconds, up to now while jobs run.")] = None
    error: str | None = None
    jobs: tuple[Job, ...] = ()

    @classmethod
    def of(cls, trigger: model.Trigger | None) -> Self:
        if trigger is None:
            return cls()
        ends = [job.finished_at for job in trigger.jobs]
        end = max((at for at in ends if at is not None), default=trigger.at) if None not in ends else datetime.now(UTC)
        errors = [f"{job.dom}: {job.error.message}" for job in trigger.jobs if job.error]
        return cls(
            status=model.outcome_of(trigger.jobs),
            vm_ids=tuple(job.vm_id for job in trigger.jobs),
            timestamp=rfc3339(trigger.at),
            duration=round((end - trigger.at).total_seconds(), 3),
            error="\n".join(errors) or None,
            jobs=tuple(Job.of(job) for job in trigger.jobs),
        )


# --- the rest -----------------------------------------------------------------------------------------------------


class Vm(Answer, frozen=True, kw_only=True):
    """One VM of the inventory, running or not."""

    id: Annotated[int | None, Meta(description="libvirt's; null while the VM does not run.")]
    vmid: str
    name: str
    uuid: str
    state: model.DomainState
    memory_bytes: int
    vcpus: int
    hypervisor: str
    group: Annotated[str | None, Meta(description="Its OpenNebula group; null where it has none.")] = None
    last_dump: Moment | None
    alarm: Annotated[str | None, Meta(description="A sentence while it stands still since a dump and could not be resumed.")]

    @classmethod
    def of(cls, sighting: model.Sighting) -> Self:
        domain = sighting.domain
        return cls(
            id=domain.id,
            vmid=domain.vmid,
            name=domain.name,
            uuid=domain.uuid,
            state=domain.state,
            memory_bytes=domain.memory_bytes,
            vcpus=domain.vcpus,
            hypervisor=domain.hypervisor,
            group=domain.group,
            last_dump=sighting.last_dump,
            alarm=sighting.alarm,
        )


class LiveVms(Answer, frozen=True, kw_only=True):
    """All VMs, as they were last seen."""

    vms: tuple[Vm, ...]


class Activity(Answer, frozen=True, kw_only=True):
    """One line of the activity log."""

    at: Moment
    kind: model.ActivityKind
    code: str
    message: str
    job_id: str | None
    dump_id: str | None
    dom: str | None

    @classmethod
    def of(cls, line: model.Activity) -> Self:
        names = cls.__struct_fields__[1:]
        return cls(at=rfc3339(line.at), **{name: getattr(line, name) for name in names})


class ActivityLog(Answer, frozen=True, kw_only=True):
    """What happened last, newest first."""

    activity: tuple[Activity, ...]


class Health(Answer, frozen=True, kw_only=True):
    """The process is alive and its event loop turns."""

    status: Literal["ok"] = "ok"


def _moment(at: datetime | None) -> str | None:
    return rfc3339(at) if at is not None else None
