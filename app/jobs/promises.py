"""What a capture that died owes: that libvirt waits for nobody, the maximum downtime that the domain had, that its guest runs on,
and that nothing of it stays in ``DUMP_DIR``, or a whole dump."""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from app.config import Settings
from app.downtime import broken_promises
from app.errors import HypervisorError, StateError
from app.evidence import finish_partials
from app.fifo import rendezvous
from app.jobs.journal import Journal, activity_now
from app.jobs.leftovers import drop_fifos
from app.jobs.standing import Watch
from app.model import Link

log = structlog.get_logger()

_LOOK_EVERY_SEC = 10.0


async def keep_all_promises(settings: Settings, watch: Watch, *, every_sec: float = _LOOK_EVERY_SEC) -> None:
    """Look again and again, for a capture by hand may die while libvirt answers all the time: until cancelled.

    FIFOs are dropped whether it answers or not: it may be one of them that it waits for.
    """
    while True:
        await asyncio.sleep(every_sec)
        try:
            died = await drop_dead_fifos(settings, watch.journal)
            if watch.hypervisor.status.state is Link.CONNECTED:
                died |= await keep_promises(settings, watch)
                await watch.pay()
            if died:
                await finish_seals(settings, watch.journal)
        except (HypervisorError, StateError, OSError) as error:
            log.error("guest_not_looked_after", message=str(error))


async def drop_dead_fifos(settings: Settings, journal: Journal) -> bool:
    """Drop the FIFO of every dead capture, and tell; whether there was one. Raises ``StateError``, ``OSError``."""
    dropped = await asyncio.to_thread(drop_fifos, settings.libvirt_uri, settings.dump_dir)
    for folder in dropped:
        await journal.tell(activity_now("warning", "fifo-dropped", f"The FIFO of a dead capture was dropped: {folder}."))
    return bool(dropped)


async def finish_seals(settings: Settings, journal: Journal) -> tuple[tuple[Path, str], ...]:
    """Finish the seals of dead captures or remove their partial files, and tell; what is left as it is, and why. Raises
    ``StateError``, ``OSError`` if ``DUMP_DIR`` cannot be read."""
    left = await asyncio.to_thread(finish_partials, settings.dump_dir)
    for dump in left.finished:
        await journal.tell(activity_now("warning", "seal-finished", f"A seal that was cut short was finished: {dump}."))
    for partial in left.removed:
        await journal.tell(activity_now("warning", "partial-removed", f"A partial file of a dead capture was removed: {partial}."))
    return left.kept


async def keep_promises(settings: Settings, watch: Watch) -> bool:
    """Put back what can be put back now; the notes of the rest stay for the next time libvirt answers. Whether there were any.

    A note says that its guest ran when it was written, and that nobody has seen since that it goes on: that falls due
    (``Watch.pay``). Raises ``StateError``.
    """
    where = rendezvous(settings.libvirt_uri, settings.dump_dir)
    owed = await asyncio.to_thread(broken_promises, where)
    found = bool(owed)
    try:
        while owed:
            before, kept = owed[0].before, False
            try:
                if await watch.hypervisor.idle(before.uuid):  # or the call would wait for whoever works on it
                    if await watch.hypervisor.set_downtime(before):
                        await watch.alarms.debts.owe(before.uuid)
                        watch.alarms.debts.fall_due(before.uuid)
                        log.info("downtime_put_back", uuid=before.uuid, downtime_ms=before.downtime_ms)
                    kept = True
            except HypervisorError as error:
                log.warning("downtime_not_put_back", uuid=before.uuid, code=error.code, message=str(error))
            if kept:
                owed.pop(0).kept()
            else:
                owed.pop(0).broken()
    finally:
        for rest in owed:
            rest.broken()
    return found
