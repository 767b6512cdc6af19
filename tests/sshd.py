"""An SSH server of the tests' own, on a loopback port: for guests behind ``qemu+ssh://``.

Keys, configuration and list of known hosts are its own. libvirt and the service are given a wrapper around ``ssh`` (the
URI's ``command``), so that nothing of this user's own SSH plays a part, nor is written to. One logs in as the user that
runs the tests: root, who may give a FIFO to the private libvirt's user; or that user itself.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import select
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from demo import PrivateLibvirt
from tests.conftest import RUN_NAME
from tests.faults.processes import children_of
from tests.service import ROOT

_INSTALLED, _UNPACKED = Path("/usr"), ROOT / "var/tests/openssh/usr"
_PARTS = {"SshdSessionPath": "sshd-session", "SshdAuthPath": "sshd-auth"}  # of a newer OpenSSH, which looks for them in /usr
_RUN = Path("/run/sshd")  # where sshd, as root, locks itself up
_START_SEC = 20.0
_TRIES = 5


class PrivateSshd:
    """A server that runs. ``known_hosts`` is what its clients go by."""

    def __init__(self, folder: Path) -> None:
        """Make its files."""
        self.folder = folder
        self.port = 0
        self.key = self._new_key("key")
        self.foreign_key = self._new_key("foreign")
        self.known_hosts = folder / "known_hosts"
        self.client = folder / "ssh"
        self._host_key = self._new_key("host")
        self._process: subprocess.Popen[bytes] | None = None
        shutil.copyfile(self.key.with_suffix(".pub"), folder / "authorized_keys")
        self.client.write_text(
            f'#!/bin/sh\nexec ssh -F none -oUserKnownHostsFile={self.known_hosts} -oGlobalKnownHostsFile=none "$@"\n'
        )
        self.client.chmod(0o755)

    def uri(self, lab: PrivateLibvirt, **parameters: str) -> str:
        """The lab's libvirtd through this server. ``parameters`` come on top of the URI's others."""
        query = {"socket": f"{lab.folder}/run/libvirt/libvirt-sock", "keyfile": str(self.key), "command": str(self.client)}
        return f"qemu+ssh://{getpass.getuser()}@127.0.0.1:{self.port}/session?{urlencode(query | parameters, safe='/')}"

    @property
    def pid(self) -> int:
        """The process that listens; each connection's is a child of it."""
        assert self._process is not None
        return self._process.pid

    def far_processes(self) -> dict[int, str]:
        """What connections run over there, or left there: pid and command line."""
        mark = re.compile(rb"(?:^|\0)SSH_CONNECTION=[^\0]* %d\0" % self.port)
        found = {pid: " ".join(words) for pid, words in children_of(self.pid).items()}
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it ended meanwhile, or is not ours to read
                if mark.search((process / "environ").read_bytes()):
                    found[int(process.name)] = (process / "cmdline").read_text().replace("\0", " ")
        return found

    def start(self) -> None:
        """Listen on a free port, known by its key."""
        for _ in range(_TRIES):  # somebody else may take the port in between
            self.port = _free_port()
            if self._listens():
                public = self._host_key.with_suffix(".pub").read_text()
                self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {public}")
                return
        raise AssertionError(f"sshd does not start: {(self.folder / 'log').read_text()}")

    def stop(self) -> None:
        """End it. Connections end by themselves: there should be none."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def _listens(self) -> bool:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(_tree() / "sbin/sshd"), "-D", "-e", "-f", self._configuration()],
                env={"PATH": "/usr/bin:/bin", RUN_NAME: os.environ[RUN_NAME]},
                stdin=subprocess.DEVNULL,
                stderr=log,
            )
        deadline = time.monotonic() + _START_SEC
        ended = os.pidfd_open(self._process.pid)
        try:
            while time.monotonic() < deadline and not select.select([ended], [], [], 0.02)[0]:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1.0) as connection:
                    return connection.recv(4) == b"SSH-"
        finally:
            os.close(ended)
        self.stop()
        return False

    def _configuration(self) -> str:
        file = self.folder / "sshd_config"
        parts = {option: _tree() / "lib/openssh" / name for option, name in _PARTS.items()}
        file.write_text(
            "".join(f"{option} {path}\n" for option, path in parts.items() if path.exists())
            + f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self._host_key}\nPidFile none\n"
            f"AuthorizedKeysFile {self.folder}/authorized_keys\nStrictModes no\nPermitRootLogin prohibit-password\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nUseDNS no\nMaxStartups 100\n"
        )
        return str(file)

    def _new_key(self, name: str) -> Path:
        key = self.folder / name
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(key)], check=True)
        return key


@pytest.fixture(scope="module")
def sshd() -> Iterator[PrivateSshd]:
    """A server for the tests of one module."""
    with running_sshd() as started:
        yield started


@contextlib.contextmanager
def running_sshd() -> Iterator[PrivateSshd]:
    """A server, until the end of the block."""
    if os.geteuid() == 0:
        _RUN.mkdir(mode=0o755, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="memdump-sshd-", dir="/tmp") as name:
        server = PrivateSshd(Path(name))
        server.start()
        try:
            yield server
        finally:
            server.stop()


def far_folders(lab: PrivateLibvirt) -> list[Path]:
    """Folders of FIFOs on the "other" host: beside the socket, or where this user's temporary files are."""
    return [path for folder in (lab.folder / "run/libvirt", Path(tempfile.gettempdir())) for path in folder.glob(".memdump-*")]


def _tree() -> Path:
    """Where OpenSSH's server is."""
    for tree in (_INSTALLED, _UNPACKED):
        if (tree / "sbin/sshd").exists():
            return tree
    raise AssertionError("There is no sshd. `setup/setup.sh dev` fetches one.")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
