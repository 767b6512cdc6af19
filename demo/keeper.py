"""The process under which a private libvirt lives: whatever is started there ends with it, and it ends with its owner.

QEMU and libvirt's helpers detach from libvirtd. This process is their *subreaper*: they become its children instead of
PID 1's, so it reaps them (where PID 1 does not, each QEMU probe costs 30 s) and can end them all without searching.

It has its owner's pipe as standard input. A line there asks for a libvirtd, and is answered with its pid; the *end* of it,
which comes even when the owner is killed by SIGKILL, means: end everything, remove the folder, exit.

Started as root it gives up its rights at once, after the imports: the unprivileged user may not be able to read this file.
"""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_KINDLY_SEC = 5.0
_libc = ctypes.CDLL(None, use_errno=True)


def main(folder: Path, uid: int, gid: int) -> int:
    """Serve the owner until its pipe closes or SIGTERM comes, then leave nothing behind."""
    if os.geteuid() != uid:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    os.umask(0o022)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    woken = _wake_on(signal.SIGCHLD, signal.SIGTERM)
    try:
        _serve(folder, woken)
    finally:
        _end_children()
        shutil.rmtree(folder, ignore_errors=True)
    return 0 if not folder.exists() else 1


def _serve(folder: Path, woken: int) -> None:
    while True:
        ready, _, _ = select.select([0, woken], [], [])
        if woken in ready:
            if signal.SIGTERM in os.read(woken, 4096):
                return
            _reap()
        if 0 in ready:
            if not os.read(0, 4096):
                return
            print(_start_libvirtd(folder), flush=True)


def _start_libvirtd(folder: Path) -> int:
    """libvirtd, which dies with this process (``PR_SET_PDEATHSIG``) even if this one is killed by SIGKILL."""
    with (folder / "libvirtd.log").open("ab") as log:
        libvirtd = subprocess.Popen(
            ["libvirtd"],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=lambda: _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),  # noqa: PLW1509 - this process has one thread
        )
    libvirtd.returncode = 0  # it is reaped below with all the others, not by Popen
    return libvirtd.pid


def _end_children() -> None:
    """SIGTERM, and SIGKILL for what does not heed it. An orphan of one that ended becomes our child, so: until there is none."""
    number, until = signal.SIGTERM, time.monotonic() + _KINDLY_SEC
    told: set[int] = set()
    while _reap():
        if number == signal.SIGTERM and time.monotonic() > until:
            number, told = signal.SIGKILL, set()
        for pid in _children() - told:
            os.kill(pid, number)
            told.add(pid)
        time.sleep(0.01)


def _reap() -> bool:
    """Take note of every child that ended. Whether there are others."""
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        return False
    return True


def _children() -> set[int]:
    me, found = str(os.getpid()), set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # "pid (name) state parent …"; the name may hold anything, a bracket too
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if parent == me and state != "Z":
            found.add(int(stat.parent.name))
    return found


def _wake_on(*numbers: signal.Signals) -> int:
    """A descriptor from which the numbers of the signals that came can be read."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    for number in numbers:
        signal.signal(number, lambda *_: None)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # Ctrl-C is the owner's to hear
    return reader


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
