"""``GET /readyz``: whether dumps can be made now, and each thing that this hangs on by name."""

from __future__ import annotations

import asyncio
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from aiohttp import web
from msgspec import Meta

from app.errors import StateError, StateUnwritable
from app.model import HistoryState, HistoryStatus, HypervisorStatus, Link
from app.web import keys
from app.web.answers import Answer
from app.web.api import as_json

_LOCKED_SEC = 2.0
_LEAST_BYTES = 1 << 20
"""What a record and its trail may need, many times over."""


class Dependency(Answer, frozen=True, kw_only=True):
    """One thing that the service hangs on."""

    state: str
    essential: Annotated[bool, Meta(description="Whether the service is not ready without it.")]
    message: str | None


class Readiness(Answer, frozen=True, kw_only=True):
    """Whether dumps can be made now, and what this hangs on, by name."""

    status: Literal["ready", "not-ready"]
    dependencies: dict[str, Dependency]
    pending_records: int
    set_aside_records: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """How a dependency was found. Without an ``essential`` one that is well, the service is not ready."""

    state: str
    well: bool
    essential: bool
    message: str | None


async def readyz(request: web.Request) -> web.StreamResponse:
    """200 when dumps can be made, else 503. Without a login the status code alone: the words name paths and hosts. Who may not
    know of all is not told what is wrong, nor how many records wait: those may be others'.

    The shared history is not essential: while it is away, dumps are sealed and recorded all the same.
    """
    found = await _dependencies(request.app)
    ready = all(one.well for one in found.values() if one.essential)
    status = 200 if ready else 503
    if keys.IDENTITY not in request:
        return web.Response(status=status)
    whole = request[keys.IDENTITY].scope.whole
    history = request.app[keys.HISTORY]()
    answer = Readiness(
        status="ready" if ready else "not-ready",
        dependencies={
            name: Dependency(state=one.state, essential=one.essential, message=one.message if whole else None)
            for name, one in found.items()
        },
        pending_records=history.pending if whole else 0,
        set_aside_records=history.set_aside if whole else 0,
    )
    return as_json(answer, status=status)


async def _dependencies(app: web.Application) -> dict[str, _Found]:
    return {
        "state": await _state(app),
        "dump_dir": await asyncio.to_thread(_dump_dir, app[keys.SETTINGS].dump_dir),
        "hypervisor": _hypervisor(app[keys.HYPERVISOR].status),
        "history": _history(app[keys.HISTORY]()),
    }


async def _state(app: web.Application) -> _Found:
    """Whether it can be read, and written: nobody holds its lock for long, and its disk is not full."""
    folder = app[keys.SETTINGS].state_dir
    try:
        await app[keys.STATE].read(lambda connection: connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone())
        async with asyncio.timeout(_LOCKED_SEC):
            await app[keys.STATE].run(lambda _: None)
        if (await asyncio.to_thread(shutil.disk_usage, folder)).free < _LEAST_BYTES:
            return _unwritable(f"The disk of the state directory {folder} is full. Free some room there.")
    except StateError as error:
        return _Found(state=error.code, well=False, essential=True, message=str(error))
    except TimeoutError:
        return _unwritable(f"Another program holds the lock of the state file in {folder}. End it.")
    return _Found(state="ok", well=True, essential=True, message=None)


def _unwritable(message: str) -> _Found:
    return _Found(state=StateUnwritable.code, well=False, essential=True, message=message)


def _dump_dir(folder: Path) -> _Found:
    well = folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
    message = None if well else f"Dumps cannot be written to {folder}. Make the folder, make it writable, or set DUMP_DIR."
    return _Found(state="ok" if well else "unusable", well=well, essential=True, message=message)


def _hypervisor(status: HypervisorStatus) -> _Found:
    return _Found(state=status.state, well=status.state is Link.CONNECTED, essential=True, message=status.message)


def _history(status: HistoryStatus) -> _Found:
    well = status.state in (HistoryState.OFF, HistoryState.CONNECTED)
    words = [text for text in (status.summary, status.message) if text]
    return _Found(state=status.state, well=well, essential=False, message=". ".join(words) or None)
