"""The nouns: frozen dataclasses and pure functions, no I/O.

Units stand in names (``_bytes``, ``_sec``, ``_ms``); every ``_at`` is an aware UTC ``datetime``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Literal, NamedTuple, Self
from uuid import UUID
from xml.etree import ElementTree

from app.errors import AmbiguousVm, VmUnknown

Mode = Literal["auto", "live", "paused"]
Way = Literal["live", "paused", "plain"]
Algorithm = Literal["gzip", "zstd", "lz4", "none"]
Outcome = Literal["idle", "scheduled", "running", "completed", "failed", "partial", "cancelled"]
ActivityKind = Literal["success", "error", "warning", "info"]

MODES: tuple[Mode, ...] = ("auto", "live", "paused")
ALGORITHMS: tuple[Algorithm, ...] = ("gzip", "zstd", "lz4", "none")


def rfc3339(moment: datetime) -> str:
    """``2026-11-23T10:30:00.000000Z``: UTC, always six digits of microseconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def from_rfc3339(text: str) -> datetime:
    """The aware UTC moment that ``rfc3339`` wrote. Raises ``ValueError`` for anything without an offset."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no offset from UTC")
    return moment.astimezone(UTC)


# --- domains ------------------------------------------------------------------------------------------------------


class Subject(NamedTuple):
    """What somebody's scope looks at in whatever is about a VM: on which hypervisor it is, its name, and its OpenNebula group,
    None where it has none."""

    hypervisor: str
    dom: str
    group: str | None


class DomainState(StrEnum):
    """virDomainState, by libvirt's own words and in its order."""

    NOSTATE = "nostate"
    RUNNING = "running"
    BLOCKED = "blocked"
    PAUSED = "paused"
    SHUTDOWN = "shutdown"
    SHUTOFF = "shutoff"
    CRASHED = "crashed"
    PMSUSPENDED = "pmsuspended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """One libvirt domain as it was last seen. ``id`` is libvirt's number while it is active, else None."""

    uuid: str
    name: str
    id: int | None
    vmid: str
    state: DomainState
    memory_bytes: int
    vcpus: int
    hypervisor: str
    group: str | None = None

    @property
    def subject(self) -> Subject:
        return Subject(self.hypervisor, self.name, self.group)

    @property
    def active(self) -> bool:
        """Whether there is guest memory to read (running, or standing still, but not shut off)."""
        return self.id is not None


_ONE_NAME = re.compile(r"one-([0-9]{1,18})\Z")  # becomes a part of a file's name: no digits of other scripts, no hundreds of them
_ONE_VMID = re.compile(r"[0-9]{1,18}\Z")


def vmid_of(*, name: str, libvirt_id: int | None, opennebula_vmid: str | None = None) -> str:
    """The contract's vmid: OpenNebula's VM id (metadata, then a ``one-<id>`` name), else the libvirt ID, else ''.

    >>> vmid_of(name="one-42", libvirt_id=7)
    '42'
    """
    if opennebula_vmid is not None and _ONE_VMID.match(opennebula_vmid):
        return opennebula_vmid
    named = _ONE_NAME.match(name)
    if named:
        return named.group(1)
    return "" if libvirt_id is None else str(libvirt_id)


def opennebula_vmid(metadata_xml: str) -> str | None:
    """The OpenNebula VM id in a domain's ``http://opennebula.org/xmlns/libvirt/1.0`` metadata element, if there is one.

    OpenNebula writes ``<one:vm><one:vmid>42</one:vmid>…`` (its VMM driver, ``libvirt_driver_kvm.cc``).
    """
    found = re.search(r"<(?:\w+:)?vmid>\s*([0-9]+)\s*</", metadata_xml)
    return found.group(1) if found else None


def opennebula_group(metadata_xml: str) -> str | None:
    """The name of the OpenNebula group whose VM that is, in the same element: ``<one:vm>…<one:gname>blue</one:gname>…``.

    People choose what else stands there (the VM's name), so it is read as XML, and of the element's own children alone: what
    looks like a group within a text is none. Two of them, which OpenNebula never writes, are none either.
    """
    try:
        root = ElementTree.fromstring(metadata_xml)  # noqa: S314 - libvirt's own words
    except ElementTree.ParseError:
        return None
    named = [child.text or "" for child in root if child.tag.rpartition("}")[2] == "gname"]
    return named[0] or None if len(named) == 1 else None


OPENNEBULA_NAMESPACE = "http://opennebula.org/xmlns/libvirt/1.0"


