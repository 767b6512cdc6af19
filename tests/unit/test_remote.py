"""How a host behind ``qemu+ssh://`` is reached, and what the script over there does. A shell on this host stands in for ssh."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from app.capture.guest import Guest
from app.capture.opening import make_opening
from app.capture.patience import Patience
from app.capture.remote import RemoteFifo
from app.capture.sshhost import SshHost, elsewhere, ssh_host
from app.errors import CaptureFailed, CaptureTimedOut, HypervisorRefused, HypervisorUnreachable
from app.fifo import Rendezvous, rendezvous
from tests.faults.processes import eventually

URI = "qemu+ssh://far/system"


@pytest.fixture(autouse=True)
def far_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the far end has its temporary files; nothing may stay there."""
    folder = tmp_path / "far"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    yield folder
    eventually(lambda: not list(folder.iterdir()), "the far end has tidied up")


def stand_in(tmp_path: Path, script: str) -> str:
    """A program that is started as ssh would be; its last argument is what is to be run over there."""
    program = tmp_path / "ssh"
    program.write_text(f"#!/bin/sh\nfor last; do :; done\n{script}\n")
    program.chmod(0o755)
    return str(program)


def made(tmp_path: Path, script: str = 'exec sh -c "$last"', far_socket: str = "", patience: Patience | None = None) -> RemoteFifo:
    host = SshHost(host="far", program=stand_in(tmp_path, script), socket=far_socket)
    return RemoteFifo.make(URI, host, "4711", patience or Patience())


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("qemu+ssh://kvm-07/system", ["--", "kvm-07", "true"]),
        ("qemu+ssh:///system", ["--", "localhost", "true"]),
        ("qemu+ssh://Kvm-07:2222/system", ["-p", "2222", "--", "Kvm-07", "true"]),
        ("qemu+ssh://a%40b@[2001:db8::1]:22/session", ["-p", "22", "-l", "a@b", "--", "2001:db8::1", "true"]),
        ("qemu+ssh://-oProxyCommand=x/system", ["--", "-oProxyCommand=x", "true"]),
        ("qemu+ssh://h/system?keyfile=/a+b%20c&no_verify=1", ["-oStrictHostKeyChecking=no", "-i", "/a+b c", "--", "h", "true"]),
        ("qemu+libssh2://h/system?known_hosts=/k&no_verify=0", ["-oUserKnownHostsFile=/k", "--", "h", "true"]),
    ],
)
def test_ssh_is_called_as_libvirt_would_call_it(uri: str, words: list[str]) -> None:
    host = ssh_host(uri)
    assert host is not None
    command = host.command("true")
    assert command[-len(words) :] == words
    assert (command[0], "-oBatchMode=yes" in command) == ("ssh", True)


@pytest.mark.parametrize("uri", ["qemu:///system", "qemu+tls://kvm-07/system", "qemu:///session?socket=/s", "test:///default"])
def test_ssh_is_not_called_for_other_connections(uri: str) -> None:
    assert ssh_host(uri) is None


@pytest.mark.parametrize(
    ("uri", "host"),
    [
        ("qemu:///system", None),
        ("qemu:///session?socket=/s", None),
        ("qemu+tcp://localhost/system", None),
        ("qemu+tcp://kvm-07:16509/system", "kvm-07"),
        ("qemu://kvm-07/system", "kvm-07"),
        ("test:///default", None),
    ],
)
def test_libvirtd_elsewhere_is_known(uri: str, host: str | None) -> None:
    assert elsewhere(uri) == host


def test_libvirtd_elsewhere_is_not_asked_for_a_dump_that_nobody_can_fetch(tmp_path: Path) -> None:
    libvirts = SimpleNamespace(getURI=lambda: "qemu+tls://kvm-07/system")
    connection = SimpleNamespace(call=lambda function: function())
    guest = cast(Guest, SimpleNamespace(connection=connection, raw=SimpleNamespace(connect=lambda: libvirts)))
    with pytest.raises(CaptureFailed, match=r"kvm-07, and only over SSH"):
        make_opening(guest, Rendezvous(tmp_path, None), "4711")


