"""The tables of the index, how a record comes into them, and how those of earlier formats become them.

Everything that is asked for often is kept ready when a record is added: its place in each order, the JSON that lists show,
the totals by VM and day. A question costs what its answer is long, not what the index holds.
"""

from __future__ import annotations

import sqlite3
from dataclasses import replace

import msgspec

from app.errors import StateDamaged
from app.model import Manifest
from app.records.pieces import as_characters, haystack_of
from app.statefile import run_script

SCHEMA = """
-- A VM as it was when it was dumped; one that was renamed, moved, or got another vmid or group ('' is none), has several rows.
-- A search looks for names here, where each stands once, and in the haystack of a record for its hashes and path. Rows are only
-- added, and what a scope looks at in them never changes (covered.py).
CREATE TABLE IF NOT EXISTS vms (
    vm INTEGER PRIMARY KEY,
    uuid TEXT NOT NULL,
    dom TEXT NOT NULL,
    vmid TEXT NOT NULL,
    hypervisor TEXT NOT NULL,
    one_group TEXT NOT NULL,
    dumps INTEGER NOT NULL DEFAULT 0,
    size_bytes INTEGER NOT NULL DEFAULT 0,
    duration_sec REAL NOT NULL DEFAULT 0.0,
    newest TEXT NOT NULL DEFAULT '',
    haystack BLOB NOT NULL,
    UNIQUE (uuid, dom, vmid, hypervisor, one_group)
) STRICT;

-- AUTOINCREMENT: a number is never given twice, so "what came after number n" misses nothing. Writers take turns, so
-- numbers become visible in their order. Timestamps are RFC 3339, UTC, with six digits: as text they sort by time.
CREATE TABLE IF NOT EXISTS records (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    dump_id TEXT NOT NULL UNIQUE,
    timestamp TEXT NOT NULL,
    vm INTEGER NOT NULL REFERENCES vms,
    dom TEXT NOT NULL,
    vmid TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    duration_sec REAL NOT NULL,
    pause_ms REAL NOT NULL,
    haystack BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS records_by_time ON records (timestamp, dump_id);
CREATE INDEX IF NOT EXISTS records_by_vm ON records (vm, timestamp, dump_id);
CREATE INDEX IF NOT EXISTS records_by_dom ON records (dom, timestamp, dump_id);
CREATE INDEX IF NOT EXISTS records_by_vmid ON records (vmid, timestamp, dump_id);
CREATE INDEX IF NOT EXISTS records_by_dom_and_vmid ON records (dom, vmid, timestamp, dump_id);

-- As the API shows it. What no list shows stands apart: it is long, and would lie between the rows of a list.
CREATE TABLE IF NOT EXISTS manifests (
    number INTEGER PRIMARY KEY REFERENCES records,
    manifest TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS domain_xmls (
    number INTEGER PRIMARY KEY REFERENCES records,
    domain_xml TEXT NOT NULL
) STRICT;

-- Which records hold three bytes in a row. To add a record by itself would make every commit several times as dear, so they
-- come in hundreds at a time; those with a number above indexed_to are looked through one by one.
CREATE VIRTUAL TABLE IF NOT EXISTS trigrams USING fts5 (
    haystack, content = '', columnsize = 0, detail = none, tokenize = 'trigram case_sensitive 1'
);
CREATE TABLE IF NOT EXISTS trigrams_reach (indexed_to INTEGER NOT NULL) STRICT;
INSERT INTO trigrams_reach SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM trigrams_reach);

-- Totals of each month and day, for each VM, and as VM 0 for all. Of a timestamp a month is the first 7 characters, a day 10.
CREATE TABLE IF NOT EXISTS spans (
    vm INTEGER NOT NULL,
    width INTEGER NOT NULL,
    span TEXT NOT NULL,
    dumps INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    duration_sec REAL NOT NULL,
    pause_ms REAL NOT NULL,
    longest_pause_ms REAL NOT NULL,
    newest TEXT NOT NULL,
    PRIMARY KEY (vm, width, span)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS records_total AFTER INSERT ON records BEGIN
    UPDATE vms SET
        dumps = dumps + 1,
        size_bytes = size_bytes + NEW.size_bytes,
        duration_sec = duration_sec + NEW.duration_sec,
        newest = max(newest, NEW.timestamp)
    WHERE vm = NEW.vm;
    INSERT INTO spans SELECT
        column1, column2, substr(NEW.timestamp, 1, column2),
        1, NEW.size_bytes, NEW.duration_sec, NEW.pause_ms, NEW.pause_ms, NEW.timestamp
    FROM (VALUES (0, 7), (0, 10), (NEW.vm, 7), (NEW.vm, 10)) WHERE true
    ON CONFLICT DO UPDATE SET
        dumps = dumps + 1,
        size_bytes = size_bytes + excluded.size_bytes,
        duration_sec = duration_sec + excluded.duration_sec,
        pause_ms = pause_ms + excluded.pause_ms,
        longest_pause_ms = max(longest_pause_ms, excluded.longest_pause_ms),
        newest = max(newest, excluded.newest);
END;
"""

