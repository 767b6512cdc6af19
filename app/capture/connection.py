"""The connection to libvirt of one capture process, whose calls end however libvirtd behaves.

With ``guest.py``, ``pausemeter.py`` and ``source.py`` the only files in here that import libvirt. Every call runs on a thread
of its own (``patience.Call``), for libvirtd may hang.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable
from typing import TypeVar

import libvirt

from app import __version__
from app.capture.patience import Call, Patience
from app.errors import (
    CaptureFailed,
    DomainBusy,
    HypervisorNotResponding,
    HypervisorUnreachable,
    MemoryDumpsError,
)
from app.model import Domain, Versions, find_domain
from app.virt import described, refusal, start_events, text_of

T = TypeVar("T")

_KEEPALIVE_SEC, _KEEPALIVE_MISSES = 5, 3
_CONNECT_SEC = 15.0


def connect(uri: str, patience: Patience) -> Connection:
    """A connection to libvirt. Raises ``HypervisorUnreachable``, ``HypervisorNotResponding`` or ``HypervisorRefused``."""
    start_events()
    opening = Call(lambda: libvirt.open(uri))
    if not patience.wait((opening.done,), _CONNECT_SEC):
        raise HypervisorNotResponding(uri)
    try:
        return Connection(uri, patience.result(opening), patience)
    except libvirt.libvirtError as error:
        raise refusal(uri, error) or HypervisorUnreachable(uri, text_of(error)) from error


class Connection:
    """One connection to libvirt, for one capture process."""

    def __init__(self, uri: str, conn: libvirt.virConnect, patience: Patience) -> None:
        """Use ``connect``."""
        self.uri = uri
        self.patience = patience
        self._conn = conn
        with contextlib.suppress(libvirt.libvirtError):  # drivers inside this process have nothing to keep alive
            conn.setKeepAlive(_KEEPALIVE_SEC, _KEEPALIVE_MISSES)
        self.hostname, self.qemu, self.versions = self.call(self._describe)

    def close(self) -> None:
        """Close, unless libvirt hangs; then the process's end closes it."""
        Call(self._conn.close).ended_within(1.0)

    def call(self, function: Callable[[], T]) -> T:
        """``function`` on a thread of its own; libvirt's errors become ours, cancel and deadline are heeded."""
        return self.result(Call(function))

    def result(self, call: Call[T]) -> T:
        """What a call returned; libvirt's errors become ours, cancel and deadline are heeded."""
        try:
            while not self.patience.wait((call.done,), 1.0):
                if self._has_forgotten(call):
                    raise HypervisorNotResponding(self.uri)
            return call.future.result()
        except libvirt.libvirtError as error:
            raise self._translated(error) from error

    def ended_within(self, call: Call[T], at_most_sec: float) -> bool:
        """Whether the call ended, after waiting for at most that long, whatever became of the capture."""
        until = time.monotonic() + at_most_sec
        while not call.ended_within(1.0):
            if time.monotonic() > until or self._has_forgotten(call):
                return False
        return True

    def _has_forgotten(self, call: Call[T]) -> bool:
        """Whether the connection broke and the call will never end: libvirt's keepalive ends only the first of several."""
        return not self._conn.isAlive() and not call.ended_within(1.0)

    def _translated(self, error: libvirt.libvirtError) -> MemoryDumpsError:
        text = text_of(error)
        if (refused := refusal(self.uri, error)) is not None:
            return refused
        if not self._conn.isAlive():
            return HypervisorNotResponding(self.uri) if "keepalive" in text else HypervisorUnreachable(self.uri, text)
        if error.get_error_code() == libvirt.VIR_ERR_OPERATION_TIMEOUT:
            return DomainBusy("The VM", text)
        return CaptureFailed(f"libvirt reported: {text}.")

    def find(self, wanted: str) -> tuple[libvirt.virDomain, Domain]:
        """The domain that ``wanted`` names, whether it runs or not. Raises ``VmUnknown`` or ``AmbiguousVm``."""
        return self.call(functools.partial(self._find, wanted))

    def active(self) -> list[Domain]:
        """Every domain whose memory can be read, by name."""
        found = self.call(lambda: [self._domain(raw) for raw in self._conn.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)])
        return sorted(found, key=lambda domain: domain.name)

    def _describe(self) -> tuple[str, bool, Versions]:
        qemu = self._conn.getType() == "QEMU"
        return (
            self._conn.getHostname(),
            qemu,
            Versions(
                memory_dumps=__version__,
                libvirt=_dotted(self._conn.getLibVersion()),
                qemu=_dotted(self._conn.getVersion()) if qemu else "",
            ),
        )

    def _find(self, wanted: str) -> tuple[libvirt.virDomain, Domain]:
        with contextlib.suppress(libvirt.libvirtError):  # the service always names the uuid: no need to list the rest
            raw = self._conn.lookupByUUIDString(wanted)
            return raw, self._domain(raw)
        known = {(domain := self._domain(raw)).uuid: (raw, domain) for raw in self._conn.listAllDomains()}
        return known[find_domain(wanted, [domain for _, domain in known.values()]).uuid]

    def _domain(self, raw: libvirt.virDomain) -> Domain:
        return described(raw, self._conn.getHostname())


def _dotted(number: int) -> str:
    """libvirt's way to write a version: major × 1,000,000 + minor × 1,000 + release."""
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
