"""Which guests the service resumes: those that a dump left standing, and never one that stands still for another reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import libvirt
import pytest

from app.hypervisor.calls import left_paused, resume_left

UUID = "a3090414-a879-482f-852d-f2fd8e7300e5"
REASONS = {
    name.removeprefix("VIR_DOMAIN_PAUSED_"): number
    for name, number in vars(libvirt).items()
    if name.startswith("VIR_DOMAIN_PAUSED_") and name != "VIR_DOMAIN_PAUSED_LAST"
}
"""All that this libvirt knows, by name."""

BY_A_DUMP = {"DUMP", "UNKNOWN", "MIGRATION", "API_ERROR"}


@dataclass
class Raw:
    """A libvirt domain with one state. Only a real libvirt can bring about some of the reasons, such as a failing disk."""

    reason: int
    state_number: int = libvirt.VIR_DOMAIN_PAUSED
    job: int = libvirt.VIR_DOMAIN_JOB_NONE
    resumed: list[str] = field(default_factory=list)

    def UUIDString(self) -> str:  # noqa: N802 - libvirt's name
        return UUID

    def name(self) -> str:
        return "vm-web-01"

    def state(self) -> list[int]:
        return [self.state_number, self.reason]

    def jobStats(self) -> dict[str, int]:  # noqa: N802 - libvirt's name
        return {"type": self.job, "operation": 8}

    def resume(self) -> None:
        self.resumed.append(UUID)


@dataclass
class Connection:
    raw: Raw

    def listAllDomains(self, _flags: int) -> list[Raw]:  # noqa: N802 - libvirt's name
        return [self.raw]

    def lookupByUUIDString(self, _uuid: str) -> Raw:  # noqa: N802 - libvirt's name
        return self.raw


def resumed(raw: Raw, dumped: str = "") -> bool:
    """Whether the service finds and resumes it; it looks once more at the moment of resuming."""
    connection = cast(Any, Connection(raw))
    found = left_paused(connection, dumped)
    said = resume_left(connection, UUID, dumped)
    assert said == ("" if raw.resumed else None)
    assert found == ({UUID: "vm-web-01"} if raw.resumed or (found and raw.job) else {})
    return bool(raw.resumed)


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_a_guest_to_which_nothing_is_owed_is_resumed_only_if_a_dump_paused_it(reason: str) -> None:
    assert resumed(Raw(REASONS[reason])) is (reason == "DUMP")
    assert resumed(Raw(REASONS[reason]), "another") is (reason == "DUMP")


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_a_guest_whose_capture_died_is_resumed_only_for_what_a_dump_can_cause(reason: str) -> None:
    assert resumed(Raw(REASONS[reason]), UUID) is (reason in BY_A_DUMP)


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_a_guest_that_libvirt_is_at_work_on_is_left_alone(reason: str) -> None:
    assert not resumed(Raw(REASONS[reason], job=libvirt.VIR_DOMAIN_JOB_UNBOUNDED), UUID)


def test_a_guest_that_crashed_is_left_alone() -> None:
    for reason in REASONS.values():
        assert not resumed(Raw(reason, state_number=libvirt.VIR_DOMAIN_CRASHED), UUID)
