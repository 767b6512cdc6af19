"""What is told as it happens, to each who listens within their scope.

Whoever may know of all hears the service's own changes. For every other scope that somebody follows there is a feed of its own:
its changes are those of them that the scope covers, numbered by themselves, its snapshot is made of those alone. So neither a
cursor, nor how often something is told, nor how far one may fall behind says anything of others; and a cursor of one feed is
unknown to every other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from app import model
from app.changes import Advance, Change, Changes, Topic
from app.errors import StateError, TooManyFeeds
from app.hypervisor import Hypervisor
from app.jobs.inventory import Inventory
from app.jobs.journal import Journal, may_see
from app.jobs.pool import Pool
from app.records.index import RecordIndex
from app.records.search import Filters
from app.scope import Scope
from app.web.discretion import hypervisor_within, job_within, line_within, no_history
from app.web.view import NEWEST_ACTIVITY, NEWEST_RECORDS, View

log = structlog.get_logger()

MOST_FEEDS = 64
"""That are kept though nobody follows them: whoever comes back with a cursor finds its place."""

MOST_FOLLOWED = 256
"""Scopes with limits that may be followed at once: each of their feeds looks at everything that happens."""


@dataclass(frozen=True, slots=True)
class Feed:
    """Changes, and what they have made of the state."""

    changes: Changes
    view: View


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """Where the state is read, and what tells of its changes."""

    changes: Changes
    hypervisor: Hypervisor
    inventory: Inventory
    pool: Pool
    index: RecordIndex
    journal: Journal


class Feeds:
    """The feed of each scope. ``whole`` is that of who may know of all."""

    def __init__(self, whole: Feed, stores: Stores) -> None:
        self._whole = whole
        self._stores = stores
        self._narrowed: dict[Scope, _Narrowed] = {}  # the one that was asked for longest ago first
        self._opening = asyncio.Lock()

    async def of(self, scope: Scope) -> Feed:
        """To be followed before anything else is waited for, or it may be gone. Raises ``TooManyFeeds``, and ``StateError`` if what
        it begins with cannot be read."""
        if scope.whole:
            return self._whole
        async with self._opening:
            if sum(feed.changes.followed for other, feed in self._narrowed.items() if other != scope) >= MOST_FOLLOWED:
                raise TooManyFeeds(MOST_FOLLOWED)
            narrowed = self._narrowed.pop(scope, None) or await self._open(scope)
            self._narrowed[scope] = narrowed
        for other in [one for one, feed in self._narrowed.items() if one != scope and not feed.changes.followed]:
            if len(self._narrowed) <= MOST_FEEDS:
                break
            self._narrowed.pop(other).close()
        return Feed(narrowed.changes, narrowed.view)

    async def _open(self, scope: Scope) -> _Narrowed:
        narrowed = _Narrowed(scope, self._stores)
        try:
            await narrowed.begin()
        except BaseException:
            narrowed.close()
            raise
        return narrowed

    async def close(self) -> None:
        """Tell nobody any more."""
        for narrowed in self._narrowed.values():
            narrowed.close()


class _Narrowed:
    """The service's changes that a scope covers, as changes of their own."""

    def __init__(self, scope: Scope, stores: Stores) -> None:
        self.changes = Changes()
        self.view = View(self.changes)
        self._scope = scope
        self._stores = stores
        self._told: dict[Topic, object] = {}
        self._running: set[str] = set()
        self._totals: asyncio.Task[None] | None = None
        self._totals_due = False
        self._unlisten: Callable[[], None] = lambda: None

    async def begin(self) -> None:
        """Hear everything from now on, then read what was before."""
        scope, stores = self._scope, self._stores
        self.view.hear()
        self._unlisten = stores.changes.listen(self._hear)
        jobs = [job_within(scope, job) for job in stores.pool.jobs(scope)]
        self._running = {job.job_id for job in jobs if not job.phase.final}
        self._tell_if_new("hypervisor", self._hypervisor())
        self._tell_if_new("history", no_history())
        self._tell_if_new("vms", stores.inventory.sightings(scope))
        self.view.begin(
            jobs=jobs,
            records=(await stores.index.page(Filters(scope=scope), limit=NEWEST_RECORDS)).records,
            activity=[line_within(scope, line) for line in await stores.journal.activity(NEWEST_ACTIVITY, scope)],
            stats=self._told.setdefault("stats", await stores.index.stats(scope)),  # type: ignore[arg-type]
        )

    def close(self) -> None:
        """Hear nothing any more."""
        self._unlisten()
        if self._totals is not None:
            self._totals.cancel()

    def _hear(self, news: Change | Advance) -> None:
        if isinstance(news, Advance):
            if news.job_id in self._running:
                self.changes.advance(news.job_id, news.phase, news.progress)
            return
        match news.subject:
            case tuple():
                self._tell_if_new("vms", self._stores.inventory.sightings(self._scope))
            case model.HypervisorStatus():
                self._tell_if_new("hypervisor", self._hypervisor())
            case model.Job() as job if self._scope.covers(*job.subject):
                self._tell_job(job_within(self._scope, job))
            case model.DumpRecord() as record if self._scope.covers(*record.subject):
                self.changes.publish("record", record)
            case model.Activity() as line if may_see(self._scope, line):
                self.changes.publish("activity", line_within(self._scope, line))
            case model.Stats():
                self._count_again()
            case _:  # others', or figures that tell of them: what waits for the shared history, how much room is left
                pass

    def _tell_job(self, job: model.Job) -> None:
        self.changes.publish("job", job)
        if job.phase.final:
            self._running.discard(job.job_id)
            self.changes.ended(job.job_id)
        else:
            self._running.add(job.job_id)

    def _tell_if_new(self, topic: Topic, subject: object) -> None:
        """That something was told to others must not be seen."""
        if self._told.get(topic) != subject:
            self._told[topic] = subject
            self.changes.publish(topic, subject)

    def _hypervisor(self) -> model.HypervisorStatus:
        return hypervisor_within(self._scope, self._stores.hypervisor.status)

    def _count_again(self) -> None:
        """The totals, which the index has to be asked for; once more if more came meanwhile."""
        self._totals_due = True
        if self._totals is None or self._totals.done():
            self._totals = asyncio.create_task(self._count(), name="totals of a scope")

    async def _count(self) -> None:
        while self._totals_due:
            self._totals_due = False
            try:
                self._tell_if_new("stats", await self._stores.index.stats(self._scope))
            except StateError as error:
                log.error("totals_not_told", code=error.code, message=str(error))
