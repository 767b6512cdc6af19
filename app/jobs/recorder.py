"""Records, told to everybody: one way for those that we make and for those that another process wrote."""

from __future__ import annotations

import asyncio

import structlog

from app.changes import Changes
from app.errors import StateError
from app.jobs.inventory import Inventory
from app.model import Manifest
from app.records.index import RecordIndex
from app.state import State

log = structlog.get_logger()

_LOOK_EVERY_SEC = 0.5


class Recorder:
    """Adds records to the index and publishes ``record``, ``stats`` and ``vms``."""

    def __init__(self, state: State, index: RecordIndex, inventory: Inventory, changes: Changes) -> None:
        self._state = state
        self._index = index
        self._inventory = inventory
        self._changes = changes
        self._told = 0
        self._telling = asyncio.Lock()

    async def open(self) -> None:
        """Take in what is there already; nobody is told of it."""
        self._told = await self._index.newest()

    async def record(self, manifest: Manifest) -> None:
        """Commit the record, then tell. Raises ``StateError`` if it cannot be committed; the dump exists all the same."""
        await self._index.add(manifest)
        await self.tell_new()

    async def tell_new(self) -> None:
        """Publish every record that is new in the index, whoever wrote it."""
        async with self._telling:
            before = self._told
            while (news := await self._index.since(self._told))[1]:
                self._told, records = news
                for record in records:
                    self._inventory.dumped(record)
                    self._changes.publish("record", record)
            if self._told != before:
                self._changes.publish("stats", await self._index.stats())
                self._inventory.publish()

    async def watch(self) -> None:
        """Notice what other processes commit to the state file (the command line, by hand): until cancelled."""
        seen = await self._state.data_version()
        while True:
            await asyncio.sleep(_LOOK_EVERY_SEC)
            try:
                if (version := await self._state.data_version()) != seen:
                    seen = version
                    await self.tell_new()
            except StateError as error:
                log.error("state_unreadable", code=error.code, message=str(error))