def domain_state(number: int) -> DomainState:
    """A virDomainState."""
    return tuple(DomainState)[number]


def domain_of(
    *, uuid: str, name: str, number: int, state: int, memory_kib: int, vcpus: int, metadata_xml: str | None, hypervisor: str
) -> Domain:
    """A domain by what libvirt says of it: ``number`` is its libvirt ID, negative while it is not active; ``state`` a
    virDomainState; ``metadata_xml`` the element of OpenNebula's, if it has one."""
    libvirt_id = None if number < 0 else number
    opennebula = None if metadata_xml is None else opennebula_vmid(metadata_xml)
    return Domain(
        uuid=uuid,
        name=name,
        id=libvirt_id,
        vmid=vmid_of(name=name, libvirt_id=libvirt_id, opennebula_vmid=opennebula),
        state=domain_state(state),
        memory_bytes=memory_kib * 1024,
        vcpus=vcpus,
        hypervisor=hypervisor,
        group=None if metadata_xml is None else opennebula_group(metadata_xml),
    )


def find_domain(wanted: str, domains: Iterable[Domain]) -> Domain:
    """The one domain that ``wanted`` names: tried as uuid (however it is spelt), vmid, name, libvirt ID, in that order.

    Raises ``VmUnknown``, or ``AmbiguousVm`` if several fit at the first kind that fits any.
    """
    known, as_uuid = tuple(domains), _uuid_of(wanted)
    for fits in (
        [d for d in known if d.uuid == as_uuid],
        [d for d in known if d.vmid and d.vmid == wanted],
        [d for d in known if d.name == wanted],
        [d for d in known if d.id is not None and str(d.id) == wanted],
    ):
        if len(fits) > 1:
            raise AmbiguousVm(wanted, [(d.uuid, d.name) for d in fits])
        if fits:
            return fits[0]
    raise VmUnknown(wanted)


def _uuid_of(text: str) -> str | None:
    """``text`` as libvirt spells a uuid; None if it is none. With or without hyphens, braces or ``urn:uuid:``."""
    try:
        return str(UUID(text))
    except ValueError:
        return None


class Link(StrEnum):
    """How the connection to libvirt is."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    UNREACHABLE = "unreachable"
    NOT_RESPONDING = "not-responding"


@dataclass(frozen=True, slots=True, kw_only=True)
class HypervisorStatus:
    """The hypervisor as a person should see it. ``message`` says what is wrong and what to do; None when nothing is."""

    name: str
    uri: str
    state: Link
    since: datetime
    message: str | None = None


class HistoryState(StrEnum):
    """How the shared history of records is. ``OFF``: there is none (no ``INFLUX_URL``)."""

    OFF = "off"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    UNREACHABLE = "unreachable"
    WRONG_URL = "wrong-url"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryStatus:
    """The shared history as a person should see it. ``message`` says what is wrong and what to do; None when nothing is.

    ``pending`` records wait for delivery, ``set_aside`` ones were refused for good. While the first pull goes on,
    ``read_back_to`` is how far into the past it is, and ``pulled`` what it brought.
    """

    state: HistoryState
    since: datetime
    message: str | None = None
    pending: int = 0
    set_aside: int = 0
    read_back_to: datetime | None = None
    pulled: int = 0

    @property
    def summary(self) -> str:
        """One quiet line; empty where there is no shared history."""
        if self.state is HistoryState.OFF:
            return ""
        parts = [f"History: {self.state.replace('-', ' ')}"]
        if self.pending:
            parts.append(f"{_records(self.pending)} {'waits' if self.pending == 1 else 'wait'} for InfluxDB")
        if self.set_aside:
            parts.append(f"{_records(self.set_aside)} set aside, refused by InfluxDB")
        if self.read_back_to is not None:
            parts.append(f"reading its past, back to {self.read_back_to:%Y-%m-%d}, {_records(self.pulled)} so far")
        return " · ".join(parts)


def _records(number: int) -> str:
    return f"{number:,} {'record' if number == 1 else 'records'}"


@dataclass(frozen=True, slots=True)
class Sighting:
    """One VM as the live feed shows it. ``last_dump`` is the timestamp of its newest record; ``alarm`` says that it stands
    still since a dump and could not be resumed."""

    domain: Domain
    last_dump: str | None
    alarm: str | None = None


# --- jobs ---------------------------------------------------------------------------------------------------------


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


# --- dumps --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Compression:
    """How a dump is stored: independent blocks of ``block_bytes`` raw bytes."""

    algorithm: Algorithm
    level: int | None
    block_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """The programs that made a dump."""

    memory_dumps: str
    libvirt: str
    qemu: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What is known about one dump; field names and order are the contract's (section 5).

    Times are RFC 3339 text with microseconds, for a manifest is kept and compared as it was written;
    ``ctime mtime atime`` are epoch seconds. ``audit_head`` is the hash of the last entry that the audit trail had then.
    """

    dump_id: str
    timestamp: str
    dom: str
    vmid: str
    uuid: str
    hypervisor: str
    uri: str
    mode: Way
    format: Literal["elf", "raw"]
    captured_at: str
    guest_pause_ms: float
    guest_pauses_ms: tuple[float, ...]
    duration_sec: float
    raw_size_bytes: int
    sha256: str
    gzip_size_bytes: int
    stored_sha256: str
    compression: Compression
    ctime: int
    mtime: int
    atime: int
    dump_path: str
    operator: str
    reason: str | None
    case: str | None
    versions: Versions
    warnings: tuple[str, ...] = field(default=())
    audit_head: str | None = None
    group: str | None = None
    domain_xml: str = ""

    @property
    def subject(self) -> Subject:
        return Subject(self.hypervisor, self.dom, self.group)


