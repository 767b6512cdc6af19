"""How long the guest stood still for a dump.

By QEMU's own STOP and RESUME events where the driver is QEMU, else by libvirt's lifecycle events.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import libvirt
import libvirt_qemu

from app.capture.guest import Guest
from app.capture.patience import Call
from app.model import Way

_LATE_EVENT_SEC = 2.0


@dataclass(frozen=True, slots=True)
class Stops:
    """The stops that a capture caused: when the last began (epoch seconds, or None), and each one's milliseconds."""

    last_at: float | None
    each_ms: tuple[float, ...]


@dataclass(slots=True)
class _Span:
    """One stop, in epoch seconds; ``until`` is None while it lasts."""

    since: float
    until: float | None = None

    def milliseconds(self, now: float) -> float:
        return round(((now if self.until is None else self.until) - self.since) * 1000, 3)


class PauseMeter:
    """Hears when the guest stops and goes on, while a ``with`` block lasts.

    A paused dump's own stop is the first one. A live dump's is the last one before QEMU says that the migration is completed:
    one before that is somebody else's, through QEMU's monitor or by an error of a device, and one after that waited for it.
    """

    def __init__(self, guest: Guest) -> None:
        self._changed = threading.Condition()
        self._spans: list[_Span] = []
        self._own: _Span | None = None  # of the dump that was last expected, as far as is known
        self._foreign = 0
        self._expected: Way | None = None
        self._settled = True
        self._standing = False
        self._guest = guest
        self._number = guest.connection.call(self._register)

    @property
    def standing(self) -> bool:
        """Whether the guest stands still at this moment."""
        return self._standing

    def expect(self, way: Way | None) -> None:
        """A dump begins: a stop that comes now may be its own. None: it has ended, and no stop is any more."""
        with self._changed:
            if way is not None:
                self._own, self._foreign = None, 0
            self._expected, self._settled = way, way is None

    def instant(self) -> float | None:
        """When the stop of the dump that has just succeeded began; waits a little for an event that is late."""
        with self._changed:
            self._changed.wait_for(lambda: self._settled, _LATE_EVENT_SEC)
            return None if self._own is None else self._own.since

    @property
    def foreign(self) -> int:
        """How often something else stopped the guest while the last dump was being made."""
        return self._foreign

    def resumed(self) -> bool:
        """Whether the guest went on after the last dump's own stop; waits a little for an event that is late."""
        with self._changed:
            return self._changed.wait_for(lambda: self._own is not None and self._own.until is not None, _LATE_EVENT_SEC)

    def stops(self) -> Stops:
        """The stops of our dumps, after waiting a little for an event that is late; one that lasts is counted up to now."""
        with self._changed:
            self._changed.wait_for(lambda: all(span.until is not None for span in self._spans), _LATE_EVENT_SEC)
            last = self._spans[-1].since if self._spans else None
            return Stops(last, tuple(span.milliseconds(time.time()) for span in self._spans))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Hear no more; libvirt forgets it by itself when the connection ends."""
        Call(self._deregister).ended_within(_LATE_EVENT_SEC)

    def _register(self) -> int:
        connection = self._guest.raw.connect()
        if self._guest.connection.qemu:
            return int(libvirt_qemu.qemuMonitorEventRegister(connection, self._guest.raw, None, self.from_qemu, None, 0))
        kind = libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE
        return int(connection.domainEventRegisterAny(self._guest.raw, kind, self._from_libvirt, None))

    def _deregister(self) -> None:
        connection = self._guest.raw.connect()
        if self._guest.connection.qemu:
            libvirt_qemu.qemuMonitorEventDeregister(connection, self._number)
        else:
            connection.domainEventDeregisterAny(self._number)

    def from_qemu(self, *event: object) -> None:
        """libvirt's words of one event of QEMU's."""
        _, _, name, seconds, micros, details, *_ = event
        if name in ("STOP", "RESUME") and isinstance(seconds, int) and isinstance(micros, int):
            self._heard(name == "STOP", seconds + micros / 1e6)
        elif name == "MIGRATION" and isinstance(details, str) and json.loads(details).get("status") == "completed":
            self._completed()

    def _from_libvirt(self, *event: object) -> None:
        kind = event[2]
        if kind in (libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_RESUMED):
            self._heard(kind == libvirt.VIR_DOMAIN_EVENT_SUSPENDED, time.time())

    def _heard(self, stopped: bool, at: float) -> None:
        """The guest stopped or went on, at ``at`` (epoch seconds)."""
        with self._changed:
            self._standing = stopped
            if stopped and not self._settled:
                self._take(_Span(at))
            elif not stopped and self._spans and self._spans[-1].until is None:
                self._spans[-1].until = at
            self._changed.notify_all()

    def _completed(self) -> None:
        """The migration has all that it needs: of a live dump no further stop is its own."""
        with self._changed:
            self._settled = True
            self._changed.notify_all()

    def _take(self, span: _Span) -> None:
        """A stop that may be the dump's own; what was taken for it before is then somebody else's."""
        if self._own is not None:
            self._spans.pop()
            self._foreign += 1
        self._own = span
        self._spans.append(span)
        self._settled = self._expected != "live"
