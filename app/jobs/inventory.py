"""The VMs as everybody sees them: what libvirt knows of each, when it was dumped last, and whether an alarm is on."""

from __future__ import annotations

from app.changes import Changes
from app.hypervisor import Hypervisor
from app.jobs.alarms import Alarms
from app.model import DumpRecord, Sighting, Subject
from app.records.index import RecordIndex
from app.scope import WHOLE, Scope


class Inventory:
    """Joins the three, and publishes ``vms``."""

    def __init__(self, hypervisor: Hypervisor, index: RecordIndex, alarms: Alarms, changes: Changes) -> None:
        self._hypervisor = hypervisor
        self._index = index
        self._alarms = alarms
        self._changes = changes
        self._last_dumps: dict[str, str] = {}
        self._last_dumps_as: dict[str, dict[Subject, str]] = {}

    async def open(self) -> None:
        """Take in what the index holds."""
        self._last_dumps_as = await self._index.last_dumps()
        self._last_dumps = {uuid: max(newest.values()) for uuid, newest in self._last_dumps_as.items()}

    def dumped(self, record: DumpRecord) -> None:
        """A VM has a new record; ``publish`` tells."""
        self._last_dumps[record.uuid] = max(record.timestamp, self._last_dumps.get(record.uuid, ""))
        as_it_was = self._last_dumps_as.setdefault(record.uuid, {})
        as_it_was[record.subject] = max(record.timestamp, as_it_was.get(record.subject, ""))

    def sightings(self, scope: Scope = WHOLE) -> tuple[Sighting, ...]:
        """Every VM that ``scope`` covers as it was last seen. One that is in it since a while may have been dumped before: of
        that its last dump tells nothing."""
        domains = self._hypervisor.domains()
        if scope.whole:
            return tuple(Sighting(one, self._last_dumps.get(one.uuid), self._alarms.of(one.uuid)) for one in domains)
        return tuple(
            Sighting(one, self._last_dump(one.uuid, scope), self._alarms.of(one.uuid))
            for one in domains
            if scope.covers(*one.subject)
        )

    def _last_dump(self, uuid: str, scope: Scope) -> str | None:
        dumps = self._last_dumps_as.get(uuid, {}).items()
        return max((newest for subject, newest in dumps if scope.covers(*subject)), default=None)

    def publish(self) -> None:
        """Tell everybody."""
        self._changes.publish("vms", self.sightings())
