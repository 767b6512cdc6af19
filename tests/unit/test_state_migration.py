"""A state file of an earlier format becomes one of this: nothing is lost, a copy is kept, and a migration that is cut short, by a
full disk or a SIGKILL, leaves the old file as it was."""

from __future__ import annotations

import contextlib
import sqlite3
import stat
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from app.errors import StateDamaged
from app.model import Manifest
from app.records.by_hand import record_by_hand
from app.records.index import RecordIndex
from app.records.pieces import haystack_of
from app.records.schema import SCHEMA, migrate
from app.records.search import Filters
from app.scope import Scope
from app.state import State
from app.statefile import FORMAT
from tests.other_process import beside, run
from tests.unit.test_index import decoded, listed, manifest_of

FORMAT_1 = """
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
OTHER_TABLES = """
CREATE TABLE tokens (token TEXT) STRICT;
INSERT INTO tokens VALUES ('kept');
PRAGMA user_version = 1;
"""
WAITS_WITHIN = """
import pathlib, sys
from app.records.schema import SCHEMA, migrate
from app.state import State
def waits(connection):
    migrate(connection)
    print("migrated", flush=True)
    sys.stdin.read()
State.open(pathlib.Path(sys.argv[1]), SCHEMA, migrate=waits)
"""
NO_ROOM = """
import pathlib, resource, sys
from app.errors import StateUnwritable
from app.records.schema import SCHEMA, migrate
from app.state import State
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    State.open(pathlib.Path(sys.argv[1]), SCHEMA, migrate=migrate)
except StateUnwritable as error:
    print(error)
