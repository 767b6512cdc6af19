"""A guest whose capture died runs on: it is resumed, and while that cannot be done, it is an alarm.

A live dump whose reader dies after QEMU has stopped the guest for the last time, and before the last byte is read, ends as
failed, and leaves the guest as it is: paused, for a reason that nobody knows. libvirtd killed at that moment does the same.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from app.hypervisor import Hypervisor
from app.jobs.alarms import Alarms
from app.jobs.journal import Journal, activity_now
from app.model import Job

_RESUME_FOR_SEC = 60.0
_RETRY_SEC = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Resumes guests, and tells of it."""

    hypervisor: Hypervisor
    journal: Journal
    alarms: Alarms

    async def resume(self, dumped: str = "", job: Job | None = None) -> None:
        """Resume what a dump left standing; of the VM ``dumped`` it is known that a capture of it has died.

        Tried for a minute, for another program may hold a disk image. Raises ``HypervisorError`` or ``StateError``.
        """
        if dumped and not await self.hypervisor.idle(dumped):
            return
        until = asyncio.get_running_loop().time() + _RESUME_FOR_SEC
        while True:
            standing = await self.hypervisor.resume_left_paused(dumped)
            for name in standing.resumed:
                message = f"{name} stood still because of a dump that broke off, and was resumed."
                await self.journal.tell(activity_now("warning", "guest-resumed", message, job=job))
            if not standing.stuck:
                return
            if asyncio.get_running_loop().time() > until:
                break
            await asyncio.sleep(_RETRY_SEC)
        for uuid, message in standing.stuck.items():
            await self.alarms.raise_for(uuid, message)
            await self.journal.tell(activity_now("error", "guest-left-paused", message, job=job))
