"""Records from a command line, a process without a service in it, which may run beside one. Everything blocks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from app.config import Settings
from app.errors import ConfigError, HistoryTypeConflict, StateError
from app.model import Manifest
from app.records.deliver import deliver_all
from app.records.index import SCHEMA as INDEX_SCHEMA
from app.records.index import RecordIndex, migrate
from app.records.outbox import SCHEMA as OUTBOX_SCHEMA
from app.records.outbox import Outbox, commit
from app.records.rebuild import Also, Refilled, redeliver, refill
from app.records.shared import ClosableClient, history_at
from app.state import State

_AGAIN = "`python -m app records rebuild --deliver` tries it again."


def record_by_hand(
    state_file: Path, manifest: Manifest, *, queue: bool = False, also: Callable[[sqlite3.Connection], object] = lambda _: None
) -> None:
    """Keep the record of ``manifest`` in the index and, with ``queue``, in the outbox; ``also`` is done in the same transaction if
    it is new. Raises ``StateError``."""
    state = _open(state_file)
    try:
        state.run_now(lambda connection: commit(connection, manifest, queue=queue) and also(connection))
    finally:
        state.close()


def deliver_by_hand(settings: Settings, dump_ids: Sequence[str]) -> tuple[list[str], bool]:
    """Deliver the records of dumps that were just sealed, or wait until the service has: what to tell, and whether all are
    delivered. What keeps them from it is told, never raised."""
    try:
        state = _open(settings.state_file)
        try:
            return asyncio.run(_deliver(settings, state, dump_ids))
        finally:
            state.close()
    except (StateError, ConfigError) as error:
        return [_not_yet(dump_ids, str(error))], False


def rebuild_by_hand(settings: Settings, *, deliver: bool, also: Also) -> tuple[list[str], bool]:
    """The index from the manifests in ``DUMP_DIR``; with ``deliver`` the shared history gets what it lacks. ``also`` is done in the
    same transaction for each record that is new.

    What to tell, and whether all went well. Raises ``StateError``, ``ConfigError``, ``OSError``.
    """
    if deliver and settings.influx_url is None:
        raise ConfigError("--deliver needs INFLUX_URL: there is no shared history to deliver to.")
    state = _open(settings.state_file)
    try:
        return asyncio.run(_rebuild(settings, state, deliver=deliver, also=also))
    finally:
        state.close()


def _open(state_file: Path) -> State:
    return State.open(state_file, INDEX_SCHEMA, OUTBOX_SCHEMA, migrate=migrate)


def _outbox(state: State) -> Outbox:
    return Outbox(state, f"by hand {os.getpid()}")


@contextlib.asynccontextmanager
async def _history(settings: Settings) -> AsyncIterator[ClosableClient]:
    history = await asyncio.to_thread(history_at, settings)
    if history is None:
        raise ConfigError("INFLUX_URL is not set: there is no shared history.")
    try:
        yield history
    finally:
        await history.close()


# --- after a dump


async def _deliver(settings: Settings, state: State, dump_ids: Sequence[str]) -> tuple[list[str], bool]:
    outbox = _outbox(state)
    async with _history(settings) as history:
        why = await deliver_all(history, outbox, dump_ids)
    refusals = await outbox.refusals(dump_ids)
    earlier = (await outbox.counts()).set_aside - len(refusals)
    told = [_not_yet(dump_ids, why)] if why else []
    if refusals:
        told.append(f"sealed and recorded, but not all is delivered. {_refused(refusals)}")
    if earlier:
        are = "record is" if earlier == 1 else "records are"
        told.append(f"{earlier} {are} still set aside that InfluxDB refused before; {_AGAIN}")
    return told, not why and not refusals


def _not_yet(dump_ids: Sequence[str], why: str) -> str:
    what = "its record is not" if len(dump_ids) == 1 else "not every record is"
    return f"sealed and recorded, but {what} delivered to InfluxDB yet: {why} The service delivers what waits, as soon as it can."


def _refused(refusals: Sequence[str]) -> str:
    why = HistoryTypeConflict(dict(enumerate(refusals)))
    return f"{why} Until then {'it is' if len(refusals) == 1 else 'they are'} set aside; then {_AGAIN}"


# --- from the manifests


async def _rebuild(settings: Settings, state: State, *, deliver: bool, also: Also) -> tuple[list[str], bool]:
    if not deliver:
        refilled = await refill(state, settings.dump_dir, queue=False, also=also)
        return _told_of(refilled, settings), not refilled.damaged
    async with _history(settings) as history:  # a URL that leads nowhere is told before anything is done
        refilled = await refill(state, settings.dump_dir, queue=False, also=also)
        done = await redeliver(refilled.dump_ids, RecordIndex(state), history, _outbox(state))
    told = _told_of(refilled, settings)
    if done.lacked is None:
        told.append(
            "What the shared history lacks could not be asked. The records of these manifests are queued, and each is delivered "
            "that it turns out to lack."
        )
    else:
        told.append(f"The shared history lacked {done.lacked} records that did not wait.")
    told.append(
        f"{done.delivered} delivered, {len(done.refusals)} refused for good, "
        f"{done.waiting} wait for the service to deliver them, or for this command to be run again."
    )
    told += [_refused(done.refusals)] if done.refusals else []
    told += [done.why] if done.why else []
    return told, done.why is None and not done.refusals and not refilled.damaged


def _told_of(refilled: Refilled, settings: Settings) -> list[str]:
    return [
        *map(str, refilled.damaged),
        f"{len(refilled.names)} manifests in {settings.dump_dir}: {refilled.added} had no record and got one.",
    ]
