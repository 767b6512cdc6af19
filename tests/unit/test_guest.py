"""Calls to a libvirt that does not answer; and what is said of a guest after its capture."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import libvirt
import pytest

from app.capture.aftercare import see_it_run_on
from app.capture.connection import Connection
from app.capture.guest import Guest
from app.capture.patience import Call, Patience
from app.capture.report import Report
from app.errors import RUNS_ON, HypervisorNotResponding
from app.lines import Line, WarningLine
from app.model import Domain, DomainState
from tests.faults.processes import eventually


class Broken:
    """A connection that keepalive has given up."""

    def setKeepAlive(self, interval: int, count: int) -> None:  # noqa: N802 - libvirt's name
        pass

    def getType(self) -> str:  # noqa: N802
        return "Test"

    def getHostname(self) -> str:  # noqa: N802
        return "kvm-07"

    def getLibVersion(self) -> int:  # noqa: N802
        return 9_000_000

    def isAlive(self) -> bool:  # noqa: N802
        return False


@pytest.fixture
def forgotten() -> Iterator[Call[bool]]:
    """A call that never ends by itself."""
    over = threading.Event()
    yield Call(over.wait)
    over.set()


@pytest.fixture
def connection() -> Connection:
    return Connection("qemu:///system", cast("libvirt.virConnect", Broken()), Patience())


def test_call_that_a_broken_connection_has_forgotten_is_not_waited_for(connection: Connection, forgotten: Call[bool]) -> None:
    """However patient the capture is."""
    with pytest.raises(HypervisorNotResponding):
        connection.result(forgotten)
    assert not connection.ended_within(forgotten, 3600)


def test_what_a_call_returned_before_the_connection_broke_counts(connection: Connection) -> None:
    assert connection.call(lambda: 7) == 7


# --- after a capture

OPEN = Path("/proc/self/fd")
HELD = (libvirt.VIR_ERR_INTERNAL_ERROR, 'Failed to get "write" lock')
NOT_RUNNING = (libvirt.VIR_ERR_OPERATION_INVALID, "domain is not running")
STANDS = [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_DUMP]
DOMAIN = Domain(
    uuid="a3090414-a879-482f-852d-f2fd8e7300e5",
    name="vm-web-01",
    id=7,
    vmid="101",
    state=DomainState.RUNNING,
    memory_bytes=1,
    vcpus=1,
    hypervisor="kvm",
)


def _error(code: int, text: str) -> libvirt.libvirtError:
    error = libvirt.libvirtError(text)
    error.err = (code, 0, text, 2, "", "", "", 0, 0)
    return error


class Sound(Broken):
    """A connection that works."""

    def getType(self) -> str:  # noqa: N802
        return "QEMU"

    def getVersion(self) -> int:  # noqa: N802
        return 7_002_000

    def isAlive(self) -> bool:  # noqa: N802
        return True


@dataclass
class Raw:
    """A domain that a dump left standing; ``errors`` come one after the other of what is asked last before it is resumed."""

    errors: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    active: bool = True
    then: Callable[[], None] = lambda: None

    def state(self) -> list[int]:
        self._fail("state")
        return STANDS if self.active else [libvirt.VIR_DOMAIN_SHUTOFF, 0]

    def jobInfo(self) -> list[int]:  # noqa: N802 - libvirt's name
        self._fail("jobInfo")
        return [libvirt.VIR_DOMAIN_JOB_NONE]

    def isActive(self) -> bool:  # noqa: N802 - libvirt's name
        return self.active

    def resume(self) -> None:
        self._fail("resume")

    def _fail(self, asked: str) -> None:
        if self.errors.get(asked):
            code, text = self.errors[asked].pop(0)
            self.then()
            raise _error(code, text)


def _seen(raw: Raw, conn: Broken) -> tuple[list[tuple[str, str]], str]:
    """What is warned of, by code, and what is then known of the guest."""
    told: list[Line] = []
    report = Report("101", told.append)
    guest = Guest(
        Connection("qemu:///system", cast("libvirt.virConnect", conn), Patience()), cast("libvirt.virDomain", raw), DOMAIN
    )
    see_it_run_on(guest, report)
    return [(line.code, line.message) for line in told if isinstance(line, WarningLine)], report.guest


def test_guest_that_cannot_be_resumed_yet_is_told_once_and_at_once() -> None:
    warnings, seen = _seen(Raw({"resume": [HELD, HELD]}), Sound())
    assert [code for code, _ in warnings] == ["guest-left-paused", "guest-resumed"]
    assert warnings[0][1].startswith("vm-web-01 stands still after the dump")
    assert HELD[1] in warnings[0][1]
    assert seen == RUNS_ON


@pytest.mark.parametrize("asked", ["state", "jobInfo", "resume"])
def test_guest_that_ends_while_it_is_looked_after_does_not_stand_still(asked: str) -> None:
    raw = Raw({asked: [NOT_RUNNING]})
    raw.then = lambda: setattr(raw, "active", False)
    warnings, seen = _seen(raw, Sound())
    assert warnings == []
    assert "stands still" not in seen


@pytest.mark.parametrize("text", ["client socket is closed", "connection closed due to keepalive timeout"])
def test_libvirt_that_dies_while_the_guest_is_looked_at_costs_no_dump_and_is_told_in_one_way(text: str) -> None:
    conn = Sound()
    raw = Raw({"state": [(libvirt.VIR_ERR_INTERNAL_ERROR, text)]})
    raw.then = lambda: setattr(conn, "isAlive", lambda: False)
    said = "Whether vm-web-01 runs on could not be seen, for libvirt does not answer. Look at it."
    assert _seen(raw, conn) == ([("guest-state-unknown", said)], said)


def test_guest_that_libvirt_works_on_is_left_alone_and_not_said_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.capture.guest._JOB_ENDS_SEC", 0.0)
    raw = Raw()
    monkeypatch.setattr(raw, "jobInfo", lambda: [libvirt.VIR_DOMAIN_JOB_UNBOUNDED])
    warnings, seen = _seen(raw, Sound())
    assert [code for code, _ in warnings] == ["guest-state-unknown"]
    assert "vm-web-01 stands still while libvirt works on it" in seen
    assert raw.active


def test_calls_and_their_patience_leave_no_descriptor_open() -> None:
    before = set(OPEN.iterdir())
    connection = Connection("qemu:///system", cast("libvirt.virConnect", Sound()), Patience())
    assert [connection.call(lambda: number) for number in range(20)]  # noqa: B023 - called at once
    del connection
    gc.collect()
    eventually(lambda: set(OPEN.iterdir()) <= before, "all are closed")


def test_job_lock_that_somebody_holds_for_long_costs_no_dump() -> None:
    warnings, _ = _seen(Raw({"resume": [(libvirt.VIR_ERR_OPERATION_TIMEOUT, "cannot acquire state change lock")]}), Sound())
    assert [code for code, _ in warnings] == ["guest-state-unknown"]
