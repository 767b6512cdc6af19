"""The chain of the audit trail: the first entry that was changed, inserted or removed is named, and the table refuses all three."""

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.access.audit import SCHEMA, append, entries_in, note
from app.access.chain import EMPTY, Detail, Entry, Head, Witness, canonical, line_of, look_over, read_head
from app.statefile import run_script

TEXTS = st.text(max_size=20)
DETAILS = st.dictionaries(st.text(max_size=5), st.none() | st.booleans() | st.integers() | TEXTS, max_size=3)


def chain_of(said: Sequence[tuple[str, Mapping[str, Detail]]]) -> list[Entry]:
    entries: list[Entry] = []
    for number, (subject, details) in enumerate(said, 1):
        previous = entries[-1].hash if entries else EMPTY.hash
        entries.append(
            Entry(
                number=number,
                at="2026-11-23T10:30:00.000000Z",
                who="admin",
                via="token",
                origin="127.0.0.1",
                deed="dump",
                subject=subject,
                result="done",
                details=details,
                previous=previous,
            ).sealed()
        )
    return entries


CHAINS = st.lists(st.tuples(TEXTS, DETAILS), min_size=1, max_size=8).map(chain_of)
MEMBERS = ("at", "who", "via", "origin", "deed", "subject", "result", "previous", "hash")


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        run_script(connection, SCHEMA)
        yield connection


def written(db: sqlite3.Connection) -> list[Entry]:
    return list(entries_in(db))


def without_triggers(db: sqlite3.Connection) -> None:
    for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
        db.execute(f"DROP TRIGGER {name}")


def numbered(entries: Sequence[Entry]) -> list[Entry]:
    return [replace(entry, number=number) for number, entry in enumerate(entries, 1)]


@given(CHAINS)
def test_an_untouched_chain_is_whole(entries: list[Entry]) -> None:
    found = look_over(entries, [Witness(entry.hash, "the log", entry.number) for entry in entries])
    assert (found.first_wrong, found.head) == (None, entries[-1].head)


@given(CHAINS, st.data())
def test_a_change_of_anything_is_named(entries: list[Entry], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(entries) - 1))
    member = data.draw(st.sampled_from(MEMBERS))
    other = data.draw(TEXTS.filter(lambda text: text != getattr(entries[place], member)))
    entries[place] = replace(entries[place], **{member: other})  # type: ignore[arg-type]  # all of these are texts
    assert look_over(entries).first_wrong == place + 1


@given(CHAINS, DETAILS, st.data())
def test_a_change_of_details_is_named(entries: list[Entry], details: dict[str, Detail], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(entries) - 1))
    if canonical(details) == canonical(entries[place].details):
        return
    entries[place] = replace(entries[place], details=details)
    assert look_over(entries).first_wrong == place + 1


@given(CHAINS, st.data())
def test_a_change_with_a_hash_of_its_own_is_named_by_the_next_entry(entries: list[Entry], data: st.DataObject) -> None:
    if len(entries) == 1:
        return
    place = data.draw(st.integers(0, len(entries) - 2))
    entries[place] = replace(entries[place], who="somebody else").sealed()
    assert look_over(entries).first_wrong == place + 1


@given(CHAINS, st.booleans(), st.data())
def test_a_removed_entry_is_named_also_when_the_rest_is_numbered_anew(
    entries: list[Entry], anew: bool, data: st.DataObject
) -> None:
    if len(entries) == 1:
        return
    place = data.draw(st.integers(0, len(entries) - 2))
    del entries[place]
    assert look_over(numbered(entries) if anew else entries).first_wrong == place + 1


@given(CHAINS, st.booleans(), st.data())
def test_an_inserted_entry_is_named(entries: list[Entry], linked: bool, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(entries) - 1))
    previous = entries[place - 1].hash if place and linked else EMPTY.hash if linked else "f" * 64
    inserted = replace(entries[0], number=place + 1, who="nobody", previous=previous).sealed()
    found = look_over(numbered([*entries[:place], inserted, *entries[place:]]))
    assert found.first_wrong in ({place + 1} if linked or not place else {place, place + 1})


@given(CHAINS, st.data())
def test_a_cut_off_tail_is_named_by_a_head_that_was_told_elsewhere(entries: list[Entry], data: st.DataObject) -> None:
    kept = data.draw(st.integers(0, len(entries) - 1))
    found = look_over(entries[:kept], [Witness(entries[-1].hash, "the log", len(entries))])
    assert found.first_wrong == kept + 1
    assert f"the log tells of entry {len(entries)}" in found.message


