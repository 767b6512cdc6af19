"""One capture of a guest at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from app.capture.alone import alone
from app.errors import DomainBusy
from app.fifo import Rendezvous
from app.model import Domain, DomainState

WEB = Domain(
    uuid="c829a7ce-8254-5ff1-ba7b-29158aa6a543",
    name="vm-web-01",
    id=7,
    vmid="7",
    state=DomainState.RUNNING,
    memory_bytes=1 << 30,
    vcpus=1,
    hypervisor="kvm-07",
)


def test_second_capture_of_a_guest_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    where = Rendezvous(tmp_path, None)
    with alone(where, WEB), pytest.raises(DomainBusy, match="vm-web-01 is busy"), alone(where, WEB):
        pass
    with alone(where, WEB):
        assert list(tmp_path.iterdir()) == []


def test_other_guests_and_guests_of_another_hypervisor_are_captured_beside_it(tmp_path: Path) -> None:
    with (
        alone(Rendezvous(tmp_path / "a", None), WEB),
        alone(Rendezvous(tmp_path / "a", None), replace(WEB, uuid="00000000-0000-4000-8000-000000000002")),
        alone(Rendezvous(tmp_path / "b", None), WEB),
    ):
        pass
