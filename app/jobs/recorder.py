"""Records, told to everybody: one way for those that we make and for those that another process wrote."""

from __future__ import annotations

import asyncio

import structlog

from app.changes import Changes
from app.errors import StateError
from app.hypervisor import Hypervisor
from app.model import Manifest, Sighting
from app.records.index import RecordIndex
from app.state import State

log = structlog.get_logger()

_LOOK_EVERY_SEC = 0.5


class Recorder:
    """Adds records to the index and publishes ``record``, ``stats`` and ``vms``."""

    def __init__(self, state: State, index: RecordIndex, changes: Changes) -> None:
        self._state = state
        self._index = index
        self._changes = changes
        self._told = 0
        self._last_dumps: dict[str, str] = {}
        self._telling = asyncio.Lock()
        self.hypervisor: Hypervisor | None = None

    async def open(self) -> None:
        """Take in what is there already; nobody is told of it."""
        self._told = await self._index.newest()
        self._last_dumps = await self._index.last_dumps()

    async def record(self, manifest: Manifest) -> None:
        """Commit the record, then tell. Raises ``StateError`` if it cannot be committed; the dump exists all the same."""
        await self._index.add(manifest)
        await self.tell_new()

    async def tell_new(self) -> None:
        """Publish every record that is new in the index, whoever wrote it."""
        async with self._telling:
            self._told, records = await self._index.since(self._told)
            for record in records:
                self._last_dumps[record.uuid] = max(record.timestamp, self._last_dumps.get(record.uuid, ""))
                self._changes.publish("record", record)
            if records:
                self._changes.publish("stats", await self._index.stats())
                self.publish_vms()

    def sightings(self) -> tuple[Sighting, ...]:
        """The inventory, each VM with its newest dump."""
        domains = self.hypervisor.domains() if self.hypervisor else ()
        return tuple(Sighting(domain, self._last_dumps.get(domain.uuid)) for domain in domains)

    def publish_vms(self) -> None:
        """Tell the inventory."""
        self._changes.publish("vms", self.sightings())

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
