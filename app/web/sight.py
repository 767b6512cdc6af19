"""What one caller may see and ask for: the one way from a route to what the service knows of VMs.

Everything here is limited to the caller's scope, so a route cannot forget it; a test sees to it that no route goes another way.
What is out of the scope is answered in every way as if it were not there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

from aiohttp import web

from app.errors import HypervisorError
from app.model import Activity, DayStats, DumpRecord, Job, Sighting, Stats, Trigger, VmStats, Wish
from app.records.index import Page
from app.records.search import Filters, Order, Position
from app.web import keys, messages
from app.web.discretion import hypervisor_within, job_within, line_within, no_history, refusal_within, trigger_within
from app.web.feeds import Feed


@dataclass(frozen=True, slots=True)
class Health:
    """How what the service needs is, as the feed tells it."""

    hypervisor: messages.Hypervisor
    history: messages.History


class Sight:
    """The service as one caller sees it."""

    def __init__(self, request: web.Request) -> None:
        self._app = request.app
        self._identity = request[keys.IDENTITY]
        self.scope = self._identity.scope

    def vms(self) -> tuple[Sighting, ...]:
        """The inventory as it was last seen."""
        return self._app[keys.INVENTORY].sightings(self.scope)

    # --- jobs

    def jobs(self) -> tuple[Job, ...]:
        """Newest first."""
        jobs = self._app[keys.POOL].jobs(self.scope)
        return jobs if self.scope.whole else tuple(job_within(self.scope, job) for job in jobs)

    async def job(self, job_id: str) -> Job | None:
        """One job, however old."""
        found = await self._app[keys.POOL].job(job_id, self.scope)
        return job_within(self.scope, found) if found is not None else None

    def status(self) -> Trigger | None:
        """The last trigger."""
        last = self._app[keys.POOL].status(self.scope)
        return trigger_within(self.scope, last) if last is not None else None

    async def trigger(self, vm_ids: Sequence[str] | None, *, all: bool, wish: Wish, idempotency_key: str | None) -> Trigger:
        """Schedule dumps, in the caller's name."""
        mine = replace(wish, operator=self._identity.name)
        pool = self._app[keys.POOL]
        try:
            return await pool.trigger(vm_ids, all=all, wish=mine, idempotency_key=idempotency_key, scope=self.scope)
        except HypervisorError as error:
            raise refusal_within(self.scope, self._app[keys.HYPERVISOR].status, error) from None

    async def cancel(self, job_id: str) -> Job | None:
        """Ask a job to stop, in the caller's name."""
        found = await self._app[keys.POOL].cancel(job_id, self._identity.name, self.scope)
        return job_within(self.scope, found) if found is not None else None

    # --- records

    async def page(
        self, filters: Filters, *, limit: int, order: Order = "desc", offset: int = 0, after: Position | None = None
    ) -> Page:
        """Some of the records that match."""
        return await self._app[keys.INDEX].page(self._within(filters), limit=limit, order=order, offset=offset, after=after)

    def chunks(self, filters: Filters, order: Order) -> AsyncIterator[str]:
        """All of them, as JSON arrays, some hundred at a time."""
        return self._app[keys.INDEX].chunks(self._within(filters), order)

    async def record(self, dump_id: str) -> DumpRecord | None:
        """The whole manifest of one dump."""
        return await self._app[keys.INDEX].get(dump_id, self.scope)

    async def stats(self) -> Stats:
        """Totals over all records."""
        return await self._app[keys.INDEX].stats(self.scope)

    async def stats_by_vm(self, since: str | None, until: str | None) -> tuple[VmStats, ...]:
        """Totals of each VM in a range."""
        return await self._app[keys.INDEX].stats_by_vm(since, until, self.scope)

    async def stats_by_day(self, since: str | None, until: str | None) -> tuple[DayStats, ...]:
        """Totals of each day in a range."""
        return await self._app[keys.INDEX].stats_by_day(since, until, self.scope)

    async def activity(self, limit: int) -> tuple[Activity, ...]:
        """What happened last, newest first."""
        lines = await self._app[keys.JOURNAL].activity(limit, self.scope)
        return tuple(line_within(self.scope, line) for line in lines)

    async def feed(self) -> Feed:
        """What is told as it happens."""
        return await self._app[keys.FEEDS].of(self.scope)

    def health(self) -> Health:
        """What a page that is not live shows of it."""
        hypervisor = hypervisor_within(self.scope, self._app[keys.HYPERVISOR].status)
        history = self._app[keys.HISTORY]() if self.scope.whole else no_history()
        return Health(messages.Hypervisor.of(hypervisor), messages.History.of(history))

    def _within(self, filters: Filters) -> Filters:
        return replace(filters, scope=self.scope)
