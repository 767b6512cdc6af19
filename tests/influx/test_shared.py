"""Whole services on one shared history: every record is there once, in both places, whatever becomes of InfluxDB or of us.

Where a test names ``influx`` it runs against a real server too; where it names ``stand_in`` it needs its switches.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.records.influx import History
from app.records.point import point_of
from tests.contract.speech import RECORDS, Api, Feed, Message
from tests.histories import SEC_NS, manifest_at
from tests.influx.conftest import Influx
from tests.influx.stand_in import StandIn
from tests.nodes import Vm, node, numbered_uuid
from tests.service import ROOT, Service, running_service, service_environment
from tests.thorough import thorough

EVER = (0, 2**62)
NAMES = [f"one-{number}" for number in range(1, 11)]
VMS = [Vm(name=name, uuid=numbered_uuid(number)) for number, name in enumerate(NAMES, 1)]
SCRIPT = ROOT / "scripts" / "memdump.py"


def service_on(folder: Path, influx: Influx | StandIn, **more: str) -> contextlib.AbstractContextManager[Service]:
    """A service with a libvirt of its own and folders of its own, and this shared history."""
    return running_service(folder, LIBVIRT_URI=node_in(folder), **settings_of(influx), **more)


def node_in(folder: Path) -> str:
    """A hypervisor of its own in ``folder``, which has room for dumps."""
    (folder / "dumps").mkdir(parents=True, exist_ok=True)
    return node(folder / "node.xml", VMS)


def settings_of(influx: Influx | StandIn) -> dict[str, str]:
    return {"INFLUX_URL": influx.url, "INFLUX_DB": influx.database, "INFLUX_TOKEN": influx.token}


@contextlib.contextmanager
def reading(influx: Influx | StandIn) -> Iterator[History]:
    history = History(influx.url, influx.database, influx.token)
    try:
        yield history
    finally:
        history.close_now()


def dump_ids_in(influx: Influx | StandIn) -> list[str]:
    """Of every point, as often as it is there."""
    with reading(influx) as history:
        return [str(row["dump_id"]) for row in history.window_now(*EVER, limit=10_000)]


async def dump_ids_of(api: Api) -> list[str]:
    return [record["dump_id"] for record in (await api.get(f"{RECORDS}?limit=10000"))["records"]]


async def history_until(feed: Feed, fits: Callable[[Message], bool]) -> Message:
    """How the shared history is, as soon as it fits; from the snapshot on."""
    while True:
        message = await feed.next()
        if message["type"] in ("history", "snapshot") and fits(message["history"]):
            found: Message = message["history"]
            return found


def all_delivered(history: Message) -> bool:
    return (history["state"], history["pending"]) == ("connected", 0)


def told(message: Message) -> str | None:
    """The code of an activity line."""
    return str(message["activity"]["code"]) if message["type"] == "activity" else None


@contextlib.asynccontextmanager
async def spoken_to(service: Service) -> AsyncIterator[Api]:
    async with Api.of(service) as api:
        await api.connected()
        yield api


async def test_taken_away_in_the_middle_of_ten_dumps_and_given_back(tmp_path: Path, stand_in: StandIn) -> None:
    with service_on(tmp_path / "a", stand_in) as service:
        async with spoken_to(service) as api, api.feed("topics=job,history") as feed:
            snapshot = await feed.next()
            job_ids = [job["job_id"] for job in (await api.trigger(*NAMES))["jobs"]]
            ended: set[str] = set()
            while len(ended) < 5:
                message = await feed.next()
                if message["type"] == "job" and message["job"]["phase"] == "completed":
                    ended.add(message["job"]["job_id"])
            stand_in.down()
            ends = await feed.ended(set(job_ids) - ended, snapshot=snapshot)
            assert {job["phase"] for job in ends.values()} <= {"completed"}
            async with api.feed("topics=history") as waiting:
                away = await history_until(waiting, lambda history: history["pending"] > 0 and history["state"] == "unreachable")
                ready = await api.get("/readyz")  # dumps can be made, so it is ready
                assert ready["dependencies"]["history"]["state"] == "unreachable"
                while away["pending"] != ready["pending_records"]:  # it is told a few times a second
                    away = await history_until(waiting, lambda history: history["pending"] > 0)
            assert "wait" in away["summary"]
            assert "InfluxDB" in away["message"]
            stand_in.up()
            async with api.feed("topics=history") as waiting:
                await history_until(waiting, all_delivered)
            found = await dump_ids_of(api)
        assert len(found) == 10
        assert Counter(dump_ids_in(stand_in)) == Counter(found)
        assert "history_pending" in service.log_text()


async def test_a_second_service_sees_the_firsts_dumps_live(tmp_path: Path, influx: Influx) -> None:
    with service_on(tmp_path / "a", influx) as first, service_on(tmp_path / "b", influx) as second:
        async with spoken_to(first) as one, spoken_to(second) as other, other.feed("topics=record,stats") as feed:
            assert (await feed.next())["records"] == []
            jobs = await one.dump("one-1", "one-2")
            async with asyncio.timeout(15):
                told = await feed.until(lambda message: message["type"] == "stats" and message["stats"]["total_dumps"] == 2)
            records = [message["record"] for message in told if message["type"] == "record"]
            assert sorted(record["dump_id"] for record in records) == sorted(job["dump_id"] for job in jobs)
            (mine,) = (record for record in (await one.get(RECORDS))["records"] if record["dump_id"] == records[0]["dump_id"])
            assert mine == records[0]  # the same in every field
    assert Counter(dump_ids_in(influx)) == Counter(job["dump_id"] for job in jobs)


async def test_killed_between_commit_and_delivery(tmp_path: Path, stand_in: StandIn) -> None:
    with service_on(tmp_path / "a", stand_in) as service:
        async with spoken_to(service) as api:
            stand_in.down()
            (job,) = await api.dump("one-1")
        service.kill()
        stand_in.up()
        service.restart()
        async with spoken_to(service) as api:
            async with api.feed("topics=history") as feed:
                await history_until(feed, all_delivered)
            assert await dump_ids_of(api) == [job["dump_id"]]
    assert dump_ids_in(stand_in) == [job["dump_id"]]


@thorough
async def test_killed_while_the_history_is_slow_to_answer(tmp_path: Path, stand_in: StandIn) -> None:
    """The point may have arrived when the service died: it is not sent again."""
    with service_on(tmp_path / "a", stand_in) as service:
        async with spoken_to(service) as api:
            stand_in.slow(1.0)
            (job,) = await api.dump("one-1")
        service.kill()
        stand_in.well()
        service.restart()
        async with spoken_to(service) as api, api.feed("topics=history") as feed:
            await history_until(feed, all_delivered)
    assert dump_ids_in(stand_in) == [job["dump_id"]]


@thorough
async def test_a_slow_history_holds_up_no_dump(tmp_path: Path, stand_in: StandIn) -> None:
    with service_on(tmp_path / "a", stand_in) as service:
        async with spoken_to(service) as api:
            stand_in.slow(60.0)
            jobs = await api.dump(*NAMES)
            assert {job["phase"] for job in jobs} == {"completed"}
            stand_in.well()


@thorough
async def test_a_token_that_is_refused_is_said_and_the_records_wait(tmp_path: Path, stand_in: StandIn) -> None:
    stand_in.refusing()
    with service_on(tmp_path / "a", stand_in) as service:
        async with spoken_to(service) as api:
            (job,) = await api.dump("one-1")
            async with api.feed("topics=history,activity") as feed:
                refused = await history_until(feed, lambda history: history["state"] == "refused" and history["pending"] == 1)
                assert "INFLUX_TOKEN" in refused["message"]
                stand_in.well()
                await feed.until(lambda message: told(message) == "history-connected")
            async with api.feed("topics=history") as feed:
                await history_until(feed, all_delivered)
            codes = [line["code"] for line in (await api.get("/api/memory-dumps/activity"))["activity"]]
            assert "history-refused" in codes
        assert stand_in.token not in service.log_text() + service.stderr_text()
    assert dump_ids_in(stand_in) == [job["dump_id"]]


async def test_what_the_history_will_never_take_is_set_aside_and_seen(tmp_path: Path, stand_in: StandIn) -> None:
    with reading(stand_in) as history:
        history._client.write(b"mem_dumps,dom=x,vmid=1 sha256=5i 1000000000000000000", use_v2_api=False)
    with service_on(tmp_path / "a", stand_in) as service:
        async with spoken_to(service) as api:
            async with api.feed("topics=activity") as feed:
                await api.dump("one-1")
                await feed.until(lambda message: told(message) == "history-type-conflict")
            async with api.feed("topics=history") as feed:
                status = await history_until(feed, lambda history: history["set_aside"] == 1)
            assert (status["state"], status["pending"]) == ("connected", 0)
            assert "refused" in status["summary"]
            assert (await api.get("/readyz"))["set_aside_records"] == 1


@thorough
async def test_the_first_pull_of_a_long_history_does_not_flood_the_feed(tmp_path: Path, influx: Influx) -> None:
    newest_ns = time.time_ns() // 1000 * 1000 - 7200 * SEC_NS
    past = [manifest_at(newest_ns - number * 3600 * SEC_NS, dom=f"vm-{number % 7}") for number in range(3000)]
    with reading(influx) as history:
        for place in range(0, len(past), 500):
            history.write_now([point_of(one) for one in past[place : place + 500]])
    with service_on(tmp_path / "a", influx) as service:
        async with spoken_to(service) as api, api.feed("topics=record,stats") as feed:
            snapshot = await feed.next()
            told: list[Message] = []
            if snapshot["stats"]["total_dumps"] < 3000:
                told = await feed.until(lambda message: message["type"] == "stats" and message["stats"]["total_dumps"] == 3000)
            assert sum(message["type"] == "record" for message in told) <= 100
            async with api.feed("topics=record") as later:
                shown = [record["dump_id"] for record in (await later.next())["records"]]
            assert shown == [one.dump_id for one in past[:50]]
            assert (await api.get(f"{RECORDS}?limit=1"))["count"] == 3000


@thorough
async def test_a_page_without_javascript_says_how_the_history_is(tmp_path: Path, influx: Influx) -> None:
    with service_on(tmp_path / "a", influx, MEMDUMP_AUTH="none") as service:
        async with Api.of(service) as api:
            async with api.feed("topics=history") as feed:
                await history_until(feed, lambda history: history["state"] == "connected")
            async with api.session.get("/memory-dumps") as answer:
                assert "History: connected" in await answer.text()


# --- by hand --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ended:
    """A program that has ended."""

    code: int
    out: str
    err: str

    @property
    def sealed(self) -> list[str]:
        """The dumps that ``scripts/memdump.py --json`` says it sealed."""
        lines: list[dict[str, Any]] = [json.loads(line) for line in self.out.splitlines()]
        return [line["manifest"]["dump_id"] for line in lines if line["event"] == "sealed"]


async def ended(*command: str, environment: Mapping[str, str]) -> Ended:
    """``command`` by our Python, to its end; its standard input stays open until then."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, cwd=ROOT, env=dict(environment), stdin=pipe, stdout=pipe, stderr=pipe
    )
    assert process.stdout is not None
    assert process.stderr is not None
    out, err = await asyncio.gather(process.stdout.read(), process.stderr.read())
    return Ended(await process.wait(), out.decode(), err.decode())


