"""The only place where the parts are wired: what lives on the event loop, in which order it starts, and in which it stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import structlog
from aiohttp import web

from app.access.started import started_with
from app.access.trail import AuditTrail
from app.changes import Changes
from app.errors import HypervisorError, StateError
from app.foundation import Foundation
from app.hypervisor import Hypervisor
from app.jobs.alarms import Alarms
from app.jobs.arrivals import Arrivals
from app.jobs.dumpdir import make_dump_dir
from app.jobs.dumproom import DumpRoom
from app.jobs.inventory import Inventory
from app.jobs.journal import Journal, activity_now
from app.jobs.pool import Pool
from app.jobs.promises import keep_all_promises, keep_promises
from app.jobs.reconcile import reconcile
from app.jobs.recorder import Recorder
from app.jobs.standing import Watch
from app.model import Activity, ActivityKind, HistoryState, HistoryStatus, Link
from app.records.index import RecordIndex
from app.records.search import Filters
from app.records.shared import SharedHistory, history_at
from app.state import State
from app.waiting import happens
from app.web import keys
from app.web.feeds import Feed, Feeds, Stores
from app.web.view import NEWEST_ACTIVITY, NEWEST_RECORDS, View

log = structlog.get_logger()

_FIRST_TRY_SEC = 5.0


class Parts:
    """What lives on the event loop."""

    def __init__(self, foundation: Foundation) -> None:
        self.settings = foundation.settings
        self.state = foundation.state
        self.access = foundation.access
        self.audit = AuditTrail(foundation.state)
        self.changes = Changes()
        self.view = View(self.changes)
        self.room = DumpRoom(self.settings.dump_dir, self.changes)
        self.index = RecordIndex(foundation.state)
        self.journal = Journal(foundation.state, lambda line: self.changes.publish("activity", line))
        self.alarms = Alarms(foundation.state, self.journal, self._alarms_changed)
        self.hypervisor = Hypervisor(
            self.settings.libvirt_uri, domains_changed=self._domains_changed, status_changed=self._hypervisor_changed
        )
        self.inventory = Inventory(self.hypervisor, self.index, self.alarms, self.changes)
        self.history_client = history_at(self.settings)
        self.recorder = Recorder(
            foundation.state, self.index, self.inventory, self.journal, self.changes, queue=self.history_client is not None
        )
        self.history = self._shared_history(foundation.state)
        self.pool = Pool(self.settings, self.hypervisor, self.journal, self.recorder, self.alarms, self.changes)
        self.feeds = Feeds(
            Feed(self.changes, self.view),
            Stores(
                changes=self.changes,
                hypervisor=self.hypervisor,
                inventory=self.inventory,
                pool=self.pool,
                index=self.index,
                journal=self.journal,
            ),
        )
        self._started_at = datetime.now(UTC)
        self._tasks: set[asyncio.Task[Any]] = set()

    def put_into(self, app: web.Application) -> None:
        """For the routes."""
        app[keys.AUDIT] = self.audit
        app[keys.CHANGES] = self.changes
        app[keys.HISTORY] = self.history_status
        app[keys.HYPERVISOR] = self.hypervisor
        app[keys.INDEX] = self.index
        app[keys.STATE] = self.state
        app[keys.INVENTORY] = self.inventory
        app[keys.JOURNAL] = self.journal
        app[keys.POOL] = self.pool
        app[keys.FEEDS] = self.feeds

    async def run(self, _app: web.Application) -> AsyncIterator[None]:
        """Reconcile, read the stores, then start what moves; stop it in the opposite order."""
        await self.audit.open()
        await self.audit.write_or_log(started_with(self.settings))
        if (unusable := make_dump_dir(self.settings.dump_dir)) is not None:
            await self._tell(unusable)
        names = await reconcile(self.settings, self.journal, self.state, self.index)
        for store in (self.inventory, self.alarms, self.recorder, self.pool):
            await store.open()
        await self._begin_view()
        await self.room.look()
        self.changes.publish("hypervisor", self.hypervisor.status)
        if self.history is not None:
            await self.history.open()
        self.changes.publish("history", self.history_status())
        moving = [
            self._go(self.audit.watch()),
            self._go(self.recorder.watch()),
            self._go(self.room.watch()),
            self._go(self.access.presence.watch()),
            self._go(self.hypervisor.follow(self._connected)),
            self._go(keep_all_promises(self.settings, self._watch())),
            self._go(Arrivals(self.settings.dump_dir, names, self.recorder, self.journal).watch()),
        ]
        if self.history is not None:
            moving.append(self._go(self.history.run()))
        await happens(self.hypervisor.tried, _FIRST_TRY_SEC)  # so that who asks first finds the inventory; it starts without, too
        yield
        await self.pool.close()
        await self.feeds.close()
        for task in moving:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.audit.close()
        if self.history_client is not None:
            await self.history_client.close()

    async def _begin_view(self) -> None:
        self.view.begin(
            jobs=self.pool.jobs(),
            records=(await self.index.page(Filters(), limit=NEWEST_RECORDS)).records,
            stats=await self.index.stats(),
            activity=await self.journal.activity(NEWEST_ACTIVITY),
        )

    def _go(self, work: Any) -> asyncio.Task[Any]:
        """A task that is waited for at the end, and whose failure does not go unheard."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._gone)
        return task

    def _gone(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task_failed", task=task.get_name(), exc_info=error)

    # --- what is told of the hypervisor

    def _domains_changed(self) -> None:
        self.inventory.publish()
        self._go(self._look_at_alarms())

    def _alarms_changed(self) -> None:
        self.inventory.publish()

    async def _look_at_alarms(self) -> None:
        try:
            await self.alarms.look(self.hypervisor.domains())
        except StateError as error:
            log.error("alarm_not_kept", code=error.code, message=str(error))

    def _hypervisor_changed(self) -> None:
        status = self.hypervisor.status
        self.changes.publish("hypervisor", status)
        if status.state is Link.CONNECTED:
            line = activity_now("info", "hypervisor-connected", f"Connected to libvirt on {status.name}.")
        else:
            line = activity_now("error", f"hypervisor-{status.state}", status.message or "libvirt cannot be reached.")
        self._go(self._tell(line))

    # --- what is told of the shared history

    def _shared_history(self, state: State) -> SharedHistory | None:
        if self.history_client is None:
            return None

        async def tell(kind: ActivityKind, code: str, message: str) -> None:
            await self._tell(activity_now(kind, code, message))

        history = SharedHistory(
            self.history_client,
            state,
            f"{self.settings.influx_url}, database {self.settings.influx_db}",
            take_in=self.recorder.take_in,
            changed=lambda status: self.changes.publish("history", status),
            tell=tell,
        )
        self.recorder.queued = history.queued
        return history

    def history_status(self) -> HistoryStatus:
        """How the shared history is, or that there is none."""
        return self.history.status if self.history is not None else HistoryStatus(state=HistoryState.OFF, since=self._started_at)

    async def _tell(self, line: Activity) -> None:
        try:
            await self.journal.tell(line)
        except StateError as error:
            log.error("activity_not_kept", code=error.code, message=str(error))

    def _watch(self) -> Watch:
        return Watch(hypervisor=self.hypervisor, journal=self.journal, alarms=self.alarms)

    def _connected(self) -> None:
        self._go(self._free_guests())

    async def _free_guests(self) -> None:
        """A libvirtd or a service that was killed in mid-dump leaves its guest standing."""
        watch = self._watch()
        try:
            await keep_promises(self.settings, watch)
            await watch.resume()
            await watch.pay()
        except HypervisorError as error:
            await self._tell(activity_now("error", "guest-left-paused", f"Whether a guest stands still could not be seen: {error}"))
        except StateError as error:
            log.error("activity_not_kept", code=error.code, message=str(error))
