"""What everybody who uses the demo guests relies on: they hold what they say, and they end."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import libvirt
import pytest

from app.capture.elfcore import read_header
from demo import STANDARD_GUESTS, Guest, PrivateLibvirt
from tests.lab import COLD, OFF, WEB, processes_of, running_lab
from tests.thorough import thorough

ROOT = Path(__file__).resolve().parents[2]
ENDS_SEC = 20.0
START_SEC = 120.0

OWNER = """
import signal
from demo import PrivateLibvirt
from tests.lab import COLD
lab = PrivateLibvirt.start()
lab.add(COLD)
print(lab.folder, flush=True)
signal.pause()
"""

COMMAND = """
import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
print(os.environ["LIBVIRT_URI"], flush=True)
signal.sigwait({signal.SIGTERM})
raise SystemExit(7)
"""


def test_guests_are_in_the_states_that_they_were_asked_for(lab: PrivateLibvirt) -> None:
    with lab.connection() as connection:
        states = {domain.name(): domain.state()[0] for domain in connection.listAllDomains()}
    assert states["vm-web-01"] == states["vm-db-01"] == libvirt.VIR_DOMAIN_RUNNING
    assert states[COLD.name] == libvirt.VIR_DOMAIN_PAUSED
    assert states[OFF.name] == libvirt.VIR_DOMAIN_SHUTOFF


@pytest.mark.parametrize("guest", [WEB, COLD], ids=lambda guest: guest.name)
def test_marker_is_at_its_physical_address_in_a_dump_by_libvirt_alone(lab: PrivateLibvirt, guest: Guest) -> None:
    dump = lab.folder / "guests" / f"{guest.name}.core"
    try:
        with lab.connection() as connection:
            connection.lookupByName(guest.name).coreDumpWithFormat(
                str(dump), libvirt.VIR_DOMAIN_CORE_DUMP_FORMAT_RAW, libvirt.VIR_DUMP_MEMORY_ONLY
            )
        image = dump.read_bytes()
    finally:
        dump.unlink(missing_ok=True)
    at = read_header(image).offset_of(guest.marker_address)
    assert image[at : at + len(guest.marker)] == guest.marker
    assert image.count(guest.marker) == 1


@thorough
def test_ready_guest_holds_the_text_that_it_was_asked_to_hold(lab: PrivateLibvirt) -> None:
    dump = lab.folder / "guests" / "text.core"
    try:
        with lab.connection() as connection:
            connection.lookupByName(WEB.name).coreDumpWithFormat(
                str(dump), libvirt.VIR_DOMAIN_CORE_DUMP_FORMAT_RAW, libvirt.VIR_DUMP_MEMORY_ONLY
            )
        image = dump.read_bytes()
    finally:
        dump.unlink(missing_ok=True)
    line = b"vm-web-01: the quick brown fox jumps over the lazy dog, and this guest remembers it.\n"
    assert image.count(line) * len(line) > 0.98 * (WEB.text_mib << 20)


def test_guests_run_on_when_libvirtd_is_killed_and_started_again(own_lab: PrivateLibvirt) -> None:
    own_lab.add(COLD)
    qemu, libvirtd = own_lab.qemu_pid(COLD.name), own_lab.libvirtd_pid
    own_lab.kill_libvirtd()
    with pytest.raises(libvirt.libvirtError):
        libvirt.open(own_lab.uri)
    own_lab.restart_libvirtd()
    with own_lab.connection() as connection:
        assert connection.lookupByName(COLD.name).isActive()
    assert own_lab.qemu_pid(COLD.name) == qemu
    assert own_lab.libvirtd_pid != libvirtd


@pytest.mark.parametrize("stopped", [False, True], ids=["running", "stopped"])
def test_everything_ends_whether_it_runs_or_is_stopped(stopped: bool) -> None:
    with running_lab() as lab:
        lab.add(COLD)
        pids = {lab.keeper_pid, lab.libvirtd_pid, lab.qemu_pid(COLD.name)}
        assert set(processes_of(lab.folder)) == pids
        if stopped:
            os.kill(lab.libvirtd_pid, signal.SIGSTOP)
            os.kill(lab.qemu_pid(COLD.name), signal.SIGSTOP)
    assert not processes_of(lab.folder)
    assert not lab.folder.exists()


@thorough
def test_everything_ends_when_the_owner_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER], cwd=ROOT, stdout=subprocess.PIPE, text=True) as owner:
        folder = Path(_line(owner))
        pids = processes_of(folder)
        assert len(pids) == 3
        owner.kill()
    _wait_for_their_end(list(pids))
    assert not processes_of(folder)
    assert not folder.exists()


@thorough
def test_command_runs_over_the_standard_guests_and_its_exit_code_is_the_demos() -> None:
    command = [sys.executable, "-m", "demo", "--", sys.executable, "-c", COMMAND]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as demo:
        uri = _line(demo)
        connection = libvirt.open(uri)
        running = {domain.name(): bool(domain.isActive()) for domain in connection.listAllDomains()}
        connection.close()
        demo.send_signal(signal.SIGTERM)
        code = demo.wait(ENDS_SEC)
    assert running == {guest.name: guest.starts for guest in STANDARD_GUESTS}
    assert code == 7
    folder = Path(uri.partition("socket=")[2]).parents[2]
    assert not processes_of(folder)
    assert not folder.exists()


@thorough
def test_demo_ends_with_its_standard_input() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "demo"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as demo:
        folder = Path(_line(demo).partition("socket=")[2]).parents[2]
        assert demo.stdin is not None
        demo.stdin.close()
        assert demo.wait(ENDS_SEC) == 0
    assert not processes_of(folder)


def _line(process: subprocess.Popen[str]) -> str:
    """The first line that the process prints, within bounds."""
    assert process.stdout is not None
    if not select.select([process.stdout], [], [], START_SEC)[0]:
        process.kill()
        raise AssertionError(f"nothing was printed within {START_SEC:g} s")
    return process.stdout.readline().strip()


def _wait_for_their_end(pids: list[int]) -> None:
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            assert select.select([descriptor], [], [], ENDS_SEC)[0], f"{pid} has not ended"
        finally:
            os.close(descriptor)
