"""The index from the manifests, which are the truth; and the outbox from what the shared history lacks."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.errors import HistoryError
from app.evidence import MANIFEST, ManifestDamaged, read_manifest
from app.model import Manifest
from app.records.deliver import Client, deliver_all, lacking_in
from app.records.index import RecordIndex, from_json
from app.records.outbox import Outbox, commit
from app.records.pull import AT_ONCE, Reader
from app.records.search import Filters
from app.state import State

Also = Callable[[sqlite3.Connection, Manifest], object]


@dataclass(frozen=True, slots=True)
class Refilled:
    """What a rebuild saw: the names of manifests, the dumps that they are of, how many had no record and got one, and those
    that cannot be read."""

    names: frozenset[str]
    dump_ids: tuple[str, ...]
    added: int
    damaged: tuple[ManifestDamaged, ...]


async def refill(state: State, dump_dir: Path, *, queue: bool, also: Also) -> Refilled:
    """Give every manifest in ``dump_dir`` that has no record one; with ``queue`` the history is to have it, too. ``also`` is done
    in the same transaction for each that is new.

    Raises ``StateError``; ``OSError`` if the folder cannot be read. A second time changes nothing.
    """
    names = await asyncio.to_thread(manifest_names, dump_dir)
    added = 0
    dump_ids: list[str] = []
    damaged: list[ManifestDamaged] = []
    every = sorted(names)
    for place in range(0, len(every), AT_ONCE):
        some = every[place : place + AT_ONCE]
        found = await asyncio.to_thread(_read, dump_dir, some)
        damaged += [one for one in found if isinstance(one, ManifestDamaged)]
        manifests = [one for one in found if isinstance(one, Manifest)]
        dump_ids += [manifest.dump_id for manifest in manifests]

        def keep(connection: sqlite3.Connection, manifests: Sequence[Manifest] = manifests) -> int:
            new = [manifest for manifest in manifests if commit(connection, manifest, queue=queue, unsure=True)]
            for manifest in new:
                also(connection, manifest)
            return len(new)

        added += await state.run(keep)
    return Refilled(names, tuple(dump_ids), added, tuple(damaged))


def manifest_names(dump_dir: Path) -> frozenset[str]:
    """The names of all manifests there. Raises ``OSError``."""
    return frozenset(path.name for path in dump_dir.iterdir() if path.name.endswith(MANIFEST))


def _read(dump_dir: Path, names: Sequence[str]) -> list[Manifest | ManifestDamaged]:
    found: list[Manifest | ManifestDamaged] = []
    for name in names:
        try:
            found.append(read_manifest(dump_dir / name))
        except ManifestDamaged as error:
            found.append(error)
    return found


@dataclass(frozen=True, slots=True)
class Redelivered:
    """What became of what the history lacked, whoever delivered it: this command or the service beside it.

    ``lacked``: how many records that did not wait already, None if that could not be asked. ``delivered``, ``waiting`` and
    ``refusals`` (InfluxDB's words for each) are of all that waited then. ``why``: what keeps those that wait.
    """

    lacked: int | None
    delivered: int
    waiting: int
    refusals: tuple[str, ...]
    why: str | None


async def redeliver(dump_ids: Sequence[str], index: RecordIndex, history: Client, outbox: Outbox) -> Redelivered:
    """Deliver what the history lacks of the index, and all else that waits.

    If the history cannot be asked, the records of ``dump_ids`` are queued: whoever delivers them asks for each first. Raises
    ``StateError``.
    """
    queued = (await outbox.counts()).pending
    lacked: int | None = None
    try:
        lacked = await queue_lacking(index, history, outbox)
        queued += lacked
        why = await deliver_all(history, outbox)
    except HistoryError as error:
        why = str(error)
        for place in range(0, len(dump_ids), AT_ONCE):
            await outbox.queue_again(dump_ids[place : place + AT_ONCE])
        queued = (await outbox.counts()).pending
    refusals = tuple(await outbox.refusals())
    waiting = (await outbox.counts()).pending
    return Redelivered(lacked, max(0, queued - waiting - len(refusals)), waiting, refusals, why)


async def queue_lacking(index: RecordIndex, history: Reader, outbox: Outbox) -> int:
    """Queue every record that the history has not, also such as it once refused; how many did not wait already.

    Raises ``HistoryError``, ``StateError``.
    """
    queued = 0
    async for chunk in index.chunks(Filters(), "asc"):
        records = from_json(chunk)
        lacking = {record.dump_id for record in await lacking_in(history, records)}
        await outbox.has_arrived([record.dump_id for record in records if record.dump_id not in lacking])
        queued += await outbox.queue_again([record.dump_id for record in records if record.dump_id in lacking])
    return queued
