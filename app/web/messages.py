"""What the live feed says: its nouns, as the page and the snapshot show them, too."""

from __future__ import annotations

from typing import Annotated, Self

from msgspec import Meta

from app import model
from app.changes import Advance, Change
from app.model import rfc3339
from app.web.answers import Activity, Answer, Job, Moment, Record, Vm


class Hypervisor(Answer, frozen=True, kw_only=True):
    """How the connection to libvirt is."""

    name: str
    uri: str
    state: model.Link
    since: Moment
    message: Annotated[str | None, Meta(description="What is wrong, and what to do.")]

    @classmethod
    def of(cls, status: model.HypervisorStatus) -> Self:
        return cls(name=status.name, uri=status.uri, state=status.state, since=rfc3339(status.since), message=status.message)


class History(Answer, frozen=True, kw_only=True):
    """How the shared history is."""

    state: model.HistoryState
    since: Moment
    message: Annotated[str | None, Meta(description="What is wrong, and what to do.")]
    pending: Annotated[int, Meta(description="Records that wait for delivery.")]
    set_aside: Annotated[int, Meta(description="Records that were refused for good.")]
    read_back_to: Annotated[Moment | None, Meta(description="How far into the past the first pull is; null when it is done.")]
    pulled: int
    summary: Annotated[str, Meta(description="All of it in one line; empty where there is no shared history.")]

    @classmethod
    def of(cls, status: model.HistoryStatus) -> Self:
        return cls(
            state=status.state,
            since=rfc3339(status.since),
            message=status.message,
            pending=status.pending,
            set_aside=status.set_aside,
            read_back_to=rfc3339(status.read_back_to) if status.read_back_to is not None else None,
            pulled=status.pulled,
            summary=status.summary,
        )


Noun = tuple[Vm, ...] | Hypervisor | History | model.Room | Job | Record | model.Stats | Activity


class Snapshot(Answer, frozen=True, kw_only=True, tag_field="type", tag="snapshot"):
    """The first message of a feed: the state of everything. One that is narrowed to some topics has only their members."""

    cursor: str
    now: Annotated[Moment, Meta(description="The service's clock.")]
    version: Annotated[str, Meta(description="The service's.")]
    hypervisor: Hypervisor | None
    history: History | None
    room: model.Room | None
    vms: tuple[Vm, ...]
    jobs: tuple[Job, ...]
    stats: model.Stats
    records: tuple[Record, ...]
    activity: tuple[Activity, ...]


class Alive(Answer, frozen=True, kw_only=True, tag_field="type", tag="alive"):
    """Nothing happened, and the feed stands. It has no cursor."""

    now: Annotated[Moment, Meta(description="The service's clock.")]


class ProgressMessage(Answer, frozen=True, kw_only=True, tag_field="type", tag="progress"):
    """How far a job is. It has no cursor, and is not replayed."""

    job_id: str
    phase: model.Phase
    bytes_done: int
    bytes_total: int
    rate_bytes_per_sec: float
    eta_sec: float | None
    guest_paused: bool
    iteration: int
    mode: model.Way | None

    @classmethod
    def of(cls, advance: Advance) -> Self:
        figures = {name: getattr(advance.progress, name) for name in cls.__struct_fields__[2:]}
        return cls(job_id=advance.job_id, phase=advance.phase, **figures)


def noun(of: Change) -> Noun:
    """What a change is about."""
    match of.subject:
        case tuple() as sightings:
            return tuple(Vm.of(sighting) for sighting in sightings)
        case model.HypervisorStatus() as status:
            return Hypervisor.of(status)
        case model.HistoryStatus() as status:
            return History.of(status)
        case model.Room() as room:
            return room
        case model.Job() as job:
            return Job.of(job)
        case model.DumpRecord() as record:
            return Record.of(record)
        case model.Stats() as stats:
            return stats
        case model.Activity() as line:
            return Activity.of(line)
        case unknown:
            raise TypeError(f"no shape for {type(unknown)}")