def refuse_reasons(influx: StandIn) -> None:
    """As if another program had written numbers where we have the reason of a dump: no record with a reason is taken."""
    with reading(influx) as history:
        history._client.write(b"mem_dumps,dom=x,vmid=1 reason=5i 1000000000000000000", use_v2_api=False)


def ours_in(influx: Influx | StandIn) -> list[str]:
    """The same, without that row."""
    return [dump_id for dump_id in dump_ids_in(influx) if dump_id != "None"]


async def memdump(folder: Path, influx: Influx | StandIn, *vms: str) -> Ended:
    """``scripts/memdump.py`` to its end, with the folders that a service in ``folder`` has."""
    environment = service_environment(folder, LIBVIRT_URI=node_in(folder), **settings_of(influx))
    return await ended(str(SCRIPT), "--json", *vms, environment=environment)


async def test_by_hand_the_record_is_delivered_before_it_ends(tmp_path: Path, influx: Influx) -> None:
    by_hand = await memdump(tmp_path / "a", influx, "one-1", "one-2")
    assert by_hand.code == 0, by_hand.err
    assert Counter(dump_ids_in(influx)) == Counter(by_hand.sealed)


@thorough
async def test_by_hand_what_is_not_delivered_is_said_and_the_service_delivers_it(tmp_path: Path, stand_in: StandIn) -> None:
    stand_in.down()
    by_hand = await memdump(tmp_path / "a", stand_in, "one-1")
    assert by_hand.code == 9
    assert "The service delivers" in by_hand.err
    assert stand_in.token not in by_hand.err + by_hand.out
    stand_in.up()
    with service_on(tmp_path / "a", stand_in) as service:
        async with spoken_to(service) as api, api.feed("topics=history") as feed:
            await history_until(feed, all_delivered)
    assert dump_ids_in(stand_in) == by_hand.sealed


