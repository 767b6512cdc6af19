"""A guest whose capture died runs on: it is resumed, and while that cannot be done, it is an alarm.

A live dump whose reader dies after QEMU has stopped the guest for the last time, and before the last byte is read, ends as
failed, and leaves the guest as it is: paused, for a reason that nobody knows. libvirtd killed at that moment does the same.
So a guest is resumed for a reason that may have others only if it ran when a capture of it began, and nobody has seen
since that it goes on (``debts``); without that only for the reason *dump*. One that somebody suspended stays suspended.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import structlog

from app.errors import HypervisorError
from app.hypervisor import Hypervisor
from app.jobs.alarms import Alarms
from app.jobs.journal import Journal, activity_now
from app.model import Job

log = structlog.get_logger()

_RESUME_FOR_SEC = 60.0
_AT_ONCE_SEC = 3.0
_RETRY_SEC = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Resumes guests, and tells of it."""

    hypervisor: Hypervisor
    journal: Journal
    alarms: Alarms

    async def resume(self, dumped: str = "") -> bool:
        """Resume what a dump left standing; of the VM ``dumped`` it is known that it ran before its capture, which is over.

        Tried for a minute, for another program may hold a disk image; then it is an alarm. False if libvirt is at work on
        that VM, which has to be looked at again. Raises ``HypervisorError`` or ``StateError``.
        """
        stuck = await self._try(dumped, None, _RESUME_FOR_SEC)
        for uuid, message in (stuck or {}).items():
            await self.alarms.raise_for(uuid, message)
            await self.journal.tell(activity_now("error", "guest-left-paused", message))
        if dumped and stuck is not None and dumped not in stuck:
            await self.alarms.end(dumped, self.hypervisor.domains())
        return stuck is not None

    async def see_it_run_on(self, dumped: str, job: Job) -> None:
        """The same at the end of a job, which it does not keep for long: what cannot be done at once falls due (``pay``)."""
        try:
            stuck = await self._try(dumped, job, _AT_ONCE_SEC)
        except HypervisorError as error:
            log.warning("guest_state_unknown", job_id=job.job_id, code=error.code, message=str(error))
            stuck = None
            if dumped:
                await self.alarms.raise_for(dumped, f"Whether {job.dom} runs on after its dump is not known: {error}")
        for uuid in {dumped} - {""} if stuck is None else stuck:
            await self.alarms.debts.owe(uuid)
            self.alarms.debts.fall_due(uuid)

    async def pay(self) -> None:
        """Look after every guest that it is due to. Raises ``HypervisorError`` or ``StateError``."""
        debts = self.alarms.debts
        for uuid in filter(debts.take_up, debts.due()):
            settled = False
            try:
                settled = await self.resume(uuid)
            finally:
                if not settled:
                    debts.fall_due(uuid)
            if settled:
                await debts.settle(uuid)

    async def _try(self, dumped: str, job: Job | None, for_sec: float) -> dict[str, str] | None:
        """Those that cannot be resumed, with the reason; None while libvirt is at work on the VM ``dumped``."""
        if dumped and not await self.hypervisor.idle(dumped):
            return None
        until = asyncio.get_running_loop().time() + for_sec
        while True:
            standing = await self.hypervisor.resume_left_paused(dumped)
            for name in standing.resumed:
                message = f"{name} stood still because of a dump that broke off, and was resumed."
                await self.journal.tell(activity_now("warning", "guest-resumed", message, job=job))
            if not standing.stuck or asyncio.get_running_loop().time() > until:
                return standing.stuck
            await asyncio.sleep(_RETRY_SEC)