@given(CHAINS, st.data())
def test_a_chain_that_was_written_anew_is_named_by_a_head_that_was_told_elsewhere(
    entries: list[Entry], data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(entries) - 1))
    said = [(entry.subject, dict(entry.details)) for entry in entries]
    said[place] = ("something else entirely, longer than twenty", {})
    found = look_over(chain_of(said), [Witness(entry.hash, "the log", entry.number) for entry in entries])
    assert found.first_wrong == place + 1


@given(CHAINS, st.data())
def test_a_cut_off_tail_is_named_by_hashes_alone(entries: list[Entry], data: st.DataObject) -> None:
    kept = data.draw(st.integers(0, len(entries) - 1))
    found = look_over(entries[:kept], [Witness(entry.hash, "a manifest") for entry in entries])
    assert found.first_wrong == kept + 1


@given(CHAINS, st.data())
def test_a_chain_that_was_written_anew_is_named_by_hashes_alone(entries: list[Entry], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(entries) - 1))
    said = [(entry.subject, dict(entry.details)) for entry in entries]
    said[place] = ("something else entirely, longer than twenty", {})
    found = look_over(chain_of(said), [Witness(entry.hash, "a manifest") for entry in entries])
    assert found.first_wrong == place + 1


@given(CHAINS, st.data())
def test_whatever_is_told_of_what_is_there_the_chain_is_whole(entries: list[Entry], data: st.DataObject) -> None:
    told = data.draw(st.lists(st.sampled_from(entries)))
    witnesses = [Witness(entry.hash, "", entry.number if data.draw(st.booleans()) else None) for entry in told]
    assert look_over(entries, witnesses).first_wrong is None


def test_the_table_refuses_change_removal_and_insertion(db: sqlite3.Connection) -> None:
    for subject in ("a", "b", "c"):
        append(db, note("dump", subject))
    row = "at, who, via, origin, deed, subject, result, details, previous, hash FROM audit WHERE number = 1"
    for statement in (
        "UPDATE audit SET who = 'x' WHERE number = 2",
        "DELETE FROM audit WHERE number = 3",
        f"INSERT INTO audit SELECT 0, {row}",
        f"INSERT OR REPLACE INTO audit SELECT 2, {row}",
        f"INSERT INTO audit SELECT 7, {row}",
    ):
        with pytest.raises(sqlite3.IntegrityError, match="the audit trail"):
            db.execute(statement)
    assert look_over(written(db)).first_wrong is None


@pytest.mark.parametrize(
    "change",
    [
        'UPDATE audit SET details = \'{"job_id": "1"}\' WHERE number = 2',
        "UPDATE audit SET details = '{' WHERE number = 2",
        "UPDATE audit SET details = printf('%.*c', 100000, '[') WHERE number = 2",
        "UPDATE audit SET who = CAST(x'ff' AS TEXT) WHERE number = 2",
        "UPDATE audit SET subject = subject || char(0) WHERE number = 2",
    ],
)
def test_what_is_changed_in_the_file_behind_the_triggers_is_named(db: sqlite3.Connection, change: str) -> None:
    for subject in ("a", "b", "c"):
        append(db, note("dump", subject, job_id="1"))
    without_triggers(db)
    db.execute(change)
    assert look_over(written(db)).first_wrong == 2


def test_whatever_somebody_sends_can_be_kept_and_stays_whole(db: sqlite3.Connection) -> None:
    for text in ("\udc80", "\0", "ü" * 5000, '"\\', "\u2028", "\ud800\udc00"):
        append(db, note("refusal", text, who=text, detail=text))
    entries = written(db)
    assert look_over(entries).first_wrong is None
    assert max(len(entry.subject) for entry in entries) == 1000


def test_a_line_without_its_hash_is_what_was_hashed(db: sqlite3.Connection, tmp_path: Path) -> None:
    import hashlib
    import json

    entry = append(db, note("dump", "Zoë", jobs=2))
    members = json.loads(line_of(entry))
    hashed = members.pop("hash")
    text = json.dumps(members, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(text.encode()).hexdigest() == hashed


def test_a_head_reads_as_it_was_written() -> None:
    assert read_head(str(Head(7, "a" * 64))) == Head(7, "a" * 64)
    assert [read_head(text) for text in ("", "7", "7:", "x:" + "a" * 64, "7:" + "A" * 64, "7:" + "a" * 64 + "\n")] == [None] * 6