@thorough
async def test_by_hand_beside_a_service_it_is_delivered_once(tmp_path: Path, influx: Influx) -> None:
    with service_on(tmp_path / "a", influx) as service:
        async with spoken_to(service) as api, api.feed("topics=record") as feed:
            await feed.next()
            by_hand = await memdump(tmp_path / "a", influx, "one-1")
            (message,) = await feed.until(lambda message: message["type"] == "record")
            assert by_hand.code == 0, by_hand.err
            assert [message["record"]["dump_id"]] == by_hand.sealed
    assert dump_ids_in(influx) == by_hand.sealed


@thorough
async def test_by_hand_what_influxdb_will_never_take_is_said_and_later_dumps_are_delivered(
    tmp_path: Path, stand_in: StandIn
) -> None:
    refuse_reasons(stand_in)
    refused = await memdump(tmp_path / "a", stand_in, "--reason", "why", "one-1", "one-2")
    assert refused.code == 9
    assert refused.err.count("\n") == 1
    assert "InfluxDB will never take 2 of the records" in refused.err
    assert "set aside" in refused.err
    assert "The service delivers" not in refused.err
    later = await memdump(tmp_path / "a", stand_in, "one-3")
    assert later.code == 0
    assert later.err.count("\n") == 1
    assert "2 records are still set aside" in later.err
    assert ours_in(stand_in) == later.sealed


