"""What goes over the wire: the shape of requests, checked; and of answers, from the nouns of ``app.model``.

Names and shapes are the contract's, sections 5, 7 and 8. Unknown fields and wrong types are refused with the place
where they stand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from app.changes import Advance, Change
from app.config import MOST_PAUSE_MS
from app.errors import RequestError
from app.model import (
    ALGORITHMS,
    MODES,
    Activity,
    Algorithm,
    DumpRecord,
    HistoryStatus,
    HypervisorStatus,
    Job,
    Mode,
    Sighting,
    Stats,
    Trigger,
    outcome_of,
    rfc3339,
)

MAX_BODY_BYTES = 128 * 1024
"""Room for a thousand VMs by their uuid, twice over."""

T = TypeVar("T")

_encoder = msgspec.json.Encoder()
encode = _encoder.encode
"""Any answer as JSON."""

_PLACE = re.compile(r"(?P<what>.*?)(?: - at `(?P<place>[^`]+)`)?", re.DOTALL)
_WORDS = {"$.mode": MODES, "$.compression": ALGORITHMS}
_UNKNOWN_FIELD = re.compile(r"unknown field `(?P<name>[^`]*)`")

# Ends up in a program's arguments, in a manifest and on a page: a text for people, so no control characters but line ends and tabs.
Note = Annotated[str, msgspec.Meta(max_length=1000, pattern=r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*$")]


class TriggerBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /api/memory-dumps/trigger``: which VMs, and how."""

    vm_ids: Annotated[list[Annotated[str, msgspec.Meta(min_length=1, max_length=255)]], msgspec.Meta(min_length=1)] | None = None
    all: bool | None = None
    mode: Mode | None = None
    compression: Algorithm | None = None
    max_pause_ms: Annotated[int, msgspec.Meta(ge=1, le=MOST_PAUSE_MS)] | None = None
    reason: Note | None = None
    case: Note | None = None

    def __post_init__(self) -> None:
        if self.vm_ids is not None and self.all:
            raise ValueError("Give either `vm_ids` or `all`, not both")
        if self.vm_ids is None and not self.all:
            raise ValueError('Give `vm_ids`, a list of VMs, or `"all": true`')


class EmptyBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST …/cancel``: nothing to say."""


def decode(body: bytes, shape: type[T]) -> T:
    """``body`` as ``shape``. Raises ``RequestError`` that names the place."""
    if not body.strip():
        raise RequestError("The body is empty; a JSON object is expected.", place="$")
    try:
        decoded = msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as error:
        raise _at_its_place(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"The body is not JSON: {error}.", place="$") from None
    json.loads(body, object_pairs_hook=_each_once)
    return decoded


def _each_once(members: list[tuple[str, object]]) -> None:
    """Refuse a name that is given twice: which one counts would be a guess. msgspec takes the last without a word.

    No shape of a request has an object inside, so the members are those of the body itself.
    """
    seen: set[str] = set()
    for name, _ in members:
        if name in seen:
            raise RequestError(f"`{name}` is given twice (at $.{name}).", place=f"$.{name}")
        seen.add(name)


def _at_its_place(message: str) -> RequestError:
    found = _PLACE.fullmatch(message)
    what, place = (found["what"], found["place"] or "$") if found else (message, "$")
    if "matching regex" in what:  # there is one, that of a ``Note``
        what = "Control characters, other than line ends and tabs, cannot be in this text"
    if what.startswith("Invalid enum value") and place in _WORDS:
        what = f"{what}; there are {', '.join(_WORDS[place])}"
    unknown = _UNKNOWN_FIELD.search(what)
    if unknown:
        place = f"{place}.{unknown['name']}"
    return RequestError(f"{what} (at {place}).", place=place)


def number(query: Mapping[str, str], name: str, default: int, *, low: int, high: int) -> int:
    """A whole number of the query string. Raises ``RequestError`` that names it."""
    text = query.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,15}", text) or not low <= int(text) <= high:
        raise RequestError(f"{name}={text!r} is not a whole number from {low} to {high}.", place=name)
    return int(text)


def only(query: Mapping[str, str], *known: str) -> None:
    """Refuse names that mean nothing here, and names given twice. Raises ``RequestError``."""
    seen: set[str] = set()
    for name, _ in query.items():  # noqa: PERF102 - a multidict has each key once, but an item each time it was given
        if name not in known:
            wanted = f"known are: {', '.join(known)}" if known else "there are none here"
            raise RequestError(f"{name!r} is not a parameter of this address; {wanted}.", place=name)
        if name in seen:
            raise RequestError(f"{name!r} is given twice.", place=name)
        seen.add(name)


# --- answers ------------------------------------------------------------------------------------------------------


def job(of: Job) -> dict[str, object]:
    """A job, whole."""
    wish = of.wish
    return {
        "job_id": of.job_id,
        "trigger_id": of.trigger_id,
        "vm_id": of.vm_id,
        "dom": of.dom,
        "uuid": of.uuid,
        "phase": of.phase.value,
        "mode": wish.mode,
        "compression": wish.compression,
        "max_pause_ms": wish.max_pause_ms,
        "reason": wish.reason,
        "case": wish.case,
        "operator": wish.operator,
        "requested_at": rfc3339(of.requested_at),
        "started_at": _moment(of.started_at),
        "finished_at": _moment(of.finished_at),
        "progress": msgspec.to_builtins(of.progress) if of.progress else None,
        "error": {"code": of.error.code, "message": of.error.message} if of.error else None,
        "dump_id": of.dump_id,
        "guest_pause_ms": of.guest_pause_ms,
        "warnings": list(of.warnings),
    }


def record(of: DumpRecord) -> dict[str, Any]:
    """A record for lists and the live feed: the manifest without the domain's XML, which is long."""
    whole = manifest(of)
    del whole["domain_xml"]
    return whole


