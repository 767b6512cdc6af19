"""The only place where the parts are wired: what is opened, in which order it starts, and in which it stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog
from aiohttp import web

from app import __version__
from app.access import SCHEMA as ACCESS_SCHEMA
from app.access import Access, upgrade
from app.access.keeping import Keeping
from app.access.started import started_with
from app.access.trail import AuditTrail
from app.changes import Changes
from app.config import Settings
from app.errors import ConfigError, HypervisorError, StateError, StateMissing
from app.hypervisor import Hypervisor
from app.jobs.alarms import SCHEMA as ALARMS_SCHEMA
from app.jobs.alarms import Alarms
from app.jobs.arrivals import Arrivals
from app.jobs.dumpdir import make_dump_dir
from app.jobs.dumproom import DumpRoom
from app.jobs.inventory import Inventory
from app.jobs.journal import SCHEMA as JOURNAL_SCHEMA
from app.jobs.journal import Journal, activity_now
from app.jobs.pool import Pool
from app.jobs.promises import keep_all_promises, keep_promises
from app.jobs.reconcile import reconcile
from app.jobs.recorder import Recorder
from app.jobs.standing import Watch
from app.model import Activity, ActivityKind, HistoryState, HistoryStatus, Link
from app.records.index import SCHEMA as INDEX_SCHEMA
from app.records.index import RecordIndex, migrate
from app.records.outbox import SCHEMA as OUTBOX_SCHEMA
from app.records.pull import SCHEMA as PULL_SCHEMA
from app.records.search import Filters
from app.records.shared import SharedHistory, history_at
from app.state import State, StateLock, lock_state
from app.waiting import happens
from app.web import address, bodies, deeds, envelope, errors, guard, keys, live, longrequest, oidcpages, requests, routes, templates
from app.web.assets import Assets
from app.web.feeds import Feed, Feeds, Stores
from app.web.names import OwnNames
from app.web.proxy import Proxies
from app.web.view import NEWEST_ACTIVITY, NEWEST_JOBS, NEWEST_RECORDS, View

log = structlog.get_logger()

_FIRST_TRY_SEC = 5.0

SCHEMAS = (INDEX_SCHEMA, OUTBOX_SCHEMA, PULL_SCHEMA, JOURNAL_SCHEMA, ALARMS_SCHEMA, ACCESS_SCHEMA)


@dataclass(frozen=True, slots=True)
class Foundation:
    """What stands before the event loop turns: the state directory, taken, and its file, open."""

    settings: Settings
    lock: StateLock
    state: State
    access: Access

    def close(self) -> None:
        """Give everything back. Blocks until SQLite has written."""
        self.access.close()
        self.state.close()
        self.lock.close()


def lay_foundation(settings: Settings) -> Foundation:
    """Take the state directory. Raises ``StateError``, above all ``StateInUse``."""
    lock = lock_state(settings.state_dir)
    try:
        state = _open_state(settings)
    except BaseException:
        lock.close()
        raise
    return Foundation(settings, lock, state, Access(state, settings.auth))


def first_lines(foundation: Foundation, url: str) -> Sequence[str]:
    """What the terminal shows at the start, once the service answers at ``url``. The only secrets that are ever shown."""
    settings, lines = foundation.settings, [f"Memory Dumps {__version__} serves at {url}"]
    if settings.auth == "none":
        lines.append("It is open to everybody on this machine (MEMDUMP_AUTH=none).")
    elif settings.auth == "oidc":
        lines.append(f"People log in at {settings.oidc.issuer} (MEMDUMP_AUTH=oidc).")
        lines.append(
            f"If that is away, an administrator, once within ten minutes: {_login_url(url, foundation.access.make_login_code())}"
        )
    elif settings.auth == "proxy":
        lines.append(f"The proxy at {', '.join(map(str, settings.trusted_proxies))} says who is asking (MEMDUMP_AUTH=proxy).")
    else:
        lines.append(f"Log in, once within ten minutes: {_login_url(url, foundation.access.make_login_code())}")
    if (token := foundation.access.first_token()) is not None:
        lines.append(f"API token, shown this once: {token}")
    return (*lines, f"Ready. Dumps go to {settings.dump_dir}; Ctrl-C ends the service.")


def make_login_url(settings: Settings) -> str:
    """A fresh login URL, for the command line; the service may run or not. Raises ``StateError``, ``ConfigError``.

    No state file is made: a code in one that no service reads opens nothing.
    """
    if settings.auth == "proxy":
        raise ConfigError("MEMDUMP_AUTH=proxy: the proxy says who is asking, and a login URL would open nothing.")
    state = open_beside(settings)
    try:
        return _login_url(url_of(settings, settings.port), Access(state, settings.auth).make_login_code())
    finally:
        state.close()


def open_beside(settings: Settings) -> State:
    """The state file for the command line; the service may run or not. Raises ``StateError``, ``StateMissing`` where no service
    ever ran."""
    if not settings.state_file.is_file():
        raise StateMissing(str(settings.state_dir))
    return _open_state(settings)


def _open_state(settings: Settings) -> State:
    state = State.open(settings.state_file, *SCHEMAS, migrate=migrate)
    try:
        state.run_now(upgrade)
    except BaseException:
        state.close()
        raise
    return state


def url_of(settings: Settings, port: int) -> str:
    """The URL that people use: the first of ``MEMDUMP_PUBLIC_URL``, else the address that is listened on."""
    if settings.public_urls:
        return settings.public_urls[0]
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host  # noqa: S104 - compared, not bound
    scheme = "https" if settings.tls else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _login_url(url: str, code: str) -> str:
    return f"{url}/login?code={code}"


def create_app(foundation: Foundation) -> web.Application:
    """The service as an aiohttp application; its parts start and stop with it."""
    app = web.Application(
        middlewares=[
            envelope.log_requests,
            errors.answer_problems,
            deeds.write_down,
            address.utf8_only,
            guard.gate,
            deeds.recognise,
            bodies.read_within(),
        ],
        client_max_size=requests.MAX_BODY_BYTES,
    )
    assets = Assets.read()
    app[keys.SETTINGS] = foundation.settings
    app[keys.OWN_NAMES] = OwnNames.of(foundation.settings.public_urls, tls=foundation.settings.tls)
    app[keys.PROXIES] = Proxies(foundation.settings)
    app[keys.ACCESS] = foundation.access
    if foundation.settings.auth == "oidc":
        from app.web.oidc import Provider  # with what it needs it takes half a second, which others need not wait

        app[oidcpages.PROVIDER] = Provider(foundation.settings.oidc)
    app[keys.KEEPING] = Keeping(foundation.state, foundation.access.passwords)
    app[keys.ASSETS] = assets
    templates.set_up(app, assets, foundation.settings)
    live.set_up(app)
    longrequest.set_up(app)
    routes.add_to(app)
    app.on_response_prepare.append(envelope.add_headers)
    parts = _Parts(foundation)
    parts.put_into(app)
    app.cleanup_ctx.append(parts.run)
    return app


class _Parts:
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
            jobs=self.pool.jobs()[:NEWEST_JOBS],
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