"""
OPENS_WHEN_TOLD = """
import pathlib, sys
from app.records.schema import SCHEMA, migrate
from app.state import State
print("ready", flush=True)
sys.stdin.read()
State.open(pathlib.Path(sys.argv[1]), SCHEMA, migrate=migrate).close()
"""
OLD = [
    manifest_of(
        number, uuid="" if number % 3 else "u", domain_xml="<domain>\u00fc</domain>" if number % 2 else "", dom=f"a'\0{number}"
    )
    for number in (3, 1, 2, *range(10, 1200))
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """One of format 1, written as that version wrote it."""
    file = tmp_path / "state" / "memory-dumps.sqlite3"
    file.parent.mkdir()
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.executescript(f"BEGIN; {FORMAT_1} {OTHER_TABLES} COMMIT;")
        connection.execute("BEGIN")
        for manifest in OLD:
            add_as_format_1(connection, manifest)
        connection.execute("COMMIT")
    return file


def add_as_format_1(connection: sqlite3.Connection, manifest: Manifest) -> None:
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
    number = connection.execute(
        "INSERT INTO records (dump_id, timestamp, dom, vmid, uuid, sha256, stored_sha256, dump_path, gzip_size_bytes, "
        "duration_sec) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        row,
    ).lastrowid
    text = msgspec.json.encode(replace(manifest, domain_xml="")).decode()
    connection.execute("INSERT INTO manifests VALUES (?, ?, ?)", (number, text, manifest.domain_xml))


def content(file: Path) -> list[object]:
    """The format, the schema, and every row."""
    with contextlib.closing(sqlite3.connect(file)) as connection:
        schema = connection.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY name").fetchall()
        tables = [name for kind, name, sql in schema if kind == "table" and not sql.startswith("CREATE VIRTUAL")]
        rows = [connection.execute(f'SELECT * FROM "{name}"').fetchall() for name in tables]  # noqa: S608 - names of our own
        return [connection.execute("PRAGMA user_version").fetchone()[0], schema, rows]


def copy_of(file: Path) -> Path:
    return file.with_name(f"{file.name}.format-1.bak")


async def test_every_record_is_there_afterwards_under_its_number_and_can_be_searched(file: Path) -> None:
    with contextlib.closing(State.open(file, SCHEMA, migrate=migrate)) as state:
        index = RecordIndex(state)
        assert [await index.get(manifest.dump_id) for manifest in OLD] == OLD
        assert await index.newest() == len(OLD)
        assert (await index.since(0))[1] == listed(*OLD[:1000])
        assert (await index.since(1))[1][0] == listed(OLD[1])[0]
        newest_first = listed(*sorted(OLD, key=lambda one: one.timestamp, reverse=True))
        page = await index.page(Filters(), limit=2000)
        assert (decoded(page), page.count) == (newest_first, len(OLD))
        assert decoded(await index.page(Filters(q="A'\0" + "1199"), limit=10)) == newest_first[:1]
        assert (await index.stats()).total_size_bytes == sum(one.gzip_size_bytes for one in OLD)
        assert sum(vm.total_dumps for vm in await index.stats_by_vm("2026", "2027")) == len(OLD)
        assert await index.add(manifest_of(5000))
        assert await index.newest() == len(OLD) + 1
        assert not await index.add(OLD[0])
        assert await state.read(lambda connection: connection.execute("SELECT token FROM tokens").fetchall()) == [("kept",)]
        assert await state.read(lambda connection: connection.execute("PRAGMA foreign_key_check").fetchall()) == []
        assert await state.read(lambda connection: connection.execute("PRAGMA integrity_check").fetchall()) == [("ok",)]


def test_it_has_the_tables_of_a_new_file_and_none_besides(file: Path, tmp_path: Path) -> None:
    def tables(file: Path) -> set[tuple[str, str]]:
        with contextlib.closing(sqlite3.connect(file)) as connection:
            return set(connection.execute("SELECT name, sql FROM sqlite_schema WHERE name <> 'tokens'"))

    State.open(file, SCHEMA, migrate=migrate).close()
    State.open(tmp_path / "new.sqlite3", SCHEMA).close()
    assert tables(file) == tables(tmp_path / "new.sqlite3")


def test_a_copy_for_its_owner_alone_holds_what_the_old_file_held(file: Path) -> None:
    before = content(file)
    State.open(file, SCHEMA, migrate=migrate).close()
    assert content(copy_of(file)) == before
    assert stat.S_IMODE(copy_of(file).stat().st_mode) == 0o600
    assert sorted(path.name for path in file.parent.iterdir()) == [file.name, copy_of(file).name]


def test_a_second_start_migrates_and_copies_nothing(file: Path) -> None:
    State.open(file, SCHEMA, migrate=migrate).close()
    copy_of(file).unlink()
    after = content(file)
    State.open(file, SCHEMA, migrate=migrate).close()
    assert content(file) == after
    assert not copy_of(file).exists()


def test_a_sigkill_before_the_commit_leaves_the_old_file_and_the_next_start_migrates_it(file: Path) -> None:
    before = content(file)
    with beside(WAITS_WITHIN, file) as migrating:
        assert migrating.line() == "migrated"
        migrating.kill()
    assert content(file) == before
    State.open(file, SCHEMA, migrate=migrate).close()
    assert content(file)[0] == FORMAT
    assert content(copy_of(file)) == before


@pytest.mark.parametrize("room_bytes", [65_536, 2_500_000])
def test_without_room_for_the_copy_or_the_new_tables_the_old_file_stays(file: Path, room_bytes: int) -> None:
    before = content(file)
    refused = run(NO_ROOM, file, room_bytes)
    assert refused.returncode == 0, refused.stderr
    assert f"{file} cannot be written" in refused.stdout
    assert content(file) == before
    assert not list(file.parent.glob("*.partial"))
    State.open(file, SCHEMA, migrate=migrate).close()
    assert content(copy_of(file)) == before


def test_of_two_that_start_at_once_one_migrates_and_both_go_on(file: Path) -> None:
    before = content(file)
    with beside(OPENS_WHEN_TOLD, file) as one, beside(OPENS_WHEN_TOLD, file) as other:
        assert [one.line(), other.line()] == ["ready", "ready"]
        one.go_on()
        other.go_on()
        assert [one.end(), other.end()] == [0, 0]
    assert content(file)[0] == FORMAT
    assert content(copy_of(file)) == before


async def test_a_record_by_hand_migrates_too(file: Path) -> None:
    record_by_hand(file, manifest_of(5000))
    with contextlib.closing(State.open(file, SCHEMA, migrate=migrate)) as state:
        assert (await RecordIndex(state).page(Filters(), limit=1)).count == len(OLD) + 1


def test_who_cannot_migrate_refuses_an_old_file_and_leaves_it(file: Path) -> None:
    before = content(file)
    with pytest.raises(StateDamaged, match=rf"{file} .*older version"):
        State.open(file, SCHEMA)
    assert content(file) == before
    assert not copy_of(file).exists()


def test_a_record_that_cannot_be_read_stops_the_migration_and_is_named(file: Path) -> None:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("UPDATE manifests SET manifest = '{' WHERE number = 7")
        connection.commit()
    before = content(file)
    with pytest.raises(StateDamaged, match=f"{OLD[6].dump_id}.*cannot be read"):
        State.open(file, SCHEMA, migrate=migrate)
    assert content(file) == before


async def test_a_file_of_format_1_without_an_index_gets_one(tmp_path: Path) -> None:
    file = tmp_path / "memory-dumps.sqlite3"
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.executescript(OTHER_TABLES)
    with contextlib.closing(State.open(file, SCHEMA, migrate=migrate)) as state:
        assert await RecordIndex(state).add(manifest_of(1))


# --- from format 2 ------------------------------------------------------------------------------------------------

OF_FORMAT_3 = "    hypervisor TEXT NOT NULL,\n    one_group TEXT NOT NULL,\n", ", hypervisor, one_group)"
FORMAT_2 = SCHEMA.replace(OF_FORMAT_3[0], "").replace(OF_FORMAT_3[1], ")")
MOVED = [
    manifest_of(number, vmid=str(number % 7), hypervisor=("kvm-07", "kvm-08", "")[number // 7 % 3] if number % 7 > 3 else "kvm-07")
    for number in range(700)
]
"""Of seven VMs three were on several hypervisors."""


def add_as_format_2(connection: sqlite3.Connection, manifest: Manifest) -> None:
    key = (manifest.uuid, manifest.dom, manifest.vmid)
    add_vm = "INSERT OR IGNORE INTO vms (uuid, dom, vmid, haystack) VALUES (?, ?, ?, ?)"
    connection.execute(add_vm, (*key, haystack_of(*key)))
    (vm,) = connection.execute("SELECT vm FROM vms WHERE (uuid, dom, vmid) = (?, ?, ?)", key).fetchone()
    number = connection.execute(
        "INSERT INTO records (dump_id, timestamp, vm, dom, vmid, size_bytes, duration_sec, pause_ms, haystack) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(manifest.dump_id, manifest.timestamp, vm, manifest.dom, manifest.vmid, manifest.gzip_size_bytes),
            *(manifest.duration_sec, manifest.guest_pause_ms),
            haystack_of(manifest.sha256, manifest.stored_sha256, manifest.dump_path),
        ),
    ).lastrowid
    text = msgspec.json.encode({name: value for name, value in msgspec.to_builtins(manifest).items() if name not in LATER})
    connection.execute("INSERT INTO manifests VALUES (?, ?)", (number, text.decode()))
    connection.execute("INSERT INTO domain_xmls VALUES (?, ?)", (number, manifest.domain_xml))


LATER = ("group", "audit_head", "domain_xml")


@pytest.fixture
def file_2(tmp_path: Path) -> Path:
    file = tmp_path / "memory-dumps.sqlite3"
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.executescript(f"BEGIN; {FORMAT_2} PRAGMA user_version = 2; COMMIT; BEGIN;")
        for manifest in MOVED:
            add_as_format_2(connection, manifest)
        connection.execute("COMMIT")
    return file


async def test_vms_of_format_2_are_told_apart_by_their_hypervisors_and_nothing_else_changes(file_2: Path, tmp_path: Path) -> None:
    with (
        contextlib.closing(State.open(file_2, SCHEMA, migrate=migrate)) as old,
        contextlib.closing(State.open(tmp_path / "new.sqlite3", SCHEMA)) as new,
    ):
        migrated, made = RecordIndex(old), RecordIndex(new)
        await made.add_many(MOVED)
        assert [await migrated.get(manifest.dump_id) for manifest in MOVED] == MOVED
        for scope in (Scope(), *(Scope(hypervisors=(name,)) for name in ("kvm-07", "kvm-08", "kvm-09"))):
            filters = Filters(scope=scope)
            assert decoded(await migrated.page(filters, limit=1000)) == decoded(await made.page(filters, limit=1000))
            assert await migrated.stats(scope) == await made.stats(scope)
            assert await migrated.stats_by_vm(scope=scope) == await made.stats_by_vm(scope=scope)
            assert await migrated.stats_by_day(scope=scope) == await made.stats_by_day(scope=scope)
        assert await migrated.last_dumps() == await made.last_dumps()
        assert await migrated.add(manifest_of(5000, hypervisor="kvm-08", vmid="5"))
        for question in ("PRAGMA foreign_key_check", "SELECT * FROM vms GROUP BY uuid, dom, vmid, hypervisor HAVING count(*) > 1"):
            assert await old.read(lambda connection, question=question: connection.execute(question).fetchall()) == []  # type: ignore[misc]


def test_a_migrated_file_of_format_2_has_the_tables_of_a_new_one(file_2: Path, tmp_path: Path) -> None:
    State.open(file_2, SCHEMA, migrate=migrate).close()
    State.open(tmp_path / "new.sqlite3", SCHEMA).close()
    assert [content(file)[:2] for file in (file_2,)] == [content(tmp_path / "new.sqlite3")[:2]]
    assert file_2.with_name(f"{file_2.name}.format-2.bak").exists()