def manifest(of: DumpRecord) -> dict[str, Any]:
    """The whole manifest."""
    builtins: dict[str, Any] = msgspec.to_builtins(of)
    return builtins


def vm(of: Sighting) -> dict[str, object]:
    """One VM of the inventory."""
    domain = of.domain
    return {
        "id": domain.id,
        "vmid": domain.vmid,
        "name": domain.name,
        "uuid": domain.uuid,
        "state": domain.state.value,
        "memory_bytes": domain.memory_bytes,
        "vcpus": domain.vcpus,
        "hypervisor": domain.hypervisor,
        "last_dump": of.last_dump,
        "alarm": of.alarm,
    }


def stats(of: Stats) -> dict[str, object]:
    """The totals."""
    builtins: dict[str, object] = msgspec.to_builtins(of)
    return builtins


def activity(of: Activity) -> dict[str, object]:
    """One line of the activity log."""
    kind: Literal["success", "error", "warning", "info"] = of.kind
    return {
        "at": rfc3339(of.at),
        "kind": kind,
        "code": of.code,
        "message": of.message,
        "job_id": of.job_id,
        "dump_id": of.dump_id,
        "dom": of.dom,
    }


def _moment(at: datetime | None) -> str | None:
    return rfc3339(at) if at is not None else None


def hypervisor(of: HypervisorStatus) -> dict[str, object]:
    """How the connection to libvirt is."""
    return {"name": of.name, "uri": of.uri, "state": of.state, "since": rfc3339(of.since), "message": of.message}


def history(of: HistoryStatus) -> dict[str, object]:
    """How the shared history is. ``summary`` is all of it in one line, empty where there is none."""
    return {
        "state": of.state,
        "since": rfc3339(of.since),
        "message": of.message,
        "pending": of.pending,
        "set_aside": of.set_aside,
        "read_back_to": _moment(of.read_back_to),
        "pulled": of.pulled,
        "summary": of.summary,
    }


def scheduled(of: Trigger) -> dict[str, object]:
    """The answer to a trigger."""
    return {
        "status": "scheduled",
        "message": f"Memory dump scheduled for {len(of.jobs)} VM(s)",
        "vm_ids": [job.vm_id for job in of.jobs],
        "timestamp": rfc3339(of.at),
        "jobs": [{"job_id": job.job_id, "vm_id": job.vm_id, "dom": job.dom} for job in of.jobs],
    }


def status(of: Trigger | None) -> dict[str, object]:
    """The last trigger: one word for all of its jobs. ``duration`` is in seconds, up to now while they run."""
    if of is None:
        return {"status": "idle", "vm_ids": [], "timestamp": None, "duration": None, "error": None, "jobs": []}
    ends = [job.finished_at for job in of.jobs]
    end = max((at for at in ends if at is not None), default=of.at) if None not in ends else datetime.now(UTC)
    errors = [f"{job.dom}: {job.error.message}" for job in of.jobs if job.error]
    return {
        "status": outcome_of(of.jobs),
        "vm_ids": [job.vm_id for job in of.jobs],
        "timestamp": rfc3339(of.at),
        "duration": round((end - of.at).total_seconds(), 3),
        "error": "\n".join(errors) or None,
        "jobs": [job(one) for one in of.jobs],
    }


# --- the live feed ------------------------------------------------------------------------------------------------


def subject(of: Change) -> Any:
    """What a change is about, as the feed shows it."""
    match of.subject:
        case tuple() as sightings:
            return [vm(sighting) for sighting in sightings]
        case HypervisorStatus() as noun:
            return hypervisor(noun)
        case HistoryStatus() as noun:
            return history(noun)
        case Job() as noun:
            return job(noun)
        case DumpRecord() as noun:
            return record(noun)
        case Stats() as noun:
            return stats(noun)
        case Activity() as noun:
            return activity(noun)
        case noun:
            raise TypeError(f"no shape for {type(noun)}")


def advance(of: Advance) -> dict[str, object]:
    """A progress message; it has no cursor."""
    return {"type": "progress", "job_id": of.job_id, "phase": of.phase.value, **msgspec.to_builtins(of.progress)}
