"""The longest stop that a live capture allows its guest's final migration pass, and what the capture owes the guest for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from app.capture.guest import Guest
from app.capture.patience import Call
from app.downtime import Downtime, Promise, promise, take_over
from app.errors import DumpDirUnusable
from app.fifo import Rendezvous

_RESTORE_SEC = 35.0  # libvirt waits 30 s for the domain's job lock


class Budget:
    """The maximum downtime of one run of a domain, changed for a capture. Made by ``budget``.

    Before it is changed for the first time, what it was is written into a note (``app.downtime``).
    """

    def __init__(self, guest: Guest, where: Rendezvous, capture_id: str) -> None:
        self._guest = guest
        self._where = where
        self._capture_id = capture_id
        self._owed: Promise | None = None
        self._is_back = True

    def set_ms(self, downtime_ms: int) -> None:
        """From now on the final stop of a migration takes at most so long.

        Raises ``DumpDirUnusable`` if the note cannot be written, ``DomainBusy`` if the guest is being migrated in earnest since
        it was looked up: that is not to be hastened, or kept from its end.
        """
        if self._owed is None:
            self._owed = self._promised()
        self._is_back = False
        self._guest.connection.call(lambda: self._guest.raw.migrateSetMaxDowntime(downtime_ms, 0))

    def put_back(self) -> None:
        """It is what it was. The capture's own patience may be over; the domain is to be as it was all the same."""
        if self._owed is None or self._is_back:
            return
        before_ms = self._owed.before.downtime_ms
        restoring = Call(lambda: self._guest.raw.migrateSetMaxDowntime(before_ms, 0))
        self._is_back = self._guest.connection.ended_within(restoring, _RESTORE_SEC) and (
            restoring.future.exception() is None or self._guest.gone()
        )

    def settle(self, *, runs_on: bool) -> None:
        """The note goes if nothing is owed any more. Else the service finds it, which looks after the guest from then on."""
        if self._owed is None:
            return
        if self._is_back and runs_on:
            self._owed.kept()
        else:
            self._owed.broken()

    def _promised(self) -> Promise:
        self._guest.refuse_busy()
        connection, raw = self._guest.connection, self._guest.raw
        uuid, number = self._guest.domain.uuid, self._guest.domain.id
        try:
            owed = connection.call(lambda: take_over(self._where, uuid, number))  # the value of now may be a dead capture's
            if owed is None:
                now_ms = int(connection.call(lambda: raw.migrateGetMaxDowntime(0)))
                owed = promise(self._where, self._capture_id, Downtime(uuid, number, now_ms))
        except OSError as error:
            text = f"Nothing can be written to {self._where.directory}: {error.strerror}. The guest was not touched."
            raise DumpDirUnusable(text) from error
        return owed


@contextmanager
def budget(guest: Guest, where: Rendezvous, capture_id: str, runs_on: Callable[[], bool]) -> Iterator[Budget]:
    """For one capture. ``runs_on`` is asked at its end whether the guest was seen to go on, or to be gone."""
    made = Budget(guest, where, capture_id)
    try:
        yield made
    finally:
        made.settle(runs_on=runs_on())
