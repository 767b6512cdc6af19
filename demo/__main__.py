"""``python -m demo`` runs the demo guests until SIGTERM, SIGINT or the end of its standard input; prints their URI when ready.

``python -m demo -- COMMAND …`` runs COMMAND with ``LIBVIRT_URI`` set to them, and ends them when it ends; the exit code is
the command's. ``python -m demo --fetch`` only fetches the guests' kernel, for the first start to be quick.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence

from demo.guest import STANDARD_GUESTS
from demo.kernel import KernelMissing, kernel
from demo.lab import LabError, PrivateLibvirt

_USAGE = "usage: python -m demo [--fetch | -- COMMAND …]"
_HEARD = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
_PR_SET_PDEATHSIG = 1
_SI_KERNEL = 0x80
_libc = ctypes.CDLL(None)


def main(arguments: Sequence[str]) -> int:
    """Run what ``arguments`` ask for; the exit code."""
    if arguments and arguments[0] not in ("--fetch", "--"):
        print(_USAGE, file=sys.stderr)
        return 2
    try:
        if list(arguments) == ["--fetch"]:
            kernel()
            return 0
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that `with` ends what began
        with PrivateLibvirt.start() as lab:
            for guest in STANDARD_GUESTS:
                lab.add(guest)
            for guest in STANDARD_GUESTS:
                if guest.starts:
                    lab.wait_ready(guest.name)
            return _run(arguments[1:], lab.uri) if arguments[1:] else _serve(lab.uri)
    except (LabError, KernelMissing) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _serve(uri: str) -> int:
    print(uri, flush=True)
    while select.select([0], [], [])[0]:
        if not os.read(0, 4096):
            break
    return 0


def _run(command: Sequence[str], uri: str) -> int:
    """``command`` to its end, with the signals that come here passed on to it. It is told to end if this process is killed."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
    process = subprocess.Popen(
        command,
        env={**os.environ, "LIBVIRT_URI": uri},
        preexec_fn=_become_command,  # noqa: PLW1509 - this process has one thread
    )
    try:
        while (code := process.poll()) is None:
            heard = signal.sigwaitinfo(_HEARD)
            # From the terminal (Ctrl-C) it reached the command already: one signal is a wish, two are a threat.
            if heard.si_signo != signal.SIGCHLD and heard.si_code != _SI_KERNEL:
                process.send_signal(heard.si_signo)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEARD)
    return code if code >= 0 else 128 - code


def _become_command() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEARD)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
