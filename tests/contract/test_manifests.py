"""The manifest is the truth, the record its copy: what stands in ``DUMP_DIR`` is found, live and by a rebuild."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import sys
from pathlib import Path

from app.access.audit import entries_in
from app.evidence import MANIFEST, encode_manifest, read_manifest
from tests.contract.conftest import VMS
from tests.contract.speech import JOBS, RECORDS, Api
from tests.contract.test_command_line import SCRIPT
from tests.nodes import node
from tests.service import ROOT, Service, running_service
from tests.thorough import thorough


async def ended(service: Service, *command: str, **settings: str) -> tuple[int, str]:
    """A command beside ``service``, to its end: its code and output."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, cwd=ROOT, env={**service.environment, **settings}, stdin=pipe, stdout=pipe
    )
    assert process.stdout is not None
    out = await process.stdout.read()
    return await process.wait(), out.decode()


async def test_a_manifest_that_is_left_by_hand_shows_up_live(tmp_path: Path) -> None:
    with running_service(tmp_path, LIBVIRT_URI=node(tmp_path / "node.xml", VMS)) as service:
        async with Api.of(service) as api, api.feed("topics=record,stats") as feed:
            await api.connected()
            await feed.next()
            code, out = await ended(service, str(SCRIPT), "--json", "--no-record", "alpha")
            assert code == 0
            told = await feed.until(lambda message: message["type"] == "stats")
            (record,) = (message["record"] for message in told if message["type"] == "record")
            assert record["dump_id"] == json.loads(out.splitlines()[-1])["manifest"]["dump_id"]
            # And with a state directory of its own.
            code, _ = await ended(service, str(SCRIPT), "--json", "beta", MEMDUMP_STATE_DIR=str(tmp_path / "other"))
            assert code == 0
            told = await feed.until(lambda message: message["type"] == "stats")
            assert [message["record"]["dom"] for message in told if message["type"] == "record"] == ["beta"]


def damage(path: Path) -> None:
    path.write_text("{")


async def test_a_manifest_that_is_damaged_is_told_once(tmp_path: Path) -> None:
    with running_service(tmp_path) as service:
        async with Api.of(service) as api, api.feed("topics=activity") as feed:
            await feed.next()
            damage(service.dump_dir / f"1_1.mem.gz{MANIFEST}")
            await feed.until(lambda message: message["activity"]["code"] == "manifest-damaged")


@thorough
async def test_a_manifest_that_was_not_whole_is_recorded_when_it_is(tmp_path: Path) -> None:
    with running_service(tmp_path, LIBVIRT_URI=node(tmp_path / "node.xml", VMS)) as service:
        async with Api.of(service) as api, api.feed("topics=activity,record") as feed:
            await api.connected()
            await feed.next()
            elsewhere = {"DUMP_DIR": str(tmp_path / "elsewhere"), "MEMDUMP_STATE_DIR": str(tmp_path / "other")}
            (tmp_path / "elsewhere").mkdir()
            for vm in ("alpha", "beta"):
                assert (await ended(service, str(SCRIPT), "--json", "--no-record", vm, **elsewhere))[0] == 0
            for number, manifest in enumerate(sorted((tmp_path / "elsewhere").glob(f"*{MANIFEST}"))):
                text = manifest.read_text()
                there = service.dump_dir / manifest.name
                there.write_text(text[:100])
                await feed.until(
                    lambda message: message["type"] == "activity" and message["activity"]["code"] == "manifest-damaged"
                )
                if number:  # the rest of it comes, or the whole in its place
                    there.write_text(text)
                else:
                    manifest.rename(there)
                await feed.until(lambda message: message["type"] == "record")


