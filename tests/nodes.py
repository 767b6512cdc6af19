"""Hypervisors for tests of everything but memory: files for libvirt's test driver, which makes its domains from them.

Each connection to ``test:///…file`` reads the file anew and has domains of its own. Running ones get the libvirt IDs
1, 2, 3 … in the order of the file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

RUNNING, PAUSED, SHUTOFF = 1, 3, 5  # virDomainState

_COMES_SEC = 20.0

_NODE = """<node>
  <cpu><mhz>2000</mhz><model>i986</model><active>4</active><nodes>1</nodes><sockets>1</sockets><cores>4</cores>
    <threads>1</threads><mutexes>0</mutexes></cpu>
  <memory>8192000</memory>
{domains}
</node>
"""
_DOMAIN = """<domain type="test" xmlns:test="http://libvirt.org/schemas/domain/test/1.0">
  <name>{name}</name><uuid>{uuid}</uuid><memory unit="MiB">{memory_mib}</memory><vcpu>{vcpus}</vcpu><os><type>hvm</type></os>
  {metadata}<test:runstate>{state}</test:runstate>
</domain>"""
_METADATA = '<metadata><one:vm xmlns:one="http://opennebula.org/xmlns/libvirt/1.0">{members}</one:vm></metadata>'


@dataclass(frozen=True, slots=True, kw_only=True)
class Vm:
    """A domain of the test driver. ``opennebula`` is the VM id in its metadata, ``group`` its group there."""

    name: str
    uuid: str
    state: int = RUNNING
    opennebula: str | None = None
    group: str | None = None
    memory_mib: int = 64
    vcpus: int = 1

    def xml(self) -> str:
        """As libvirt reads it."""
        members = "".join(
            f"<one:{tag}>{text}</one:{tag}>" for tag, text in (("vmid", self.opennebula), ("gname", self.group)) if text
        )
        metadata = _METADATA.format(members=members) if members else ""
        return _DOMAIN.format(
            name=self.name, uuid=self.uuid, memory_mib=self.memory_mib, vcpus=self.vcpus, metadata=metadata, state=self.state
        )


def numbered_uuid(number: int) -> str:
    """``00000007-0000-4000-8000-000000000007`` for 7."""
    return f"{number:08d}-0000-4000-8000-{number:012d}"


def node_xml(vms: Iterable[Vm]) -> str:
    """A hypervisor with these VMs, as the test driver reads it."""
    return _NODE.format(domains="\n".join(vm.xml() for vm in vms))


def node(file: Path, vms: Iterable[Vm]) -> str:
    """Write ``file``; the URI of a hypervisor with these VMs."""
    file.write_text(node_xml(vms))
    return f"test://{file}"


class Gate:
    """A hypervisor that one connection sees and the next ones wait for, because its file is a FIFO until ``open``.

    So captures can be held between their start and their first look at libvirt for as long as a test wants (libvirt
    itself is waited for no longer than 15 s).
    """

    def __init__(self, file: Path, vms: Iterable[Vm]) -> None:
        os.mkfifo(file)
        self.uri = f"test://{file}"
        self._file = file
        self._xml = node_xml(vms)
        self._in_background(self._admit)

    def open(self) -> None:
        """Let in who waits, and from then on everybody. Does not wait for it; at most one may be waiting."""
        self._in_background(self._open)

    @contextlib.contextmanager
    def somebody_waits(self) -> Iterator[None]:
        """Wait until somebody connects, and keep them waiting for as long as this lasts."""
        deadline = time.monotonic() + _COMES_SEC
        while True:
            try:
                writer = os.open(self._file, os.O_WRONLY | os.O_NONBLOCK)
                break
            except OSError as error:  # nobody reads yet, which is no event that could be waited for without letting them in
                if error.errno != errno.ENXIO or time.monotonic() > deadline:
                    raise
                threading.Event().wait(0.01)
        try:
            yield
        finally:
            os.close(writer)

    def close(self) -> None:
        """Take the file away; whoever waits on either side of it goes on."""
        both = os.open(self._file, os.O_RDWR | os.O_NONBLOCK)
        self._file.unlink()
        os.close(both)

    def _admit(self) -> None:
        with contextlib.suppress(BrokenPipeError), self._file.open("w") as pipe:
            pipe.write(self._xml)

    def _open(self) -> None:
        plain = self._file.with_suffix(".open")
        plain.write_text(self._xml)
        with contextlib.suppress(BrokenPipeError), self._file.open("w") as pipe:
            plain.replace(self._file)
            pipe.write(self._xml)

    @staticmethod
    def _in_background(work: Callable[[], None]) -> None:
        threading.Thread(target=work, name="gate", daemon=True).start()


@contextlib.contextmanager
def gate(file: Path, vms: Iterable[Vm]) -> Iterator[Gate]:
    """A ``Gate`` at ``file``. The first connection, the service's own, gets through."""
    made = Gate(file, vms)
    try:
        yield made
    finally:
        made.close()
