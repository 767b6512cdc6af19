"""How long the guest stood still: as an independent witness saw it; and that it runs on, or stays as its user left it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import libvirt
import pytest

from app.model import from_rfc3339
from demo import Guest, PrivateLibvirt
from tests.contract.speech import FINAL, Api, Message
from tests.lab import COLD, DB, WEB
from tests.qemu.listener import hearing
from tests.qemu.outside import dumped, memdump
from tests.service import Service, running_service
from tests.thorough import thorough

LARGER = Guest(name="vm-larger-01", memory_mib=1024, boots=False)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, lab: PrivateLibvirt) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("service"), LIBVIRT_URI=lab.uri, MEMDUMP_MODE="paused") as started:
        yield started


def test_pause_in_the_manifest_is_what_another_listener_saw(lab: PrivateLibvirt, tmp_path: Path) -> None:
    with hearing(lab.uri, WEB.name) as listener:
        manifest = dumped(lab, tmp_path, WEB)
        (stopped, stopped_at), (resumed, resumed_at) = listener.heard()
    assert (stopped, resumed) == ("STOP", "RESUME")
    pause_ms = (resumed_at - stopped_at) * 1000
    assert manifest["guest_pause_ms"] > 0
    assert manifest["guest_pauses_ms"] == [manifest["guest_pause_ms"]]
    assert manifest["guest_pause_ms"] == pytest.approx(pause_ms, abs=3)
    assert from_rfc3339(manifest["captured_at"]).timestamp() == pytest.approx(stopped_at, abs=0.003)
    assert manifest["warnings"] == []
    assert _state(lab, WEB) == libvirt.VIR_DOMAIN_RUNNING


@thorough
async def test_pause_in_the_record_is_what_another_listener_saw(lab: PrivateLibvirt, service: Service) -> None:
    async with Api.of(service) as api:
        await api.connected()
        with hearing(lab.uri, DB.name) as listener:
            (job,) = await api.dump(DB.name)
            (_, stopped_at), (_, resumed_at) = listener.heard()
        record = await api.get(f"/api/memory-dumps/records/{job['dump_id']}")
    assert job["guest_pause_ms"] == record["guest_pause_ms"] == pytest.approx((resumed_at - stopped_at) * 1000, abs=3)
    assert _state(lab, DB) == libvirt.VIR_DOMAIN_RUNNING


def test_guest_that_its_user_suspended_stays_suspended(own_lab: PrivateLibvirt, tmp_path: Path) -> None:
    own_lab.add(COLD)
    with own_lab.connection() as connection:
        domain = connection.lookupByName(COLD.name)
        domain.resume()
        domain.suspend()
    with hearing(own_lab.uri, COLD.name) as listener:
        manifest = dumped(own_lab, tmp_path, COLD)
        assert listener.heard() == []
    with own_lab.connection() as connection:
        assert connection.lookupByName(COLD.name).state() == [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER]
    assert (manifest["guest_pause_ms"], manifest["guest_pauses_ms"]) == (0, [])
    assert manifest["warnings"] == []


@thorough
async def test_progress_of_a_larger_guest_tells_that_it_stands_still(own_lab: PrivateLibvirt, tmp_path: Path) -> None:
    own_lab.add(LARGER)
    with own_lab.connection() as connection:
        connection.lookupByName(LARGER.name).resume()
    with running_service(tmp_path, LIBVIRT_URI=own_lab.uri, MEMDUMP_MODE="paused") as service:
        async with Api.of(service) as api:
            await api.connected()
            async with api.feed() as feed:
                await feed.next()
                await api.trigger(LARGER.name)
                heard = await feed.until(lambda message: message["type"] == "job" and message["job"]["phase"] in FINAL)
    assert heard[-1]["job"]["phase"] == "completed"
    told = [message for message in heard if message["type"] == "progress"]
    _assert_plausible(told, LARGER)
    assert any(message["guest_paused"] for message in told)
    assert _state(own_lab, LARGER) == libvirt.VIR_DOMAIN_RUNNING


@pytest.mark.parametrize("guest", [WEB, DB], ids=lambda guest: guest.name)
def test_progress_comes_at_most_ten_times_a_second(lab: PrivateLibvirt, tmp_path: Path, guest: Guest) -> None:
    capture = memdump(lab, tmp_path, guest)
    told = [line for line in capture.lines if line["event"] == "progress"]
    _assert_plausible(told, guest)
    # The line that tells of a phase's end is told always: one more a phase.
    phases = [from_rfc3339(line["ts"]).timestamp() for line in capture.lines if line["event"] == "phase"]
    assert len(told) <= (phases[-1] - phases[0]) * 10 + 2


def _assert_plausible(told: list[Message], guest: Guest) -> None:
    assert all(before["bytes_done"] <= after["bytes_done"] for before, after in pairwise(told))
    assert told[-1]["bytes_done"] == told[-1]["bytes_total"] > guest.memory_mib << 20


def _state(lab: PrivateLibvirt, guest: Guest) -> int:
    with lab.connection() as connection:
        return int(connection.lookupByName(guest.name).state()[0])
