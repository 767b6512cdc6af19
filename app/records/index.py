"""The index: the searchable collection of all records, in the state file.

A record is a row of ``records``, which holds what is searched and sorted by and nothing else, so that a search over a
million records reads little; the manifest it is a copy of is beside it in ``manifests``, without the domain's XML, which
is long and which no list shows. Records are only ever added.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from app.model import DumpRecord, Manifest, Stats
from app.state import State

SCHEMA = """
-- AUTOINCREMENT: a number is never given twice, so "what came after number n" misses nothing. Writers take turns, so
-- numbers become visible in their order. Timestamps are RFC 3339, UTC, with six digits: as text they sort by time.
CREATE TABLE IF NOT EXISTS records (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    dump_id TEXT NOT NULL UNIQUE,
    timestamp TEXT NOT NULL,
    dom TEXT NOT NULL,
    vmid TEXT NOT NULL,
    uuid TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    stored_sha256 TEXT NOT NULL,
    dump_path TEXT NOT NULL,
    gzip_size_bytes INTEGER NOT NULL,
    duration_sec REAL NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS records_newest_first ON records (timestamp DESC, dump_id DESC);

CREATE TABLE IF NOT EXISTS manifests (
    number INTEGER PRIMARY KEY REFERENCES records,
    manifest TEXT NOT NULL,
    domain_xml TEXT NOT NULL
) STRICT;

-- One row a VM, kept up to date by a trigger: totals and newest dumps are asked for after every dump, and cost what the
-- number of VMs is. Over the records themselves, even with a covering index, a million of them took 100 ms each time.
-- A VM is its uuid; where a record has none, its (dom, vmid).
CREATE TABLE IF NOT EXISTS recorded_vms (
    uuid TEXT NOT NULL,
    dom TEXT NOT NULL,
    vmid TEXT NOT NULL,
    dumps INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    duration_sec REAL NOT NULL,
    newest TEXT NOT NULL,
    PRIMARY KEY (uuid, dom, vmid)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS records_count AFTER INSERT ON records BEGIN
    INSERT INTO recorded_vms VALUES (
        NEW.uuid,
        CASE NEW.uuid WHEN '' THEN NEW.dom ELSE '' END,
        CASE NEW.uuid WHEN '' THEN NEW.vmid ELSE '' END,
        1,
        NEW.gzip_size_bytes,
        NEW.duration_sec,
        NEW.timestamp
    ) ON CONFLICT DO UPDATE SET
        dumps = dumps + 1,
        size_bytes = size_bytes + excluded.size_bytes,
        duration_sec = duration_sec + excluded.duration_sec,
        newest = max(newest, excluded.newest);
END;
"""

_ADD = """
INSERT INTO records
    (dump_id, timestamp, dom, vmid, uuid, sha256, stored_sha256, dump_path, gzip_size_bytes, duration_sec)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
# The page is chosen within the index alone; manifests are fetched only for the rows that are on it.
_PAGE = """
WITH page AS (SELECT number, timestamp, dump_id FROM records ORDER BY timestamp DESC, dump_id DESC LIMIT ? OFFSET ?)
SELECT manifest FROM page JOIN manifests USING (number) ORDER BY timestamp DESC, dump_id DESC
"""
_STATS = """
SELECT coalesce(sum(dumps), 0), count(*), coalesce(sum(size_bytes), 0), coalesce(sum(duration_sec) / sum(dumps), 0.0), max(newest)
FROM recorded_vms
"""

_decoder = msgspec.json.Decoder(Manifest)


@dataclass(frozen=True, slots=True)
class Page:
    """Some records, and how many there are in all."""

    records: tuple[DumpRecord, ...]
    count: int


class RecordIndex:
    """Every query over records. Records in lists have no ``domain_xml``; ``get`` gives it. All raise ``StateError``."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def add(self, manifest: Manifest) -> bool:
        """Keep the record of ``manifest``, durably. False, and nothing changes, if its ``dump_id`` is known already."""
        return await self._state.run(lambda connection: _add(connection, manifest))

    async def page(self, limit: int, offset: int) -> Page:
        """``limit`` records, newest first, after the first ``offset``."""

        def work(connection: sqlite3.Connection) -> Page:
            count = connection.execute("SELECT coalesce(sum(dumps), 0) FROM recorded_vms").fetchone()[0]
            return Page(_records(text for (text,) in connection.execute(_PAGE, (limit, offset))), count)

        return await self._state.read(work)

    async def get(self, dump_id: str) -> DumpRecord | None:
        """The whole manifest of one dump."""

        def work(connection: sqlite3.Connection) -> DumpRecord | None:
            found = connection.execute(
                "SELECT manifest, domain_xml FROM records JOIN manifests USING (number) WHERE dump_id = ?", (dump_id,)
            ).fetchone()
            return replace(_decoder.decode(found[0]), domain_xml=found[1]) if found else None

        return await self._state.read(work)

    async def stats(self) -> Stats:
        """Totals over all records."""

        def work(connection: sqlite3.Connection) -> Stats:
            dumps, vms, size_bytes, average_sec, newest = connection.execute(_STATS).fetchone()
            return Stats(
                total_dumps=dumps,
                total_vms=vms,
                total_size_bytes=size_bytes,
                avg_duration_sec=average_sec,
                last_dump=newest,
            )

        return await self._state.read(work)

    async def last_dumps(self) -> dict[str, str]:
        """The timestamp of the newest record of each VM that has a uuid, by that."""
        return await self._state.read(
            lambda connection: dict(connection.execute("SELECT uuid, newest FROM recorded_vms WHERE uuid <> ''").fetchall())
        )

    async def known(self) -> frozenset[str]:
        """Every ``dump_id``."""
        return await self._state.read(
            lambda connection: frozenset(dump_id for (dump_id,) in connection.execute("SELECT dump_id FROM records"))
        )

    async def newest(self) -> int:
        """The number of the newest record, 0 if there is none."""
        return await self._state.read(_newest)

    async def since(self, number: int) -> tuple[int, tuple[DumpRecord, ...]]:
        """The newest number in the index (0: none), and the records with a number above ``number`` in their order.

        So the service learns what another process added. The records of a long absence come all at once.
        """

        def work(connection: sqlite3.Connection) -> tuple[int, tuple[DumpRecord, ...]]:
            rows = connection.execute("SELECT manifest FROM manifests WHERE number > ? ORDER BY number", (number,))
            return _newest(connection), _records(text for (text,) in rows)

        return await self._state.read(work)


def record_by_hand(state_file: Path, manifest: Manifest) -> None:
    """Keep the record of ``manifest`` from a process that has no service in it. Blocks. Raises ``StateError``."""
    state = State.open(state_file, SCHEMA)
    try:
        state.run_now(lambda connection: _add(connection, manifest))
    finally:
        state.close()


def _add(connection: sqlite3.Connection, manifest: Manifest) -> bool:
    if connection.execute("SELECT 1 FROM records WHERE dump_id = ?", (manifest.dump_id,)).fetchone():
        return False  # nothing is written, so nobody is told of news (ON CONFLICT DO NOTHING would use up a number)
    row = (
        manifest.dump_id,
        manifest.timestamp,
        manifest.dom,
        manifest.vmid,
        manifest.uuid,
        manifest.sha256,
        manifest.stored_sha256,
        manifest.dump_path,
        manifest.gzip_size_bytes,
        float(manifest.duration_sec),
    )
    number = connection.execute(_ADD, row).lastrowid
    text = msgspec.json.encode(replace(manifest, domain_xml="")).decode()
    connection.execute("INSERT INTO manifests VALUES (?, ?, ?)", (number, text, manifest.domain_xml))
    return True


def _newest(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT coalesce(max(number), 0) FROM records").fetchone()[0])


def _records(texts: Iterable[str]) -> tuple[DumpRecord, ...]:
    return tuple(_decoder.decode(text) for text in texts)
