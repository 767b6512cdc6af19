"""The life of a FIFO. Its writer is whoever libvirtd is: a thread that opens and writes as libvirtd does."""

from __future__ import annotations

import os
import stat
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from app.fifo import FOLDER_PREFIX, Fifo, Rendezvous, drop_abandoned_fifos, drop_fifo, make_fifo, rendezvous
from tests.root import needs_root

SCRIPT_HOLDS = """
import sys, fcntl, os
lock = os.open(sys.argv[1], os.O_RDONLY)
fcntl.flock(lock, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def made(folder: Path, name: str = "0199") -> Fifo:
    return make_fifo(Rendezvous(folder, None), name)


class Writer(threading.Thread):
    """Opens as libvirtd does (``O_CREAT``, ``O_TRUNC``, blocking), then writes without end; keeps what went wrong."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.path = path
        self.error: OSError | None = None
        self.opened = threading.Event()
        self.start()

    def run(self) -> None:
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            self.opened.set()
            try:
                while True:
                    os.write(descriptor, bytes(65536))
            finally:
                os.close(descriptor)
        except OSError as error:
            self.error = error

    def blocks(self) -> None:
        """Wait until it stands in ``open()``, which is ``openat``, on x86-64 the system call 257."""
        syscall = Path(f"/proc/self/task/{self.native_id}/syscall")
        until(lambda: syscall.read_text().startswith("257 "))


def until(holds: Callable[[], bool]) -> None:
    for _ in range(2000):
        if holds():
            return
        threading.Event().wait(0.005)
    raise AssertionError("it never came to that")


def test_a_fifo_is_its_users_alone_in_a_folder_of_its_own(tmp_path: Path) -> None:
    fifo = made(tmp_path)
    try:
        assert fifo.folder == tmp_path / f"{FOLDER_PREFIX}0199"
        assert stat.S_ISFIFO(fifo.path.stat().st_mode)
        assert stat.S_IMODE(fifo.path.stat().st_mode) == 0o600
        assert stat.S_IMODE(fifo.folder.stat().st_mode) == 0o700
        with pytest.raises(FileExistsError):
            made(tmp_path)
        assert fifo.path.exists()
    finally:
        fifo.drop(settled=True)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_gives_no_fifo(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        made(tmp_path / "none")


# --- dropping


def test_an_open_that_waits_gets_through_and_its_write_is_refused(tmp_path: Path) -> None:
    fifo = made(tmp_path)
    writer = Writer(fifo.path)
    writer.blocks()
    fifo.drop()
    writer.join(10)
    assert writer.opened.is_set()
    assert isinstance(writer.error, BrokenPipeError)
    assert list(tmp_path.iterdir()) == []


def test_an_open_that_is_still_to_come_fails_and_makes_no_file(tmp_path: Path) -> None:
    fifo = made(tmp_path)
    fifo.drop()
    writer = Writer(fifo.path)
    writer.join(10)
    assert isinstance(writer.error, FileNotFoundError)
    assert list(tmp_path.iterdir()) == []


def test_a_write_under_way_is_refused_when_its_reader_drops_the_fifo(tmp_path: Path) -> None:
    fifo = made(tmp_path)
    reader = os.open(fifo.path, os.O_RDONLY | os.O_NONBLOCK)
    writer = Writer(fifo.path)
    assert writer.opened.wait(10)
    os.close(reader)
    fifo.drop(settled=True)
    writer.join(10)
    assert isinstance(writer.error, BrokenPipeError)


def test_a_regular_file_in_its_place_goes(tmp_path: Path) -> None:
    fifo = made(tmp_path)
    fifo.path.unlink()
    fifo.path.write_bytes(b"made by a libvirtd that came too late")
    fifo.drop()
    assert list(tmp_path.iterdir()) == []


def test_a_link_in_its_place_goes_and_what_it_points_at_stays(tmp_path: Path) -> None:
    evidence = tmp_path / "evidence"
    evidence.write_bytes(b"mine")
    fifo = made(tmp_path)
    fifo.path.unlink()
    fifo.path.symlink_to(evidence)
    fifo.drop()
    assert [path.name for path in tmp_path.iterdir()] == ["evidence"]
    assert evidence.read_bytes() == b"mine"


def test_dropping_what_is_gone_is_harmless(tmp_path: Path) -> None:
    fifo = made(tmp_path)
    fifo.drop(settled=True)
    drop_fifo(fifo.folder)
    drop_fifo(tmp_path / "never-there", settled=True)
    assert list(tmp_path.iterdir()) == []


def test_the_lock_is_let_go(tmp_path: Path) -> None:
    fifo = made(tmp_path)
    fifo.drop(settled=True)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fifo.lock)


