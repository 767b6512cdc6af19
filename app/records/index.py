"""The index: the searchable collection of all records, in the state file. Records are only ever added."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, replace

import msgspec

from app.model import DayStats, DumpRecord, Manifest, Stats, Subject, VmStats
from app.records import scoped, totals
from app.records.covered import Covered, CoveredVms, narrowed
from app.records.schema import SCHEMA as SCHEMA
from app.records.schema import add_to as add_to
from app.records.schema import migrate as migrate
from app.records.search import FEW, Filters, Order, Position, Row, count, few, part, stretch, walk
from app.scope import WHOLE, Scope
from app.state import State

MOST_NEWS = 1000
"""Records that ``since`` gives out at once."""

CHUNK = 1000
"""Records that ``chunks`` gives at once: many, for each time threads wait for each other; and no more, for they are decoded in one
step, which keeps the event loop for some milliseconds."""

_decoder = msgspec.json.Decoder(Manifest)
_array_decoder = msgspec.json.Decoder(tuple[Manifest, ...])


@dataclass(frozen=True, slots=True)
class Page:
    """Some records, each as the JSON that lists show; how many match in all; where to go on, None at the end."""

    records: tuple[msgspec.Raw, ...]
    count: int
    next: Position | None


class RecordIndex:
    """Every query over records. Records in lists have no ``domain_xml``; ``get`` gives it. All raise ``StateError``.

    A question with a ``scope`` is answered as if there were no records but those that it covers.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._covered = CoveredVms()

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
            rows, found = self._found(connection, filters, order, limit + 1, offset, after)
            shown = rows[:limit]
            return Page(
                records=tuple(map(msgspec.Raw, _manifests_of(connection, shown))),
                count=found,
                next=Position(*shown[-1][:2]) if len(rows) > limit else None,
            )

        return await self._state.read(work, slow=bool(filters.q))

    def _found(
        self, connection: sqlite3.Connection, filters: Filters, order: Order, limit: int, offset: int, after: Position | None
    ) -> tuple[Sequence[Row], int]:
        """A page's rows, and how many there are in all."""
        covered = self._of(connection, filters)
        if covered is not None:
            rows = scoped.walk(connection, covered, filters, order, limit, offset, after)
            return rows, scoped.count(connection, covered, filters)
        matches = few(connection, filters)
        if matches is not None:
            return part(matches, order, limit, offset, after), len(matches)
        return walk(connection, filters, order, limit, offset, after), count(connection, filters)

    def _of(self, connection: sqlite3.Connection, filters: Filters) -> Covered | None:
        """What the scope covers, of this name and vmid; None for the whole."""
        covered = self._covered.of(connection, filters.scope)
        return narrowed(connection, covered, filters.dom, filters.vmid) if covered is not None else None

    async def chunks(self, filters: Filters, order: Order = "desc") -> AsyncIterator[str]:
        """All records that match, a thousand at a time, each time as one JSON array. Between two of them nothing is held, and
        records that are added meanwhile may or may not be among them."""
        numbers = await self._state.read(lambda connection: self._all_of(connection, filters, order), slow=True)
        chunks = self._walked(filters, order) if numbers is None else self._known(numbers)
        async with contextlib.aclosing(chunks):
            async for records in chunks:
                yield records

    def _all_of(self, connection: sqlite3.Connection, filters: Filters, order: Order) -> Sequence[int] | None:
        """The numbers of all records that match, where these must be found at once; None where they can be walked through."""
        covered = self._of(connection, filters)
        if covered is not None:
            return scoped.matches(connection, covered, filters, order)
        matches = few(connection, filters)
        return None if matches is None else [number for _, _, number in part(matches, order, FEW, 0, None)]

    async def _known(self, numbers: Sequence[int]) -> AsyncGenerator[str]:
        for place in range(0, len(numbers), CHUNK):
            some = numbers[place : place + CHUNK]
            yield await self._state.read(lambda connection, some=some: _array_of(connection, some), slow=True)  # type: ignore[misc]

    async def _walked(self, filters: Filters, order: Order) -> AsyncGenerator[str]:
        after: Position | None = None
        while True:

            def work(connection: sqlite3.Connection, after: Position | None = after) -> tuple[list[int], Position | None, str]:
                numbers, last = stretch(connection, filters, order, CHUNK, after)
                return numbers, last, _array_of(connection, numbers)

            numbers, after, records = await self._state.read(work, slow=True)
            if numbers:
                yield records
            if len(numbers) < CHUNK:
                return

    async def get(self, dump_id: str, scope: Scope = WHOLE) -> DumpRecord | None:
        """The whole manifest of one dump."""

        def work(connection: sqlite3.Connection) -> DumpRecord | None:
            covered = self._covered.of(connection, scope)
            found = connection.execute("SELECT number, vm FROM records WHERE dump_id = ?", (dump_id,)).fetchone()
            if found is None or (covered is not None and found[1] not in covered.vms):
                return None
            manifest, domain_xml = connection.execute(
                "SELECT manifest, coalesce(domain_xml, '') FROM manifests LEFT JOIN domain_xmls USING (number) WHERE number = ?",
                found[:1],
            ).fetchone()
            return replace(_decoder.decode(manifest), domain_xml=domain_xml)

        return await self._state.read(work)

    async def stats(self, scope: Scope = WHOLE) -> Stats:
        """Totals over all records."""
        return await self._state.read(lambda connection: totals.stats(connection, self._covered.of(connection, scope)))

    async def stats_by_vm(self, since: str | None = None, until: str | None = None, scope: Scope = WHOLE) -> tuple[VmStats, ...]:
        """Totals of each VM that has records from ``since`` on and before ``until``, by name."""
        return await self._state.read(
            lambda connection: totals.by_vm(connection, since, until, self._covered.of(connection, scope))
        )

    async def stats_by_day(self, since: str | None = None, until: str | None = None, scope: Scope = WHOLE) -> tuple[DayStats, ...]:
        """Totals of each day that has records from ``since`` on and before ``until``, oldest first."""
        return await self._state.read(
            lambda connection: totals.by_day(connection, since, until, self._covered.of(connection, scope))
        )

    async def last_dumps(self) -> dict[str, dict[Subject, str]]:
        """The timestamp of the newest record of each VM that has a uuid, by that, and by what it was for a scope then."""
        question = "SELECT uuid, hypervisor, dom, one_group, max(newest) FROM vms WHERE uuid <> '' GROUP BY 1, 2, 3, 4"
        rows = await self._state.read(lambda connection: connection.execute(question).fetchall())
        found: dict[str, dict[Subject, str]] = {}
        for uuid, hypervisor, dom, group, newest in rows:
            found.setdefault(uuid, {})[Subject(hypervisor, dom, group or None)] = newest
        return found

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
            return (rows[-1][0] if rows else number), tuple(_decoder.decode(text) for _, text in rows)

        return await self._state.read(work)


_WANTED = "FROM json_each(?) AS wanted CROSS JOIN manifests ON number = wanted.value"


def _manifests_of(connection: sqlite3.Connection, rows: Sequence[Row]) -> list[str]:
    numbers = json.dumps([number for _, _, number in rows])
    return [manifest for (manifest,) in connection.execute(f"SELECT manifest {_WANTED}", (numbers,))]


def _array_of(connection: sqlite3.Connection, numbers: Sequence[int]) -> str:
    """Of all in one step: each step of a query waits until the thread that makes rows of the last ones lets go of the
    interpreter."""
    question = f"SELECT coalesce(group_concat(manifest), '') {_WANTED}"
    return f"[{connection.execute(question, (json.dumps(list(numbers)),)).fetchone()[0]}]"


def from_json(array: str) -> tuple[DumpRecord, ...]:
    """Records of the JSON that ``chunks`` gives."""
    return _array_decoder.decode(array)
