"""How the service and what it hangs on are at this moment, and what it tells of that."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal

from app.model.domains import Subject

ActivityKind = Literal["success", "error", "warning", "info"]


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
