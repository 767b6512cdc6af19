"""The shared history beside the index: what we seal is delivered to it, what others wrote is pulled from it.

Two loops that never wait for each other, and nobody waits for them: with InfluxDB down, slow or refusing, dumps are sealed
and recorded as ever, and what is not delivered waits in the outbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Protocol

import structlog

from app.config import Settings
from app.errors import (
    ConfigError,
    HistoryError,
    HistoryFailed,
    HistoryTypeConflict,
    HistoryUnreachable,
    MemoryDumpsError,
    StateError,
)
from app.model import ActivityKind, HistoryState, HistoryStatus
from app.records.deliver import Client, Delivery, deliver_batch
from app.records.outbox import Counts, Outbox
from app.records.pull import Progress
from app.records.puller import Puller, TakeIn
from app.state import State
from app.waiting import happens

log = structlog.get_logger()

HOLDER = "service"
RECENT_EVERY_SEC = 10.0
PROBE_EVERY_SEC = 2.0
LONGEST_DELAY_SEC = 30.0
_FIRST_DELAY_SEC = 0.5
_LOOK_EVERY_SEC = 10.0
_SAY_EVERY_SEC = 0.5
_BREATH_SEC = 0.02

Tell = Callable[[ActivityKind, str, str], Awaitable[None]]


class ClosableClient(Client, Protocol):
    """A client with an end."""

    async def close(self) -> None:
        """Give its threads and connections back."""
        ...


def history_at(settings: Settings) -> ClosableClient | None:
    """The shared history that ``settings`` name; without ``INFLUX_URL`` none, and nothing of its libraries is imported:
    they take 100 MB of memory and a second. Raises ``ConfigError`` for what can never work."""
    if settings.influx_url is None:
        return None
    from app.records.influx import History

    try:
        return History(settings.influx_url, settings.influx_db, settings.influx_token)
    except HistoryError as error:
        raise ConfigError(str(error)) from None


class SharedHistory:
    """The two loops, and their state in words. ``name`` is where it is: URL and database."""

    def __init__(
        self, client: Client, state: State, name: str, *, take_in: TakeIn, changed: Callable[[HistoryStatus], None], tell: Tell
    ) -> None:
        self._client = client
        self._name = name
        self._outbox = Outbox(state, HOLDER)
        self._puller = Puller(client, state, Progress(state, name), take_in)
        self._changed = changed
        self._tell = tell
        self._write_error: HistoryError | None = None
        self._read_error: HistoryError | None = None
        self._since = datetime.now(UTC)
        self._state = HistoryState.CONNECTING
        self._counts = Counts(0, 0)
        self._news, self._queued, self._back, self._probe = asyncio.Event(), asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def open(self) -> None:
        """Take in what an earlier process left. Only one service has the state directory, so what it had taken is free."""
        await self._outbox.give_back()
        await self._puller.open()
        self._counts = await self._outbox.counts()

    @property
    def status(self) -> HistoryStatus:
        """As it is now."""
        error, first = self._error, self._puller.first
        reading = first is not None and not first.finished
        return HistoryStatus(
            state=self._state,
            since=self._since,
            message=str(error) if error else None,
            pending=self._counts.pending,
            set_aside=self._counts.set_aside,
            read_back_to=datetime.fromtimestamp(first.upper_ns // 10**9, UTC) if first is not None and reading else None,
            pulled=first.found if first is not None and reading else 0,
        )

    def queued(self) -> None:
        """Something may be in the outbox."""
        self._queued.set()
        self._news.set()
        if isinstance(self._write_error, HistoryFailed):  # of what was tried, which need not hold up what is new
            self._back.set()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self._deliver(), name="history delivers")
            loops.create_task(self._pull(), name="history pulls")
            loops.create_task(self._say(), name="history says how it is")

    # --- delivering

    async def _deliver(self) -> None:
        delay_sec = _FIRST_DELAY_SEC
        while True:
            self._queued.clear()
            self._back.clear()
            try:
                while (delivery := await deliver_batch(self._client, self._outbox)) is not None:
                    delay_sec = _FIRST_DELAY_SEC
                    await self._was_delivered(delivery)
                self._write_error = None
                await self._look()
                await happens(self._queued, _LOOK_EVERY_SEC)
                continue
            except (HistoryError, StateError) as error:
                await self._could_not_deliver(error, delay_sec)
            except Exception as error:
                log.exception("history_delivery_broke")
                await self._could_not_deliver(_unexpected("Delivering to", error), delay_sec)
            await happens(self._back, delay_sec)
            delay_sec = min(delay_sec * 2, LONGEST_DELAY_SEC)

    async def _was_delivered(self, delivery: Delivery) -> None:
        if not isinstance(self._write_error, HistoryFailed):  # that of a record, whose turn comes after the others
            self._write_error = None
        log.info("records_delivered", count=len(delivery.delivered))
        self._news.set()
        await self._look()
        if delivery.refused:
            names = ", ".join(f"{record.dump_path} ({why})" for record, why in delivery.refused[:5])
            more = f" and {len(delivery.refused) - 5} more" if len(delivery.refused) > 5 else ""
            why_text = str(HistoryTypeConflict({place: why for place, (_, why) in enumerate(delivery.refused)}))
            await self._tell("error", HistoryTypeConflict.code, f"{why_text} Set aside: {names}{more}.")

    async def _could_not_deliver(self, error: MemoryDumpsError, delay_sec: float) -> None:
        log.warning("records_not_delivered", code=error.code, message=str(error), again_in_sec=delay_sec)
        with contextlib.suppress(StateError):
            await self._outbox.give_back()
        if isinstance(error, HistoryError):
            self._write_error = error
            self._probe.set()
            await self._look()

    # --- pulling

    async def _pull(self) -> None:
        while True:
            next_at = time.monotonic() + RECENT_EVERY_SEC
            self._probe.clear()
            try:
                await self._puller.recent()
                await self._can_be_read()
                while time.monotonic() < next_at and not self._probe.is_set() and await self._puller.step():
                    self._news.set()
                    await asyncio.sleep(_BREATH_SEC)
            except HistoryError as error:
                if self._read_error is None:
                    log.warning("history_not_read", code=error.code, message=str(error))
                self._read_error = error
                await self._look()
            except StateError as error:
                log.error("history_not_kept", code=error.code, message=str(error))
            except Exception as error:
                log.exception("history_pull_broke")
                self._read_error = _unexpected("Reading", error)
                await self._look()
            if self._read_error is not None or isinstance(self._write_error, HistoryUnreachable):
                await asyncio.sleep(PROBE_EVERY_SEC)
            else:
                await happens(self._probe, next_at - time.monotonic())

    async def _can_be_read(self) -> None:
        """It answers. What waits for delivery need not wait any longer, unless it is refused for reasons of its own."""
        if self._read_error is not None or isinstance(self._write_error, HistoryUnreachable):
            self._back.set()
        if self._read_error is not None:
            self._read_error = None
            self._puller.begin_again()
        if self._state is HistoryState.CONNECTING:
            self._news.set()
        await self._look(reached=True)

    # --- how it is

    @property
    def _error(self) -> HistoryError | None:
        return self._write_error or self._read_error

    async def _look(self, *, reached: bool = False) -> None:
        """Notice that the state is another one, and tell."""
        before, error = self._state, self._error
        if error is not None:
            self._state = _STATES.get(error.code, HistoryState.FAILED)
        elif reached or before is not HistoryState.CONNECTING:
            self._state = HistoryState.CONNECTED
        if self._state is before:
            return
        self._since = datetime.now(UTC)
        self._news.set()
        if error is not None:
            await self._tell("error", error.code, str(error))
        else:
            await self._tell("info", "history-connected", f"Connected to the shared history, {self._name}.")

    async def _say(self) -> None:
        """Publish the status when it is another one, a few times a second at most."""
        said: HistoryStatus | None = None
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                self._counts = await self._outbox.counts()
            except StateError:
                pass  # what was known last is still the best to say
            except Exception:  # a loop that ended would show an old state for ever, and end the others
                log.exception("history_counts_broke")
            if (status := self.status) != said:
                self._changed(status)
                if said is None or status.pending != said.pending:
                    log.info("history_pending", pending=status.pending, set_aside=status.set_aside, state=status.state)
                said = status
            await asyncio.sleep(_SAY_EVERY_SEC)


_STATES = {
    "history-unreachable": HistoryState.UNREACHABLE,
    "history-wrong-url": HistoryState.WRONG_URL,
    "history-refused": HistoryState.REFUSED,
}


def _unexpected(doing: str, error: Exception) -> HistoryFailed:
    return HistoryFailed(
        f"{doing} the shared history failed unexpectedly ({type(error).__name__}: {error}). "
        "It is tried again; the service's log has the details."
    )