async def test_a_rebuild_delivers_what_the_history_lacks_and_twice_changes_nothing(tmp_path: Path, influx: Influx) -> None:
    with running_service(tmp_path / "a", LIBVIRT_URI=node_in(tmp_path / "a")) as service:  # as yet without a shared history
        async with spoken_to(service) as api:
            jobs = await api.dump("one-1", "one-2")
    environment = {**service.environment, **settings_of(influx)}
    for _ in range(2):
        rebuilt = await ended("-m", "app", "records", "rebuild", "--deliver", environment=environment)
        assert rebuilt.code == 0, rebuilt
        assert Counter(dump_ids_in(influx)) == Counter(job["dump_id"] for job in jobs)
    assert "lacked 0 records" in rebuilt.out


async def rebuilt(folder: Path, influx: Influx | StandIn, **more: str) -> Ended:
    """``records rebuild --deliver`` with the folders that a service in ``folder`` has."""
    environment = service_environment(folder, LIBVIRT_URI=node_in(folder), **{**settings_of(influx), **more})
    return await ended("-m", "app", "records", "rebuild", "--deliver", environment=environment)


@thorough
async def test_a_rebuild_while_influxdb_is_away_queues_and_says_so(tmp_path: Path, stand_in: StandIn) -> None:
    environment = service_environment(tmp_path / "a", LIBVIRT_URI=node_in(tmp_path / "a"))
    by_hand = await ended(str(SCRIPT), "--json", "one-1", "one-2", environment=environment)
    stand_in.down()
    for _ in range(2):
        away = await rebuilt(tmp_path / "a", stand_in)
        assert (away.code, away.err) == (1, "")
        assert "could not be asked" in away.out
        assert "0 delivered, 0 refused for good, 2 wait for the service" in away.out
        assert "cannot be reached" in away.out
    stand_in.up()
    back = await rebuilt(tmp_path / "a", stand_in)
    assert back.code == 0, back
    assert "lacked 0 records" in back.out
    assert "2 delivered, 0 refused for good, 0 wait" in back.out
    assert Counter(dump_ids_in(stand_in)) == Counter(by_hand.sealed)