MOST_BYTES = 2**43
"""8 TiB, more than any guest's memory: a million dumps of that size still add up to a number that SQLite and InfluxDB hold."""

MOST_TIME = 1e9
"""Of a duration in seconds and of a pause in milliseconds."""

_WRITTEN = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z\Z")


def is_timestamp(text: str) -> bool:
    """Whether ``text`` is a time as manifests write it."""
    try:
        return _WRITTEN.match(text) is not None and from_rfc3339(text) is not None
    except ValueError:
        return False


def check_values(record: Manifest) -> None:
    """Raise ``ValueError`` if a number or a time of ``record``, which somebody else wrote, is none that a dump can have.

    One such value would be fatal to every total it is part of, or could never be delivered.
    """
    for name in ("timestamp", "captured_at"):
        text = getattr(record, name)
        if not is_timestamp(text):
            raise ValueError(f"{name}={text[:64]!r} is no time such as 2026-11-23T10:30:00.000000Z")
    for name in ("raw_size_bytes", "gzip_size_bytes", "ctime", "mtime", "atime"):
        if not 0 <= getattr(record, name) <= MOST_BYTES:
            raise ValueError(f"{name} is not within 0 and {MOST_BYTES}")
    if not (0 <= record.compression.block_bytes <= MOST_BYTES and abs(record.compression.level or 0) <= MOST_BYTES):
        raise ValueError(f"a number of compression is not within {MOST_BYTES}")
    for name, values in (
        ("duration_sec", (record.duration_sec,)),
        ("guest_pause_ms", (record.guest_pause_ms,)),
        ("guest_pauses_ms", record.guest_pauses_ms),
    ):
        if not all(0 <= value <= MOST_TIME for value in values):
            raise ValueError(f"{name} is not within 0 and {MOST_TIME:.0f}")


DumpRecord = Manifest
"""A record is the manifest's searchable copy: the same names, the same values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """Totals over all records. ``last_dump`` is the newest record's timestamp."""

    total_dumps: int
    total_vms: int
    total_size_bytes: int
    avg_duration_sec: float
    last_dump: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VmStats:
    """Totals over the records of one VM: of one uuid or, where records have none, of one (dom, vmid). It may have had other
    names before."""

    uuid: str
    dom: str
    vmid: str
    total_dumps: int
    total_size_bytes: int
    avg_duration_sec: float
    avg_pause_ms: float
    longest_pause_ms: float
    last_dump: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DayStats:
    """Totals over the records of one day (UTC), ``YYYY-MM-DD``."""

    day: str
    total_dumps: int
    total_size_bytes: int
    avg_duration_sec: float
    avg_pause_ms: float
    longest_pause_ms: float
    last_dump: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What room is left where dumps go. The figures are None where they cannot be had; ``message`` says why, and what to do.

    Room that a dump under way has reserved is not free.
    """

    dump_dir: str
    free_bytes: int | None
    total_bytes: int | None
    message: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """One line of the activity log. ``code`` is an event word or an error code. ``about`` are the VMs that it tells something of;
    without one it is about the service as a whole."""

    at: datetime
    kind: ActivityKind
    code: str
    message: str
    job_id: str | None = None
    dump_id: str | None = None
    dom: str | None = None
    about: tuple[Subject, ...] = ()
