"""The way to another host breaks: its guest runs on, nothing stays there, and the words say what to do.

In the middle of a dump means: the ssh that brings the memory was stopped, so that the pipes are full and the guest stands.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.capture.patience import Patience
from app.capture.remote import RemoteFifo
from app.capture.sshhost import ssh_host
from app.evidence import finish_partials
from demo import PrivateLibvirt
from tests.contract.speech import Message
from tests.faults.by_hand import ByHand, by_hand
from tests.faults.conftest import IDLE, add_running
from tests.faults.processes import PATIENCE_SEC, Process, children_of, eventually
from tests.faults.scene import Scene, staged
from tests.lab import running_lab
from tests.qemu.outside import memdump
from tests.sshd import PrivateSshd, far_folders
from tests.thorough import thorough

pytestmark = thorough


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory, sshd: PrivateSshd) -> Iterator[Scene]:
    """A guest of this module's own; dumps over SSH are made by hand."""
    with running_lab() as lab:
        add_running(lab, IDLE)
        with staged(tmp_path_factory.mktemp("far"), lab, IDLE) as made:
            yield made


@dataclass(frozen=True)
class Middle:
    """A paused dump over SSH that has got stuck, and the processes that could be harmed."""

    dump: ByHand
    capture: Process
    ssh: Process
    session: Process
    shell: Process

    def failure(self) -> Message:
        """How it ended, as it said itself."""
        failed = self.dump.until("failed")
        assert self.dump.process.wait(PATIENCE_SEC) != 0
        return failed


@contextlib.contextmanager
def in_the_middle(scene: Scene, sshd: PrivateSshd) -> Iterator[Middle]:
    with contextlib.ExitStack() as stack:
        dump = stack.enter_context(by_hand(scene, f"--uri={sshd.uri(scene.lab)}", "--mode=paused"))
        folder = dump.until("fifo")["directory"]
        capture_id = Path(folder).name.removeprefix(".memdump-")

        def opened(pid: int) -> Process:
            process = Process(pid)
            stack.callback(process.close)
            return process

        ssh = opened(_child(dump.process.pid, capture_id))
        ssh.stop()
        session, shell = next(pair for pair in _sessions(sshd) if capture_id in " ".join(children_of(pair[0])[pair[1]]))
        eventually(lambda: scene.virsh("domstate", scene.guest.name) == "paused", "the guest stands still")
        yield Middle(dump, opened(dump.process.pid), ssh, opened(session), opened(shell))


def _child(pid: int, word: str) -> int:
    return next(child for child, words in children_of(pid).items() if word in " ".join(words))


def _sessions(sshd: PrivateSshd) -> Iterator[tuple[int, int]]:
    """What runs for each connection: the sshd that started it, and its pid. As root there is one more sshd in between."""
    waiting = list(children_of(sshd.pid))
    while waiting:
        parent = waiting.pop()
        for child, words in children_of(parent).items():
            if words[0].startswith("sshd"):
                waiting.append(child)
            else:
                yield parent, child


def assert_all_is_well(scene: Scene, sshd: PrivateSshd) -> None:
    """Over there, too."""
    eventually(lambda: not far_folders(scene.lab), "the far end has tidied up")
    eventually(lambda: scene.virsh("domstate", scene.guest.name) == "running", "the guest runs on")
    eventually(lambda: not sshd.far_processes(), "no process is left over there")
    scene.assert_nothing_is_left()


def test_killed_capture_process_leaves_nothing_over_there(far: Scene, sshd: PrivateSshd) -> None:
    with in_the_middle(far, sshd) as middle:
        middle.capture.kill()
        middle.ssh.go_on()
        assert finish_partials(far.service.dump_dir).removed  # as the next start would
        assert_all_is_well(far, sshd)


def test_cancelled_capture_leaves_nothing_over_there(far: Scene, sshd: PrivateSshd) -> None:
    with in_the_middle(far, sshd) as middle:
        middle.ssh.go_on()
        middle.capture.terminate()
        ended = middle.dump.process.wait(PATIENCE_SEC)
        assert ended in (0, 8)  # the dump may have been quicker
        assert_all_is_well(far, sshd)


def test_cancel_does_not_wait_for_a_connection_that_hangs(far: Scene, sshd: PrivateSshd) -> None:
    with in_the_middle(far, sshd) as middle:
        middle.capture.terminate()
        assert middle.failure()["code"] == "cancelled"
        assert middle.ssh.ended(PATIENCE_SEC)
        assert_all_is_well(far, sshd)


