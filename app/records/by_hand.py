"""Records from a command line, a process without a service in it, which may run beside one. Everything blocks."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from app.config import Settings
from app.errors import ConfigError, HistoryError
from app.model import Manifest
from app.records.deliver import deliver_batch
from app.records.index import SCHEMA as INDEX_SCHEMA
from app.records.index import RecordIndex, migrate
from app.records.outbox import SCHEMA as OUTBOX_SCHEMA
from app.records.outbox import Outbox, commit
from app.records.rebuild import queue_lacking, refill
from app.records.shared import ClosableClient, history_at
from app.state import State

LONGEST_SEC = 20.0
"""How long a command waits until its records are delivered."""

_LOOK_EVERY_SEC = 0.1


def record_by_hand(state_file: Path, manifest: Manifest, *, queue: bool = False) -> None:
    """Keep the record of ``manifest`` in the index and, with ``queue``, in the outbox. Raises ``StateError``."""
    state = _open(state_file)
    try:
        state.run_now(lambda connection: commit(connection, manifest, queue=queue))
    finally:
        state.close()


def deliver_by_hand(settings: Settings, dump_ids: Sequence[str]) -> str | None:
    """Deliver these dumps' records, or wait until the service has; what keeps them from it, None when all are delivered.

    Raises ``StateError``; ``ConfigError`` if ``INFLUX_URL`` can lead nowhere.
    """
    state = _open(settings.state_file)
    try:
        return asyncio.run(_deliver(settings, state, dump_ids))
    finally:
        state.close()


def rebuild_by_hand(settings: Settings, *, deliver: bool) -> tuple[list[str], bool]:
    """The index from the manifests in ``DUMP_DIR``; with ``deliver`` the shared history gets what it lacks.

    What to tell, and whether all went well. Raises ``StateError``, ``ConfigError``, ``OSError``.
    """
    if deliver and settings.influx_url is None:
        raise ConfigError("--deliver needs INFLUX_URL: there is no shared history to deliver to.")
    state = _open(settings.state_file)
    try:
        return asyncio.run(_rebuild(settings, state, deliver=deliver))
    finally:
        state.close()


def _open(state_file: Path) -> State:
    return State.open(state_file, INDEX_SCHEMA, OUTBOX_SCHEMA, migrate=migrate)


def _outbox(state: State) -> Outbox:
    return Outbox(state, f"by hand {os.getpid()}")


async def _deliver(settings: Settings, state: State, dump_ids: Sequence[str]) -> str | None:
    history, outbox = await asyncio.to_thread(_history, settings), _outbox(state)
    try:
        async with asyncio.timeout(LONGEST_SEC):
            while await outbox.pending_of(dump_ids):
                if await deliver_batch(history, outbox, dump_ids) is None:
                    await asyncio.sleep(_LOOK_EVERY_SEC)  # the service has taken them, and gives them back or delivers them
    except TimeoutError:
        return f"InfluxDB did not take it within {LONGEST_SEC:g} s."
    except HistoryError as error:
        return str(error)
    finally:
        await outbox.give_back()
        await history.close()
    refusals = await outbox.refusals_of(dump_ids)
    return f"InfluxDB will never take it: {refusals[0]}." if refusals else None


async def _rebuild(settings: Settings, state: State, *, deliver: bool) -> tuple[list[str], bool]:
    refilled = await refill(state, settings.dump_dir, queue=False)
    told = [str(error) for error in refilled.damaged]
    told.append(f"{len(refilled.names)} manifests in {settings.dump_dir}: {refilled.added} had no record and got one.")
    if not deliver:
        return told, not refilled.damaged
    history, outbox = await asyncio.to_thread(_history, settings), _outbox(state)
    delivered, refused, error = 0, 0, None
    try:
        told.append(
            f"The shared history lacked {await queue_lacking(RecordIndex(state), history, outbox)} records that did not wait."
        )
        while (delivery := await deliver_batch(history, outbox)) is not None:
            delivered, refused = delivered + len(delivery.delivered), refused + len(delivery.refused)
    except HistoryError as caught:
        error = caught
    finally:
        await outbox.give_back()
        await history.close()
    pending = (await outbox.counts()).pending
    told.append(f"{delivered} delivered, {refused} refused for good, {pending} wait for the service to deliver them.")
    return [*told, *([str(error)] if error else [])], error is None and not refused and not refilled.damaged


def _history(settings: Settings) -> ClosableClient:
    history = history_at(settings)
    if history is None:
        raise ConfigError("INFLUX_URL is not set: there is no shared history.")
    return history
