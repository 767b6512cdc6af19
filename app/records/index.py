"""The index: the searchable collection of all records, in the state file. Records are only ever added."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, replace

import msgspec

from app.model import DayStats, DumpRecord, Manifest, Stats, VmStats
from app.records import totals
from app.records.schema import SCHEMA as SCHEMA
from app.records.schema import add_to as add_to
from app.records.schema import migrate as migrate
from app.records.search import Filters, Order, Position, Row, count, few, part, walk
from app.state import State

MOST_NEWS = 1000
"""Records that ``since`` gives out at once."""

CHUNK = 2000

_decoder = msgspec.json.Decoder(Manifest)


@dataclass(frozen=True, slots=True)
class Page:
    """Some records, each as the JSON that lists show; how many match in all; where to go on, None at the end."""

    records: tuple[msgspec.Raw, ...]
    count: int
    next: Position | None


class RecordIndex:
    """Every query over records. Records in lists have no ``domain_xml``; ``get`` gives it. All raise ``StateError``."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def add(self, manifest: Manifest) -> bool:
        """Keep the record of ``manifest``, durably. False, and nothing changes, if its ``dump_id`` is known already."""
        return await self._state.run(lambda connection: add_to(connection, manifest))

    async def add_many(self, manifests: Iterable[Manifest]) -> int:
        """``add`` them in one transaction; how many were new."""
        return await self._state.run(lambda connection: sum(add_to(connection, manifest) for manifest in manifests))

    async def page(
        self, filters: Filters, *, limit: int, order: Order = "desc", offset: int = 0, after: Position | None = None
    ) -> Page:
        """``limit`` of the records that match, in the order of their timestamps, from ``offset`` or just behind ``after`` on."""

        def work(connection: sqlite3.Connection) -> Page:
            matches = few(connection, filters)
            if matches is not None:
                rows, found = part(matches, order, limit + 1, offset, after), len(matches)
            else:
                rows = walk(connection, filters, order, limit + 1, offset, after)
                found = count(connection, filters)
            shown = rows[:limit]
            return Page(
                records=tuple(msgspec.Raw(text) for text in _manifests(connection, shown)),
                count=found,
                next=Position(*shown[-1][:2]) if len(rows) > limit else None,
            )

        return await self._state.read(work, slow=bool(filters.q))

    async def chunks(self, filters: Filters, order: Order = "desc") -> AsyncIterator[tuple[DumpRecord, ...]]:
        """All records that match, some thousand at a time. Between two of them nothing is held, and records that are added
        meanwhile may or may not be among them."""
        matches = await self._state.read(lambda connection: few(connection, filters), slow=True)
        after: Position | None = None
        while True:

            def work(connection: sqlite3.Connection, after: Position | None = after) -> tuple[list[Row], tuple[DumpRecord, ...]]:
                if matches is not None:
                    rows = part(matches, order, CHUNK, 0, after)
                else:
                    rows = walk(connection, filters, order, CHUNK, 0, after)
                return rows, _decoded(_manifests(connection, rows))

            rows, records = await self._state.read(work, slow=True)
            if records:
                yield records
            if len(rows) < CHUNK:
                return
            after = Position(*rows[-1][:2])

    async def get(self, dump_id: str) -> DumpRecord | None:
        """The whole manifest of one dump."""

        def work(connection: sqlite3.Connection) -> DumpRecord | None:
            found = connection.execute(
                "SELECT manifest, coalesce(domain_xml, '') FROM records JOIN manifests USING (number) "
                "LEFT JOIN domain_xmls USING (number) WHERE dump_id = ?",
                (dump_id,),
            ).fetchone()
            return replace(_decoder.decode(found[0]), domain_xml=found[1]) if found else None

        return await self._state.read(work)

    async def stats(self) -> Stats:
        """Totals over all records."""
        return await self._state.read(totals.stats)

    async def stats_by_vm(self, since: str | None = None, until: str | None = None) -> tuple[VmStats, ...]:
        """Totals of each VM that has records from ``since`` on and before ``until``, by name."""
        return await self._state.read(lambda connection: totals.by_vm(connection, since, until))

    async def stats_by_day(self, since: str | None = None, until: str | None = None) -> tuple[DayStats, ...]:
        """Totals of each day that has records from ``since`` on and before ``until``, oldest first."""
        return await self._state.read(lambda connection: totals.by_day(connection, since, until))

    async def last_dumps(self) -> dict[str, str]:
        """The timestamp of the newest record of each VM that has a uuid, by that."""
        question = "SELECT uuid, max(newest) FROM vms WHERE uuid <> '' GROUP BY uuid"
        return await self._state.read(lambda connection: dict(connection.execute(question).fetchall()))

    async def newest(self) -> int:
        """The number of the newest record, 0 if there is none."""
        question = "SELECT coalesce(max(number), 0) FROM records"
        return await self._state.read(lambda connection: int(connection.execute(question).fetchone()[0]))

    async def since(self, number: int) -> tuple[int, tuple[DumpRecord, ...]]:
        """The records with a number above ``number`` in their order, a thousand at most, and the number to ask from next.

        So the service learns what another process added.
        """

        def work(connection: sqlite3.Connection) -> tuple[int, tuple[DumpRecord, ...]]:
            rows = connection.execute(
                "SELECT number, manifest FROM manifests WHERE number > ? ORDER BY number LIMIT ?", (number, MOST_NEWS)
            ).fetchall()
            return (rows[-1][0] if rows else number), _decoded(text for _, text in rows)

        return await self._state.read(work)


def _manifests(connection: sqlite3.Connection, rows: Sequence[Row]) -> list[str]:
    question = "SELECT manifest FROM json_each(?) AS wanted CROSS JOIN manifests ON number = wanted.value"
    numbers = json.dumps([number for _, _, number in rows])
    return [manifest for (manifest,) in connection.execute(question, (numbers,))]


def _decoded(texts: Iterable[str]) -> tuple[DumpRecord, ...]:
    return tuple(_decoder.decode(text) for text in texts)