def test_killed_ssh_fails_the_dump(far: Scene, sshd: PrivateSshd) -> None:
    with in_the_middle(far, sshd) as middle:
        middle.ssh.kill()
        assert middle.failure()["code"] == "hypervisor-unreachable"
        assert_all_is_well(far, sshd)


def test_session_that_is_killed_over_there_fails_the_dump(far: Scene, sshd: PrivateSshd) -> None:
    with in_the_middle(far, sshd) as middle:
        middle.session.kill()
        middle.ssh.go_on()
        failed = middle.failure()
        assert failed["code"] == "hypervisor-unreachable"
        assert "the ssh that brings the memory broke off" in failed["message"]
        assert_all_is_well(far, sshd)


def test_far_shell_that_is_told_to_end_tidies_up(far: Scene, sshd: PrivateSshd) -> None:
    with in_the_middle(far, sshd) as middle:
        middle.shell.terminate()
        middle.ssh.go_on()
        assert middle.failure()["code"] == "hypervisor-unreachable"
        assert_all_is_well(far, sshd)


def test_guest_runs_on_when_the_connection_is_cut_without_a_word(far: Scene, sshd: PrivateSshd) -> None:
    """The far end hears nothing more from us and drops the FIFO by itself; we learn of it when ssh goes on."""
    with in_the_middle(far, sshd) as middle:
        eventually(lambda: far.virsh("domstate", far.guest.name) == "running", "the guest runs on", 60.0)
        assert not middle.ssh.ended(0)
        assert not far_folders(far.lab)
        middle.ssh.go_on()
        assert middle.failure()["code"] in ("hypervisor-unreachable", "capture-failed")  # the latter if no byte had come yet
        assert_all_is_well(far, sshd)


@pytest.mark.parametrize("opens", ["before", "after"])
def test_nobody_waits_for_the_reader_of_a_fifo_whose_ssh_was_killed(
    far: Scene, sshd: PrivateSshd, tmp_path: Path, opens: str
) -> None:
    """libvirtd would, with every client of its host."""
    uri = sshd.uri(far.lab)
    host = ssh_host(uri)
    assert host is not None
    fifo = RemoteFifo.make(uri, host, tmp_path.name, Patience())
    writer = ["sh", "-c", 'exec cat /dev/zero > "$1"', "writer", fifo.path]
    ssh = Process(_child(os.getpid(), tmp_path.name))
    try:
        started = subprocess.Popen(writer, stderr=subprocess.DEVNULL) if opens == "before" else None
        ssh.kill()
        started = started or subprocess.Popen(writer, stderr=subprocess.DEVNULL)
        assert started.wait(PATIENCE_SEC) != 0
    finally:
        fifo.drop(settled=False)
        ssh.close()
    assert_all_is_well(far, sshd)


def test_refused_key_is_told_with_the_words_of_ssh(far: Scene, sshd: PrivateSshd, tmp_path: Path) -> None:
    failed = _refused(far.lab, tmp_path, sshd.uri(far.lab, keyfile=str(sshd.foreign_key)))
    assert "Permission denied (publickey)" in failed


def test_unknown_host_key_is_told_with_the_words_of_ssh(far: Scene, sshd: PrivateSshd, tmp_path: Path) -> None:
    known = sshd.known_hosts.read_text()
    sshd.known_hosts.write_text("")
    try:
        failed = _refused(far.lab, tmp_path, sshd.uri(far.lab))
    finally:
        sshd.known_hosts.write_text(known)
    assert "Host key verification failed" in failed


def test_host_that_is_not_there_is_told_with_the_words_of_ssh(far: Scene, tmp_path: Path) -> None:
    failed = _refused(far.lab, tmp_path, "qemu+ssh://127.0.0.1:1/system")
    assert "Connection refused" in failed


def _refused(lab: PrivateLibvirt, folder: Path, uri: str) -> str:
    """What ``memdump.py`` says when there is no connection."""
    said = memdump(lab, folder, IDLE, f"--uri={uri}")
    (failed,) = said.lines
    assert (said.code, failed["code"]) == (4, "hypervisor-unreachable")
    assert not far_folders(lab)
    message: str = failed["message"]
    return message
