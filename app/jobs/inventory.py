"""The VMs as everybody sees them: what libvirt knows of each, when it was dumped last, and whether an alarm is on."""

from __future__ import annotations

from app.changes import Changes
from app.hypervisor import Hypervisor
from app.jobs.alarms import Alarms
from app.model import DumpRecord, Sighting
from app.records.index import RecordIndex


class Inventory:
    """Joins the three, and publishes ``vms``."""

    def __init__(self, hypervisor: Hypervisor, index: RecordIndex, alarms: Alarms, changes: Changes) -> None:
        self._hypervisor = hypervisor
        self._index = index
        self._alarms = alarms
        self._changes = changes
        self._last_dumps: dict[str, str] = {}

    async def open(self) -> None:
        """Take in what the index holds."""
        self._last_dumps = await self._index.last_dumps()

    def dumped(self, record: DumpRecord) -> None:
        """A VM has a new record; ``publish`` tells."""
        self._last_dumps[record.uuid] = max(record.timestamp, self._last_dumps.get(record.uuid, ""))

    def sightings(self) -> tuple[Sighting, ...]:
        """Every VM as it was last seen."""
        return tuple(
            Sighting(domain, self._last_dumps.get(domain.uuid), self._alarms.of(domain.uuid))
            for domain in self._hypervisor.domains()
        )

    def publish(self) -> None:
        """Tell everybody."""
        self._changes.publish("vms", self.sightings())
