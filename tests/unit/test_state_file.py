"""What may be wrong with the state file or its folder, and what is said about it; and how the file is made."""

import contextlib
import os
import sqlite3
import stat
import tempfile
from itertools import takewhile
from pathlib import Path

import pytest

from app.errors import StateDamaged, StateUnwritable
from app.state import State, lock_state
from app.statefile import FORMAT
from tests.other_process import run

SCHEMA = "CREATE TABLE IF NOT EXISTS words (number INTEGER PRIMARY KEY, word TEXT NOT NULL UNIQUE) STRICT;"

TRY_AS_NOBODY = """
import os, pathlib, sys
from app.errors import StateUnwritable
from app.state import State, lock_state
file = pathlib.Path(sys.argv[1])
if os.geteuid() == 0:
    os.setresuid(65534, 65534, 65534)
for attempt in (lambda: State.open(file, sys.argv[2]), lambda: lock_state(file.parent)):
    try:
        attempt()
    except StateUnwritable as error:
        print(error)
"""
# RLIMIT_FSIZE stands in for the full disk: the kernel refuses to let the files grow.
FILL_THE_DISK = """
import pathlib, resource, sys
from app.errors import StateUnwritable
from app.state import State
state = State.open(pathlib.Path(sys.argv[1]), sys.argv[2])
def add(word):
    state.run_now(lambda connection: connection.execute("INSERT INTO words (word) VALUES (?)", (word,)).rowcount)
add("before")
unlimited = resource.RLIM_INFINITY
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, unlimited))
try:
    add("x" * 1_000_000)
except StateUnwritable as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (unlimited, unlimited))
add("after")
state.close()
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "memory-dumps.sqlite3"


def add(state: State, word: str) -> None:
    state.run_now(lambda connection: connection.execute("INSERT INTO words (word) VALUES (?)", (word,)).rowcount)


def words(connection: sqlite3.Connection) -> list[str]:
    return [word for (word,) in connection.execute("SELECT word FROM words ORDER BY number")]


def one(state: State, question: str) -> object:
    return state.run_now(lambda connection: connection.execute(question).fetchone()[0])


# --- how it is made -----------------------------------------------------------------------------------------------


def test_the_files_are_for_their_owner_alone_whatever_the_umask(file: Path) -> None:
    previous = os.umask(0)
    try:
        with contextlib.closing(State.open(file, SCHEMA)) as state, contextlib.closing(lock_state(file.parent)):
            add(state, "x")
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (file.parent, *file.parent.iterdir())}
    finally:
        os.umask(previous)
    assert modes == {
        "state": 0o700,
        "service.lock": 0o600,
        file.name: 0o600,
        f"{file.name}-wal": 0o600,
        f"{file.name}-shm": 0o600,
    }


def test_every_commit_is_synced_to_a_write_ahead_log(file: Path) -> None:
    with contextlib.closing(State.open(file, SCHEMA)) as state:
        assert one(state, "PRAGMA journal_mode") == "wal"
        assert one(state, "PRAGMA synchronous") == 2


def test_foreign_keys_are_enforced(file: Path) -> None:
    children = "CREATE TABLE IF NOT EXISTS children (number INTEGER REFERENCES words) STRICT;"
    with (
        contextlib.closing(State.open(file, SCHEMA, children)) as state,
        pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"),
    ):
        state.run_now(lambda connection: connection.execute("INSERT INTO children VALUES (7)").rowcount)


def test_a_schema_that_fails_halfway_leaves_no_table(file: Path) -> None:
    with pytest.raises(sqlite3.OperationalError):
        State.open(file, SCHEMA, "CREATE TABLE nonsense (x NO_SUCH_TYPE) STRICT;")
    with contextlib.closing(State.open(file)) as state:
        assert one(state, "SELECT count(*) FROM sqlite_schema") == 0


def test_a_later_schema_is_added_to_an_existing_file(file: Path) -> None:
    with contextlib.closing(State.open(file, SCHEMA)) as state:
        add(state, "old")
    with contextlib.closing(State.open(file, SCHEMA, "CREATE TABLE IF NOT EXISTS more (x TEXT) STRICT;")) as state:
        assert one(state, "SELECT count(*) FROM more") == 0
        assert state.run_now(words) == ["old"]


# --- what may be wrong with it ------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"a text that stands in the place of a database\n" * 100, b"short"])
def test_a_file_that_is_no_database_is_named_and_left_as_it_is(file: Path, content: bytes) -> None:
    file.parent.mkdir()
    file.write_bytes(content)
    with pytest.raises(StateDamaged, match=rf"{file} is damaged.*move the file away.*read.* again from the manifests"):
        State.open(file, SCHEMA)
    assert file.read_bytes() == content


def test_damage_inside_the_file_is_reported_when_it_is_met(file: Path) -> None:
    with contextlib.closing(State.open(file, SCHEMA)) as state:
        for n in range(200):
            add(state, str(n) * 100)
    with file.open("r+b") as damaged:
        damaged.seek(4096)
        damaged.write(b"\xa5" * 12_288)
    with contextlib.closing(State.open(file, SCHEMA)) as state, pytest.raises(StateDamaged, match=rf"{file} is damaged"):
        state.run_now(words)


def test_a_file_that_was_cut_off_is_reported_as_damaged(file: Path) -> None:
    with contextlib.closing(State.open(file, SCHEMA)) as state:
        for n in range(200):
            add(state, str(n) * 100)
    os.truncate(file, 6000)
    with pytest.raises(StateDamaged, match=rf"{file} is damaged"), contextlib.closing(State.open(file, SCHEMA)) as state:
        state.run_now(words)


def test_a_file_of_a_newer_version_is_refused_and_left_as_it_is(file: Path) -> None:
    State.open(file, SCHEMA).close()
    with contextlib.closing(sqlite3.connect(file)) as newer:
        newer.execute(f"PRAGMA user_version={FORMAT + 1}")
    before = file.read_bytes()
    with pytest.raises(StateDamaged, match=rf"{file}.*newer version.*{FORMAT + 1}.*MEMDUMP_STATE_DIR"):
        State.open(file, SCHEMA, "CREATE TABLE more (x TEXT) STRICT;")
    assert file.read_bytes() == before


def test_a_file_where_the_folder_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("x")
    for folder in (tmp_path / "taken", tmp_path / "taken" / "below"):
        with pytest.raises(StateUnwritable, match=rf"{folder} cannot be written.*MEMDUMP_STATE_DIR"):
            State.open(folder / "memory-dumps.sqlite3", SCHEMA)
        with pytest.raises(StateUnwritable, match=rf"{folder} cannot be written.*MEMDUMP_STATE_DIR"):
            lock_state(folder)


def test_a_folder_where_the_file_should_be_is_named(file: Path) -> None:
    file.mkdir(parents=True)
    with pytest.raises(StateUnwritable, match=rf"{file} cannot be written.*MEMDUMP_STATE_DIR"):
        State.open(file, SCHEMA)


def test_who_may_only_read_is_told_so(file: Path, tmp_path: Path) -> None:
    """As another user when root runs the test, for root may do everything."""
    for folder in takewhile(lambda folder: folder != Path(tempfile.gettempdir()), (tmp_path, *tmp_path.parents)):
        folder.chmod(0o755)
    State.open(file, SCHEMA).close()
    file.parent.chmod(0o555)
    file.chmod(0o444)
    try:
        said = run(TRY_AS_NOBODY, file, SCHEMA).stdout.splitlines()
    finally:
        file.parent.chmod(0o700)
    assert [line.partition(" cannot be written")[0] for line in said] == [
        f"The state file {file}",
        f"The state directory {file.parent}",
    ]
    assert all("MEMDUMP_STATE_DIR" in line for line in said)


def test_a_full_disk_fails_the_write_keeps_what_was_there_and_room_mends_it(file: Path) -> None:
    writer = run(FILL_THE_DISK, file, SCHEMA)
    assert writer.returncode == 0, writer.stderr
    assert f"{file} cannot be written" in writer.stdout
    assert "Check its disk, and whether that is full" in writer.stdout
    with contextlib.closing(State.open(file, SCHEMA)) as state:
        assert state.run_now(words) == ["before", "after"]