_ADD = """
INSERT INTO records (number, dump_id, timestamp, vm, dom, vmid, size_bytes, duration_sec, pause_ms, haystack)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
TRIGRAMS_AT_ONCE = 512

_decoder = msgspec.json.Decoder(Manifest)


def add_to(connection: sqlite3.Connection, manifest: Manifest) -> bool:
    """Keep the record of ``manifest`` within the transaction that is open. False if its ``dump_id`` is known already; then nothing
    changes, but that a record which came without it gets the domain's XML: the shared history has none."""
    known = connection.execute("SELECT number FROM records WHERE dump_id = ?", (manifest.dump_id,)).fetchone()
    if known is not None:  # nobody is told of news (ON CONFLICT DO NOTHING would use up a number)
        if manifest.domain_xml and not connection.execute("SELECT 1 FROM domain_xmls WHERE number = ?", known).fetchone():
            connection.execute("INSERT INTO domain_xmls VALUES (?, ?)", (*known, manifest.domain_xml))
        return False
    number = _insert(connection, manifest)
    reach = _reach(connection)
    if number - reach >= TRIGRAMS_AT_ONCE:
        _index_trigrams(connection, reach)
    return True


def _insert(connection: sqlite3.Connection, manifest: Manifest, number: int | None = None) -> int:
    row = (
        number,
        manifest.dump_id,
        manifest.timestamp,
        _vm(connection, manifest.uuid, manifest.dom, manifest.vmid, manifest.hypervisor, manifest.group or ""),
        manifest.dom,
        manifest.vmid,
        manifest.gzip_size_bytes,
        float(manifest.duration_sec),
        float(manifest.guest_pause_ms),
        haystack_of(manifest.sha256, manifest.stored_sha256, manifest.dump_path),
    )
    given = int(connection.execute(_ADD, row).lastrowid or 0)
    shown = msgspec.to_builtins(manifest)
    domain_xml = shown.pop("domain_xml")
    connection.execute("INSERT INTO manifests VALUES (?, ?)", (given, msgspec.json.encode(shown).decode()))
    if domain_xml:
        connection.execute("INSERT INTO domain_xmls VALUES (?, ?)", (given, domain_xml))
    return given


def _vm(connection: sqlite3.Connection, *key: str) -> int:
    find = "SELECT vm FROM vms WHERE (uuid, dom, vmid, hypervisor, one_group) = (?, ?, ?, ?, ?)"
    found = connection.execute(find, key).fetchone()
    if found is None:
        add = "INSERT INTO vms (uuid, dom, vmid, hypervisor, one_group, haystack) VALUES (?, ?, ?, ?, ?, ?)"
        connection.execute(add, (*key, haystack_of(*key[:3])))
        found = connection.execute(find, key).fetchone()
    return int(found[0])


