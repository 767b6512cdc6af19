"""A domain's maximum downtime, put back for a live capture that died before it could."""

from __future__ import annotations

import asyncio

import structlog

from app.config import Settings
from app.downtime import broken_promises
from app.errors import HypervisorError
from app.fifo import rendezvous
from app.hypervisor import Hypervisor

log = structlog.get_logger()


async def keep_promises(settings: Settings, hypervisor: Hypervisor) -> None:
    """Put back what can be put back now; the notes of the rest stay for the next time libvirt answers."""
    where = rendezvous(settings.libvirt_uri, settings.dump_dir)
    for path, before in await asyncio.to_thread(broken_promises, where):
        try:
            await hypervisor.set_downtime(before.uuid, before.downtime_ms)
        except HypervisorError as error:
            log.warning("downtime_not_put_back", uuid=before.uuid, code=error.code, message=str(error))
        else:
            log.info("downtime_put_back", uuid=before.uuid, downtime_ms=before.downtime_ms)
            await asyncio.to_thread(path.unlink, missing_ok=True)
