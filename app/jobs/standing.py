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

from app.errors import RUNS_ON, HypervisorError, VmNotResponding
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

    async def resume(self, dumped: str = "", for_sec: float = _RESUME_FOR_SEC) -> bool:
        """Resume what a dump left standing; of the VM ``dumped`` it is known that it ran before its capture, which is over.

        Tried for ``for_sec``, for another program may hold a disk image; the first time that it cannot be done it is an alarm.
        False if that VM has to be looked at again, because it could not be resumed or libvirt is at work on it. Raises
        ``HypervisorError`` or ``StateError``.
        """
        stuck = await self._try(dumped, None, for_sec)
        if not dumped or stuck is None:
            return stuck is not None
        if dumped not in stuck:
            await self.alarms.end(dumped, self.hypervisor.domains())
        return dumped not in stuck

    async def see_it_run_on(self, dumped: str, job: Job) -> str:
        """The same at the end of a job, which it does not keep for long: what cannot be done at once falls due (``pay``).

        What is known then, as a sentence; "" of a guest that is gone, or did not run before.
        """
        known = f"Whether {job.dom} runs on is not known yet: libvirt is still at work on it."
        try:
            stuck = await self._try(dumped, job, _AT_ONCE_SEC)
        except HypervisorError as error:
            log.warning("guest_state_unknown", job_id=job.job_id, code=error.code, message=str(error))
            stuck = None
            known = f"Whether {job.dom} runs on after its dump is not known: {error}"
            if dumped:
                await self.alarms.raise_for(dumped, known)
        for uuid in {dumped} - {""} if stuck is None else stuck:
            await self.alarms.debts.owe(uuid)
            self.alarms.debts.fall_due(uuid)
        if not dumped:
            return ""
        if stuck is None or dumped in stuck:
            return known if stuck is None else stuck[dumped]
        await self.alarms.end(dumped, self.hypervisor.domains())
        return RUNS_ON if any(each.uuid == dumped and each.active for each in self.hypervisor.domains()) else ""

    async def pay(self) -> None:
        """Look after every guest that it is due to, each for a moment; who cannot be helped stays due.

        Raises ``HypervisorError`` or ``StateError``.
        """
        debts = self.alarms.debts
        for uuid in filter(debts.take_up, debts.due()):
            settled = False
            try:
                settled = await self.resume(uuid, _AT_ONCE_SEC)
            except VmNotResponding as error:  # its alarm is on; the others get their turn
                log.warning("guest_state_unknown", uuid=uuid, code=error.code, message=str(error))
            finally:
                if not settled:
                    debts.fall_due(uuid)
            if settled:
                await debts.settle(uuid)

    async def _try(self, dumped: str, job: Job | None, for_sec: float) -> dict[str, str] | None:
        """Those that cannot be resumed, with the reason, each an alarm; None while libvirt is at work on the VM ``dumped``."""
        if dumped and not await self.hypervisor.idle(dumped):
            return None
        until = asyncio.get_running_loop().time() + for_sec
        while True:
            standing = await self.hypervisor.resume_left_paused(dumped)
            for name in standing.resumed:
                message = f"{name} stood still because of a dump that broke off, and was resumed."
                whose = job if job is not None and job.dom == name else None
                about = [domain.subject for domain in self.hypervisor.domains() if domain.name == name]
                await self.journal.tell(activity_now("warning", "guest-resumed", message, job=whose, about=about))
            for uuid, message in standing.stuck.items():
                await self._alarm(uuid, message, job)
            if not standing.stuck or asyncio.get_running_loop().time() > until:
                return standing.stuck
            await asyncio.sleep(_RETRY_SEC)

    async def _alarm(self, uuid: str, message: str, job: Job | None) -> None:
        """Told once: it stays on the page until it is over."""
        if self.alarms.of(uuid) is None:
            await self.alarms.raise_for(uuid, message)
            whose = job if job is not None and job.uuid == uuid else None
            about = [domain.subject for domain in self.hypervisor.domains() if domain.uuid == uuid]
            await self.journal.tell(activity_now("error", "guest-left-paused", message, job=whose, about=about))