def _reach(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT indexed_to FROM trigrams_reach").fetchone()[0])


def _index_trigrams(connection: sqlite3.Connection, reach: int) -> None:
    rows = connection.execute("SELECT number, haystack FROM records WHERE number > ? ORDER BY number", (reach,))
    for number, haystack in rows:
        connection.execute("INSERT INTO trigrams (rowid, haystack) VALUES (?, ?)", (number, as_characters(haystack)))
        reach = number
    connection.execute("UPDATE trigrams_reach SET indexed_to = ?", (reach,))


def migrate(connection: sqlite3.Connection) -> None:
    """Make the tables of an earlier format those of this one, within the transaction that is open; numbers stay as they are.

    What is there tells which format that is: it may never have had an index.
    """
    if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'recorded_vms'").fetchone() is not None:
        _migrate_from_1(connection)
        return
    columns = {name for (name,) in connection.execute("SELECT name FROM pragma_table_info('vms')")}
    if columns and "hypervisor" not in columns:
        _migrate_from_2(connection)


def _migrate_from_1(connection: sqlite3.Connection) -> None:
    run_script(connection, _MOVE_ASIDE)
    run_script(connection, SCHEMA)
    old = "SELECT number, dump_id, manifest, domain_xml FROM records_1 JOIN manifests_1 USING (number) ORDER BY number"
    for number, dump_id, manifest, domain_xml in connection.execute(old):
        try:
            record = _decoder.decode(manifest)
        except msgspec.DecodeError as error:
            raise StateDamaged(f"The record of the dump {dump_id} cannot be read ({error}), so nothing was migrated.") from error
        _insert(connection, replace(record, domain_xml=domain_xml), number)
        if number % TRIGRAMS_AT_ONCE == 0:
            _index_trigrams(connection, _reach(connection))
    run_script(connection, "DROP TABLE manifests_1; DROP TABLE records_1;")


def _migrate_from_2(connection: sqlite3.Connection) -> None:
    """Tell VMs apart by their hypervisor, too. A group is in no record yet. A VM that was dumped on one hypervisor alone, as nearly
    all were, keeps its number and its totals; of one that was on several each but the first gets its own."""
    by_place = connection.execute(_BY_PLACE).fetchall()
    names = {vm: key for vm, *key in connection.execute("SELECT vm, uuid, dom, vmid, haystack FROM vms")}
    run_script(connection, "DROP TRIGGER records_total; DROP TABLE vms;")
    run_script(connection, SCHEMA)
    kept: set[int] = set()
    split: set[int] = set()
    last = max(names, default=0)
    for old, hypervisor, *totals in by_place:
        last += old in kept
        vm = last if old in kept else old
        kept.add(old)
        connection.execute(_ADD_VM, (vm, *names[old], hypervisor, *totals))
        if vm != old:
            connection.execute(_MOVE, (vm, old, hypervisor))
            split |= {old, vm}
    for vm in split:
        connection.execute("DELETE FROM spans WHERE vm = ?", (vm,))
        connection.execute(_ADD_UP, (vm,))


_MOVE_ASIDE = """
DROP TRIGGER records_count;
DROP INDEX records_newest_first;
DROP TABLE recorded_vms;
ALTER TABLE records RENAME TO records_1;
ALTER TABLE manifests RENAME TO manifests_1;
"""

_HYPERVISOR = "CASE WHEN json_valid(manifest) THEN coalesce(json_extract(manifest, '$.hypervisor'), '') ELSE '' END"
_BY_PLACE = f"""
SELECT vm, {_HYPERVISOR} AS hypervisor, count(*), sum(size_bytes), sum(duration_sec), max(timestamp)
FROM records JOIN manifests USING (number) GROUP BY 1, 2 ORDER BY 1, min(number)
"""
_ADD_VM = """
INSERT INTO vms (vm, uuid, dom, vmid, haystack, hypervisor, one_group, dumps, size_bytes, duration_sec, newest)
VALUES (?, ?, ?, ?, ?, ?, '', ?, ?, ?, ?)
"""
_MOVE = f"""
UPDATE records SET vm = ?
WHERE number IN (SELECT number FROM records JOIN manifests USING (number) WHERE vm = ? AND {_HYPERVISOR} = ?)
"""
_ADD_UP = """
INSERT INTO spans SELECT
    vm, width, substr(timestamp, 1, width),
    count(*), sum(size_bytes), sum(duration_sec), sum(pause_ms), max(pause_ms), max(timestamp)
FROM records INDEXED BY records_by_vm CROSS JOIN (SELECT column1 AS width FROM (VALUES (7), (10)))
WHERE vm = ? GROUP BY 1, 2, 3
"""
