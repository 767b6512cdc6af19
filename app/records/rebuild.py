"""The index from the manifests, which are the truth; and the outbox from what the shared history lacks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from app.evidence import MANIFEST, ManifestDamaged, read_manifest
from app.model import Manifest
from app.records.deliver import lacking_in
from app.records.index import RecordIndex
from app.records.outbox import Outbox, commit
from app.records.pull import Reader
from app.records.search import Filters
from app.state import State

AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Refilled:
    """What a rebuild saw: the names of manifests, how many had no record and got one, and those that cannot be read."""

    names: frozenset[str]
    added: int
    damaged: tuple[ManifestDamaged, ...]


async def refill(state: State, dump_dir: Path, *, queue: bool) -> Refilled:
    """Give every manifest in ``dump_dir`` that has no record one; with ``queue`` the history is to have it, too.

    Raises ``StateError``; ``OSError`` if the folder cannot be read. A second time changes nothing.
    """
    names = await asyncio.to_thread(manifest_names, dump_dir)
    added = 0
    damaged: list[ManifestDamaged] = []
    every = sorted(names)
    for place in range(0, len(every), AT_ONCE):
        some = every[place : place + AT_ONCE]
        found = await asyncio.to_thread(_read, dump_dir, some)
        damaged += [one for one in found if isinstance(one, ManifestDamaged)]
        manifests = [one for one in found if isinstance(one, Manifest)]
        added += await state.run(
            lambda connection, manifests=manifests: sum(  # type: ignore[misc]
                commit(connection, manifest, queue=queue, unsure=True) for manifest in manifests
            )
        )
    return Refilled(names, added, tuple(damaged))


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


async def queue_lacking(index: RecordIndex, history: Reader, outbox: Outbox) -> int:
    """Queue every record that the history has not, also such as it once refused; how many did not wait already.

    Raises ``HistoryError``, ``StateError``.
    """
    queued = 0
    async for records in index.chunks(Filters(), "asc"):
        lacking = await lacking_in(history, records)
        queued += await outbox.queue_again([record.dump_id for record in lacking])
    return queued