# --- whose capture is dead


def test_only_the_fifo_of_a_dead_capture_is_dropped(tmp_path: Path) -> None:
    where = Rendezvous(tmp_path, None)
    living, dead = made(tmp_path, "living"), made(tmp_path, "dead")
    os.close(dead.lock)  # as the end of its process would
    assert drop_abandoned_fifos(where) == [dead.folder]
    assert [path.name for path in tmp_path.iterdir()] == [living.folder.name]
    living.drop(settled=True)
    assert drop_abandoned_fifos(where) == []


def test_a_killed_process_abandons_its_fifo_and_a_living_one_does_not(tmp_path: Path) -> None:
    where, folder = Rendezvous(tmp_path, None), tmp_path / f"{FOLDER_PREFIX}other"
    folder.mkdir()
    with subprocess.Popen(
        ["python3", "-c", SCRIPT_HOLDS, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert drop_abandoned_fifos(where) == []
        assert folder.exists()
        holder.kill()
        holder.wait()
        assert drop_abandoned_fifos(where) == [folder]
        assert not folder.exists()


def test_a_fifo_is_made_while_others_look_for_abandoned_ones(tmp_path: Path) -> None:
    where, tidied = Rendezvous(tmp_path, None), threading.Event()

    def tidy() -> None:
        while not tidied.is_set():
            drop_abandoned_fifos(where)

    tidier = threading.Thread(target=tidy)
    tidier.start()
    try:
        for number in range(300):
            fifo = make_fifo(where, str(number))
            assert stat.S_ISFIFO(fifo.path.stat().st_mode)
            fifo.drop(settled=True)
    finally:
        tidied.set()
        tidier.join()
    assert list(tmp_path.iterdir()) == []


def test_nothing_else_at_the_rendezvous_is_taken_for_a_fifo(tmp_path: Path) -> None:
    (tmp_path / "101_1.mem.gz").touch()
    (tmp_path / f"{FOLDER_PREFIX}file").touch()
    (tmp_path / f"{FOLDER_PREFIX}link").symlink_to(tmp_path)
    assert drop_abandoned_fifos(Rendezvous(tmp_path, None)) == []
    assert len(list(tmp_path.iterdir())) == 3
    assert drop_abandoned_fifos(Rendezvous(tmp_path / "none", None)) == []


# --- where it stands


@pytest.mark.parametrize(
    "uri", ["qemu:///system", "test:///default", "qemu:///session?socket=/nowhere/at/all", "qemu+ssh://h/system"]
)
def test_a_fifo_stands_in_the_folder_of_the_dumps(tmp_path: Path, uri: str) -> None:
    assert rendezvous(uri, tmp_path) == Rendezvous(tmp_path, None)


def test_a_libvirtd_of_the_same_user_reaches_the_folder_of_the_dumps(tmp_path: Path) -> None:
    socket = tmp_path / "libvirt-sock"
    socket.touch()
    assert rendezvous(f"qemu:///session?socket={socket}", tmp_path / "dumps") == Rendezvous(tmp_path / "dumps", None)


@needs_root
def test_for_a_libvirtd_of_another_user_it_stands_beside_that_ones_socket(tmp_path: Path) -> None:
    socket = tmp_path / "libvirt-sock"
    socket.touch()
    os.chown(socket, 65534, -1)
    found = rendezvous(f"qemu:///session?socket={socket}&x=1", tmp_path / "dumps")
    assert found == Rendezvous(tmp_path, 65534)
    fifo = make_fifo(found, "x")
    assert (fifo.path.stat().st_uid, fifo.folder.stat().st_uid) == (65534, 65534)
    fifo.drop(settled=True)