@thorough
async def test_a_rebuild_beside_a_service_says_what_is_refused_and_the_service_shows_it(tmp_path: Path, stand_in: StandIn) -> None:
    refuse_reasons(stand_in)
    with service_on(tmp_path / "a", stand_in) as service:
        async with spoken_to(service) as api:
            await api.dump("one-1", reason="why")
            (taken,) = await api.dump("one-2")
            for _ in range(2):
                again = await rebuilt(tmp_path / "a", stand_in)
                assert again.code == 1
                assert "1 refused for good, 0 wait" in again.out
                assert "InfluxDB will never take 1 of the records" in again.out
            async with api.feed("topics=history") as feed:
                await history_until(feed, lambda history: (history["set_aside"], history["pending"]) == (1, 0))
    assert ours_in(stand_in) == [taken["dump_id"]]


@thorough
async def test_a_rebuild_goes_on_after_a_damaged_manifest_and_foreign_files(tmp_path: Path, influx: Influx) -> None:
    by_hand = await memdump(tmp_path / "a", influx, "one-1")
    dumps = tmp_path / "a" / "dumps"
    (dumps / "1_1.mem.gz.manifest.json").write_text("{")
    (dumps / "2_2.mem.gz.manifest.json").mkdir()
    (dumps / "notes.txt").write_text("not ours")
    (dumps / os.fsdecode(b"\xff.manifest.json")).write_text('{"dump_id": 7}')
    empty(tmp_path / "a" / "state")
    for _ in range(2):
        again = await rebuilt(tmp_path / "a", influx)
        assert (again.code, again.err) == (1, "")
        assert again.out.count("cannot be read") == 3
        assert "\\xff.manifest.json" in again.out
        assert "0 refused for good, 0 wait" in again.out
    assert dump_ids_in(influx) == by_hand.sealed


async def test_a_rebuild_with_a_url_that_leads_nowhere_says_so_before_anything_is_done(tmp_path: Path, stand_in: StandIn) -> None:
    refused = await rebuilt(tmp_path / "a", stand_in, INFLUX_URL="http://influx.example.org:8181/path")
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.startswith("INFLUX_URL=")
    assert "leave it out" in refused.err


def empty(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


@thorough
async def test_a_state_directory_that_was_lost_doubles_nothing_in_the_history(tmp_path: Path, influx: Influx) -> None:
    with service_on(tmp_path / "a", influx) as service:
        async with spoken_to(service) as api:
            (job,) = await api.dump("one-1")
            async with api.feed("topics=history") as feed:
                await history_until(feed, all_delivered)
        service.stop()
        empty(service.state_dir)
        service.restart()
        async with spoken_to(service) as api:
            async with api.feed("topics=history") as feed:
                await history_until(feed, all_delivered)
            assert await dump_ids_of(api) == [job["dump_id"]]
    assert dump_ids_in(influx) == [job["dump_id"]]


# --- and without ----------------------------------------------------------------------------------------------------


def maps_of(service: Service) -> str:
    """Every file that is mapped into the process, libraries above all."""
    return Path(f"/proc/{service.process.pid}/maps").read_text()


async def test_without_influx_url_nothing_of_its_client_is_loaded(tmp_path: Path) -> None:
    with running_service(tmp_path / "a", LIBVIRT_URI=node_in(tmp_path / "a")) as service:
        async with spoken_to(service) as api:
            await api.dump("one-1")
            history = (await api.get("/readyz"))["dependencies"]["history"]
        assert (history["state"], history["message"]) == ("off", None)
        assert "arrow" not in maps_of(service)


async def test_a_url_that_leads_nowhere_for_certain_ends_the_start(tmp_path: Path) -> None:
    environment = service_environment(tmp_path, INFLUX_URL="http://127.0.0.1:8181/some/path")
    started = await ended("-m", "app", environment=environment)
    assert started.code == 2
    assert started.err.startswith("INFLUX_URL=")