async def test_a_rebuild_beside_a_service_is_seen_live_and_twice_changes_nothing(tmp_path: Path) -> None:
    with running_service(tmp_path, LIBVIRT_URI=node(tmp_path / "node.xml", VMS)) as service:
        async with Api.of(service) as api:
            await api.connected()
            (job,) = await api.dump("alpha")
            elsewhere = copied_with_another_id(service.dump_dir, tmp_path / "elsewhere")
            async with api.feed("topics=record") as feed:
                await feed.next()
                code, out = await ended(service, "-m", "app", "records", "rebuild", DUMP_DIR=str(elsewhere))
                assert (code, "1 had no record" in out) == (0, True)
                (message,) = await feed.until(lambda message: message["type"] == "record")
                assert message["record"]["dump_id"] != job["dump_id"]
            code, out = await ended(service, "-m", "app", "records", "rebuild", DUMP_DIR=str(elsewhere))
            assert (code, "0 had no record" in out) == (0, True)
            assert (await api.get(RECORDS))["count"] == 2


def copied_with_another_id(source: Path, target: Path) -> Path:
    """A folder with the manifests of ``source``, as of other dumps."""
    target.mkdir()
    for path in source.glob(f"*{MANIFEST}"):
        text = encode_manifest(read_manifest(path)).decode()
        (target / path.name).write_text(text.replace('"dump_id": "0', '"dump_id": "f'))
    return target


def empty(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


async def test_a_state_file_that_was_lost_is_filled_again(tmp_path: Path) -> None:
    with running_service(tmp_path, LIBVIRT_URI=node(tmp_path / "node.xml", VMS)) as service:
        async with Api.of(service) as api:
            await api.connected()
            jobs = await api.dump("alpha", "beta")
            before = (await api.get(RECORDS))["records"]
    empty(service.state_dir)
    code, out = await ended(service, "-m", "app", "records", "rebuild")
    assert (code, "2 had no record" in out) == (0, True)
    service.restart()
    try:
        async with Api.of(service) as api:
            assert (await api.get(RECORDS))["records"] == before
            assert len(jobs) == 2
    finally:
        service.stop()
    assert sealed(service) == sorted((record["dump_id"], record["dom"], "admin", "command-line") for record in before)


def sealed(service: Service) -> list[tuple[object, ...]]:
    """Of which dumps the audit trail says that they were sealed: dump, VM, who, and what told it."""
    with contextlib.closing(sqlite3.connect(service.state_dir / "memory-dumps.sqlite3")) as db:
        entries = list(entries_in(db))
    told = [entry for entry in entries if (entry.deed, entry.result) == ("dump", "sealed")]
    return sorted((entry.details["dump_id"], entry.subject, entry.who, entry.via) for entry in told)


async def test_of_each_dump_the_audit_trail_says_once_that_it_was_sealed_whenever_its_record_was_made(tmp_path: Path) -> None:
    with running_service(tmp_path, LIBVIRT_URI=node(tmp_path / "node.xml", VMS)) as service:
        async with Api.of(service) as api:
            await api.connected()
            (job,) = await api.dump("alpha")
        service.stop()
        with contextlib.closing(sqlite3.connect(service.state_dir / "memory-dumps.sqlite3")) as db:  # died before its last word
            unended = "UPDATE jobs SET phase = 'recording', job = json_set(job, '$.phase', 'recording') WHERE job_id = ?"
            assert db.execute(unended, (job["job_id"],)).rowcount == 1
            db.commit()
        copied = copied_with_another_id(service.dump_dir, tmp_path / "elsewhere")
        for manifest in copied.iterdir():
            manifest.rename(service.dump_dir / f"copy-{manifest.name}")
        service.restart()
        try:
            async with Api.of(service) as api:
                assert (await api.get(f"{JOBS}/{job['job_id']}"))["phase"] == "completed"
                records = (await api.get(RECORDS))["records"]
        finally:
            service.stop()
        assert len(records) == 2
        assert sealed(service) == sorted((record["dump_id"], "alpha", "admin", "service") for record in records)


async def test_to_deliver_there_has_to_be_a_shared_history(tmp_path: Path) -> None:
    with running_service(tmp_path) as service:
        code, _ = await ended(service, "-m", "app", "records", "rebuild", "--deliver")
        assert code == 2
        code, _ = await ended(service, "-m", "app", "records", "rebuild", "--else")
        assert code == 2
        code, _ = await ended(service, "-m", "app", "records", "rebuild", DUMP_DIR=str(tmp_path / "nowhere"))
        assert code == 1
