"""What a capture that died owes: that libvirt waits for nobody, the maximum downtime that the domain had, and that its guest
runs on."""

from __future__ import annotations

import asyncio

import structlog

from app.config import Settings
from app.downtime import broken_promises
from app.errors import HypervisorError, StateError
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
            await drop_dead_fifos(settings, watch.journal)
            if watch.hypervisor.status.state is Link.CONNECTED:
                await keep_promises(settings, watch)
                await watch.pay()
        except (HypervisorError, StateError, OSError) as error:
            log.error("guest_not_looked_after", message=str(error))


async def drop_dead_fifos(settings: Settings, journal: Journal) -> None:
    """Drop the FIFO of every dead capture, and tell. Raises ``StateError``, ``OSError``."""
    for folder in await asyncio.to_thread(drop_fifos, settings.libvirt_uri, settings.dump_dir):
        await journal.tell(activity_now("warning", "fifo-dropped", f"The FIFO of a dead capture was dropped: {folder}."))


async def keep_promises(settings: Settings, watch: Watch) -> None:
    """Put back what can be put back now; the notes of the rest stay for the next time libvirt answers.

    A note says that its guest ran when it was written. Raises ``StateError``.
    """
    where = rendezvous(settings.libvirt_uri, settings.dump_dir)
    owed = await asyncio.to_thread(broken_promises, where)
    try:
        while owed:
            before, kept = owed[0].before, False
            try:
                if await watch.hypervisor.idle(before.uuid):  # or the call would wait for whoever works on it
                    if await watch.hypervisor.set_downtime(before):
                        await watch.resume(before.uuid)
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
