"""The audit trail from a command line: whole or not, compared with what the log says, and as JSON lines."""

import contextlib
import json
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from app.access.audit import SCHEMA, append, note
from app.access.audit_by_hand import export_by_hand, verify_by_hand
from app.access.chain import Entry
from app.config import Settings
from app.errors import StateMissing
from app.evidence import encode_manifest
from app.state import State
from tests.unit.test_lines import MANIFEST


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    names = {"DUMP_DIR": "dumps", "MEMDUMP_LOG_DIR": "log", "MEMDUMP_STATE_DIR": "state"}
    return Settings.from_environment({name: str(tmp_path / folder) for name, folder in names.items()})


def write(settings: Settings, *subjects: str) -> list[Entry]:
    with contextlib.closing(State.open(settings.state_file, SCHEMA)) as state:
        return [state.run_now(lambda db, subject=subject: append(db, note("dump", subject))) for subject in subjects]  # type: ignore[misc]


def tamper(settings: Settings, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(settings.state_file)) as db:
        db.executescript(f"DROP TRIGGER audit_is_not_changed; DROP TRIGGER audit_is_not_shortened; {statement}")


def log(settings: Settings, entries: list[Entry], name: str = "memdump_to_influx.log") -> None:
    settings.log_dir.mkdir(exist_ok=True)
    lines = [json.dumps({"ts": entry.at, "event": "audit", "head": str(entry.head)}) for entry in entries]
    (settings.log_dir / name).write_text("\n".join(["no JSON", '{"event": "audit", "head": 7}', *lines, '{"event": "audit"']))


def test_a_whole_trail_is_said_to_be_whole_and_which_head_it_has(settings: Settings) -> None:
    last = write(settings, "alpha", "beta")[-1]
    assert verify_by_hand(settings) == (
        [
            f"The audit trail is whole: 2 entries, head {last.head}.",
            f"Compared with 0 heads in the logs in {settings.log_dir}, and with 0 heads in the manifests in {settings.dump_dir}.",
        ],
        True,
    )


def test_the_first_wrong_entry_is_named(settings: Settings) -> None:
    write(settings, "alpha", "beta", "gamma")
    tamper(settings, "UPDATE audit SET who = 'somebody else' WHERE number = 2")
    told, well = verify_by_hand(settings)
    assert (told[:2], well) == (
        ["The audit trail is NOT whole. Entry 2 was changed.", "Up to entry 1 it holds."],
        False,
    )


def test_a_cut_off_tail_shows_in_the_logs_also_in_the_older_ones(settings: Settings) -> None:
    entries = write(settings, "alpha", "beta", "gamma", "delta")
    log(settings, entries[2:3], "memdump_to_influx.log.1")
    log(settings, entries[:1])
    tamper(settings, "DELETE FROM audit WHERE number > 1")
    told, well = verify_by_hand(settings)
    assert not well
    assert told[0].startswith("The audit trail is NOT whole. Entry 2 and what followed it was removed: the log ")
    assert told[0].endswith("memdump_to_influx.log.1 tells of entry 3.")


def test_a_cut_off_tail_shows_in_a_manifest(settings: Settings) -> None:
    entries = write(settings, "alpha", "beta", "gamma")
    settings.dump_dir.mkdir()
    for name, head in (("1", entries[0].hash), ("2", entries[2].hash), ("3", None), ("4", "nonsense")):
        (settings.dump_dir / f"{name}.mem.gz.manifest.json").write_bytes(encode_manifest(replace(MANIFEST, audit_head=head)))
    (settings.dump_dir / "5.mem.gz.manifest.json").write_text("{}")
    assert verify_by_hand(settings)[0][1].endswith(f"and with 2 heads in the manifests in {settings.dump_dir}.")
    tamper(settings, "DELETE FROM audit WHERE number > 2")
    assert verify_by_hand(settings)[0][0].endswith("2.mem.gz.manifest.json tells of one that is not there.")


def test_a_trail_that_is_gone_and_begun_anew_is_no_whole_one(settings: Settings) -> None:
    log(settings, write(settings, "alpha", "beta"))
    settings.state_file.unlink()
    write(settings, "other")
    assert verify_by_hand(settings)[0][0].startswith("The audit trail is NOT whole. Entry 1 was changed")


def test_every_entry_is_exported_as_a_line(settings: Settings) -> None:
    entries = write(settings, "alpha", "Zoë")
    lines: list[str] = []
    export_by_hand(settings, lines.append)
    assert [(said["number"], said["on"], said["hash"]) for said in map(json.loads, lines)] == [
        (entry.number, entry.subject, entry.hash) for entry in entries
    ]


def test_where_no_service_ever_ran_there_is_no_trail(settings: Settings) -> None:
    with pytest.raises(StateMissing):
        verify_by_hand(settings)
    assert not settings.state_file.exists()
