"""A libvirt client of its own that hears when QEMU stops a guest and lets it go on: the witness for guest pauses.

As a program: ``python listener.py URI DOMAIN`` prints ``ready``, then a line an event, and ends with its standard input.
A process of its own, for libvirt has one event loop a process.
"""

from __future__ import annotations

import contextlib
import select
import subprocess
import sys
from collections.abc import Iterator

import libvirt
import libvirt_qemu

_READY_SEC = 20.0
_ROUNDS = 3  # of the event loop, for events that lie ready


class Listener:
    """Hears one guest."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._line()

    def heard(self) -> list[tuple[str, float]]:
        """Every STOP and RESUME so far, with QEMU's epoch seconds. After this nothing more is heard."""
        output, _ = self._process.communicate(timeout=_READY_SEC)
        events = [line.split() for line in output.splitlines()]
        return [(name, float(at)) for name, at in events]

    def _line(self) -> None:
        assert self._process.stdout is not None
        assert select.select([self._process.stdout], [], [], _READY_SEC)[0], "the listener does not become ready"
        assert self._process.stdout.readline() == "ready\n"


@contextlib.contextmanager
def hearing(uri: str, name: str) -> Iterator[Listener]:
    """A listener to the guest of that name, ready."""
    process = subprocess.Popen([sys.executable, __file__, uri, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Listener(process)
    finally:
        process.kill()
        process.communicate()


def main(uri: str, name: str) -> None:
    """Print events until standard input ends; those that libvirt sent before are still printed."""
    libvirt.virEventRegisterDefaultImpl()
    connection = libvirt.open(uri)
    ended: list[object] = []

    def event(_connection: object, _domain: object, kind: str, seconds: int, micros: int, *_: object) -> None:
        if kind in ("STOP", "RESUME"):
            print(kind, f"{seconds}.{micros:06}", flush=True)

    libvirt_qemu.qemuMonitorEventRegister(connection, connection.lookupByName(name), None, event, None, 0)
    libvirt.virEventAddHandle(0, libvirt.VIR_EVENT_HANDLE_READABLE | libvirt.VIR_EVENT_HANDLE_HANGUP, _note, ended)
    print("ready", flush=True)
    while not ended:
        libvirt.virEventRunDefaultImpl()
    connection.getLibVersion()  # its answer comes behind every event that was sent before
    rounds: list[object] = []
    libvirt.virEventAddTimeout(0, _note, rounds)
    while len(rounds) < _ROUNDS:
        libvirt.virEventRunDefaultImpl()


def _note(*about: object) -> None:
    """Something happened to a descriptor or a timer; what was given to libvirt with it comes last."""
    noted = about[-1]
    assert isinstance(noted, list)
    noted.append(True)


if __name__ == "__main__":
    main(*sys.argv[1:])