def test_socket_of_another_host_is_not_looked_for_here(tmp_path: Path) -> None:
    assert rendezvous("qemu+ssh://far/session?socket=/proc/1/stat", tmp_path) == Rendezvous(tmp_path, None)


def _write(writer: int, content: bytes) -> None:
    with open(writer, "wb") as file:
        file.write(content)


@pytest.mark.parametrize(
    "programs", ["", "ln -s /bin/bash bin/sh", "/bin/busybox --install -s bin"], ids=["own", "bash", "busybox"]
)
def test_fifo_has_a_reader_and_brings_every_byte(tmp_path: Path, far_tmp: Path, programs: str) -> None:
    (tmp_path / "bin").mkdir()
    fifo = made(tmp_path, f'cd {tmp_path}; {programs or ":"}; PATH="$PWD/bin:$PATH" exec sh -c "$last"')
    folder = far_tmp / ".memdump-4711"
    assert fifo.path == f"{folder}/pipe"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / "pipe")] == [0o700, 0o600]
    writer = os.open(fifo.path, os.O_WRONLY | os.O_NONBLOCK)  # ENXIO if there were no reader
    os.set_blocking(writer, True)
    memory = b"memory\n" * 100_000  # more than the pipe holds: the writer cannot be done before the far end reads
    writing = threading.Thread(target=_write, args=(writer, memory))
    writing.start()
    os.set_blocking(fifo.reader, True)
    with open(fifo.reader, "rb", closefd=False) as reader:
        assert reader.read() == memory
    writing.join()
    fifo.drop(settled=True)
    assert fifo.trouble() is None


def test_what_a_login_script_says_is_no_memory(tmp_path: Path, far_tmp: Path) -> None:
    fifo = made(tmp_path, 'echo "Welcome!"; printf "\\n no newline: "; exec sh -c "$last"')
    assert fifo.path == f"{far_tmp}/.memdump-4711/pipe"
    fifo.drop(settled=True)


def test_hanging_up_ends_the_stream_of_a_fifo_that_nobody_opened(tmp_path: Path) -> None:
    fifo = made(tmp_path)
    fifo.hang_up()
    os.set_blocking(fifo.reader, True)
    assert os.read(fifo.reader, 1) == b""
    assert fifo.trouble() is None
    fifo.drop(settled=True)


def test_ssh_that_gets_no_connection_is_told_with_its_words(tmp_path: Path) -> None:
    with pytest.raises(HypervisorUnreachable, match="Host key verification failed"):
        made(tmp_path, 'echo "Host key verification failed." >&2; exit 255')


def test_host_without_room_for_a_fifo_is_told_with_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/proc")
    with pytest.raises(HypervisorRefused, match=r"mkdir: .*/proc/\.memdump-4711"):
        made(tmp_path)


def test_host_that_lets_us_in_and_says_nothing_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(CaptureTimedOut):
        made(tmp_path, "cat >&2", patience=Patience(0.3))


def test_fifo_that_is_in_the_way_is_left_alone(tmp_path: Path, far_tmp: Path) -> None:
    folder = far_tmp / ".memdump-4711"
    folder.mkdir()
    with pytest.raises(HypervisorRefused, match="File exists"):
        made(tmp_path)
    folder.rmdir()


def test_libvirtd_of_another_user_takes_no_fifo_of_ours(tmp_path: Path) -> None:
    (tmp_path / "id").write_text("#!/bin/sh\necho 1001\n")
    (tmp_path / "ls").write_text("#!/bin/sh\necho srwx------ 1 1002 1002 0 Nov 24 21:00 /run/user/1002/sock\n")
    for program in (tmp_path / "id", tmp_path / "ls"):
        program.chmod(0o755)
    with pytest.raises(HypervisorRefused, match="/run/user/1002/sock belongs to uid 1002, and this is uid 1001"):
        made(tmp_path, f'PATH="{tmp_path}:$PATH" exec sh -c "$last"', far_socket="/run/user/1002/sock")
