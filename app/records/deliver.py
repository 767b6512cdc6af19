"""Delivering: one batch from the outbox to the shared history, by the service or by a command line."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from app.errors import HistoryError, HistoryFailed, HistoryTooWide, HistoryTypeConflict
from app.model import DumpRecord
from app.records.outbox import Entry, Outbox
from app.records.point import Point, point_of
from app.records.pull import AT_ONCE, Reader, clusters, records_of, rows_between

LONGEST_SEC = 20.0
"""How long a command waits for the next record to be delivered."""

_LOOK_EVERY_SEC = 0.1


class Client(Reader, Protocol):
    """The shared history, as far as it is needed: ``influx.History``, which this room does not import."""

    async def write(self, points: Sequence[Point]) -> None:
        """Add them. Returns when they are durable there; raises ``HistoryError``."""
        ...


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of a batch: the records that the history has now, and those that it refused for good, with its reason."""

    delivered: tuple[DumpRecord, ...]
    refused: tuple[tuple[DumpRecord, str], ...]


async def deliver_batch(history: Client, outbox: Outbox, only: Sequence[str] | None = None) -> Delivery | None:
    """Deliver the next batch; None if nothing waits that nobody else has taken. Raises ``HistoryError``, ``StateError``."""
    entries = await outbox.take(only)
    if not entries:
        return None
    try:
        lacking = await _lacking(history, entries)
    except (HistoryFailed, HistoryTooWide):  # only of some time: what nobody has to ask for goes before
        lacking = [entry for entry in entries if not entry.unsure]
        await outbox.release([entry for entry in entries if entry.unsure], failed=True)
        entries = tuple(lacking)
        if not lacking:
            raise
    except HistoryError:
        await outbox.release(entries, unsent=True)
        raise
    sent, refused = _points(lacking)
    try:
        if sent:
            await history.write([point for _, point in sent])
    except HistoryTypeConflict as error:
        refused += [(sent[place][0], why) for place, why in error.refused.items()]
    except HistoryError as error:
        await outbox.release(entries, failed=isinstance(error, HistoryFailed))
        raise
    numbers = {entry.number for entry, _ in refused}
    delivered = [entry for entry in entries if entry.number not in numbers]
    await outbox.delivered(delivered)
    for entry, why in refused:
        await outbox.set_aside([entry], why)
    return Delivery(tuple(entry.record for entry in delivered), tuple((entry.record, why) for entry, why in refused))


async def deliver_all(history: Client, outbox: Outbox, only: Sequence[str] | None = None) -> str | None:
    """Deliver all that waits, of ``only`` these dumps if given, for a command that ends then; what keeps some of it from that.

    A service beside may have taken some of it: it is waited for. What nobody will ever take counts as done: it is set aside,
    whoever was told so. Raises ``StateError``.
    """
    try:
        async with asyncio.timeout(LONGEST_SEC) as limit:
            waiting = await outbox.pending(only)
            while waiting:
                if await deliver_batch(history, outbox, only) is None:
                    await asyncio.sleep(_LOOK_EVERY_SEC)  # the service has taken them, and gives them back or delivers them
                before, waiting = waiting, await outbox.pending(only)
                if waiting < before:
                    limit.reschedule(asyncio.get_running_loop().time() + LONGEST_SEC)
    except TimeoutError:
        return f"InfluxDB did not take it within {LONGEST_SEC:g} s."
    except HistoryError as error:
        return str(error)
    finally:
        await outbox.give_back()
    return None


async def lacking_in(history: Reader, records: Sequence[DumpRecord]) -> list[DumpRecord]:
    """Those of ``records`` that the history has not. Raises ``HistoryError``."""
    there: set[str] = set()
    moments: set[tuple[str, str, str]] = set()
    for since_ns, until_ns in clusters(records):
        async for rows in rows_between(history, since_ns, until_ns):
            for place in range(0, len(rows), AT_ONCE):
                for found in records_of(rows[place : place + AT_ONCE]):
                    there.add(found.dump_id)
                    moments.add((found.timestamp, found.dom, found.vmid))
                await asyncio.sleep(0)
    return [one for one in records if one.dump_id not in there and (one.timestamp, one.dom, one.vmid) not in moments]


async def _lacking(history: Reader, entries: Sequence[Entry]) -> list[Entry]:
    """Without those that arrived when they were sent before."""
    unsure = [entry.record for entry in entries if entry.unsure]
    lacking = {record.dump_id for record in await lacking_in(history, unsure)}
    return [entry for entry in entries if not entry.unsure or entry.record.dump_id in lacking]


def _points(entries: Sequence[Entry]) -> tuple[list[tuple[Entry, Point]], list[tuple[Entry, str]]]:
    """The entries that have a point, and those whose record can be none, with the reason."""
    points: list[tuple[Entry, Point]] = []
    impossible: list[tuple[Entry, str]] = []
    for entry in entries:
        try:
            points.append((entry, point_of(entry.record)))
        except ValueError as error:
            impossible.append((entry, str(error)))
    return points, impossible
