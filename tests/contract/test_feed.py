"""Contract, section 8: the live feed."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import re
import shutil
import signal
import socket
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from app.web.live import SILENCE_SEC
from tests.contract.conftest import VMS
from tests.contract.speech import FEED, JOBS, RECORDS, Api, Feed, Message
from tests.contract.test_api import ACTIVITY, LIVE_VMS, RECORD, STATS
from tests.nodes import Vm, gate, node, numbered_uuid
from tests.service import Service, running_service
from tests.thorough import thorough

MEMBER = {"vms": "vms", "job": "jobs", "record": "records", "stats": "stats", "activity": "activity", "hypervisor": "hypervisor"}
PROGRESS = [
    "type", "job_id", "phase", "bytes_done", "bytes_total", "rate_bytes_per_sec", "eta_sec", "guest_paused", "iteration", "mode",
]  # fmt: skip


async def everything_of_a_dump(feed: Feed, job_id: str) -> list[Message]:
    """All that is told of one dump, to the line of the activity log that ends it."""
    return await feed.until(lambda message: message["type"] == "activity" and sealed(message["activity"], job_id))


def sealed(line: Message, job_id: str) -> bool:
    return bool(line["code"] == "dump-sealed" and line["job_id"] == job_id)


def changes(messages: Iterable[Message]) -> list[Message]:
    return [message for message in messages if message["type"] not in ("progress", "snapshot")]


async def test_a_feed_begins_with_a_snapshot_of_everything(api: Api) -> None:
    await api.dump("alpha")
    async with api.feed() as feed:
        snapshot = await feed.next()
    assert snapshot.keys() == {
        "type", "cursor", "now", "version", "vms", "jobs", "stats", "records", "activity", "hypervisor", "history", "room",
    }  # fmt: skip
    assert snapshot["type"] == "snapshot"
    assert snapshot["vms"] == (await api.get(LIVE_VMS))["vms"]
    assert snapshot["stats"] == await api.get(STATS)
    assert snapshot["records"] == (await api.get(f"{RECORDS}?limit=50"))["records"]
    assert snapshot["jobs"] == (await api.get("/api/memory-dumps/jobs"))["jobs"][:50]
    assert snapshot["activity"] == (await api.get(ACTIVITY))["activity"]
    assert list(snapshot["records"][0]) == RECORD
    asked = datetime.fromisoformat(snapshot["now"])
    assert abs(asked - datetime.now(UTC)) < timedelta(minutes=1)  # of this machine: the same clock


async def test_then_come_changes_alone_each_with_its_cursor(api: Api) -> None:
    async with api.feed() as feed:
        first = await feed.next()
        job_id = (await api.trigger("alpha"))["jobs"][0]["job_id"]
        heard = await everything_of_a_dump(feed, job_id)
    assert {message["type"] for message in heard} == {"vms", "job", "record", "stats", "activity", "progress"}
    for message in heard:
        if message["type"] == "progress":
            assert list(message) == PROGRESS
        else:
            assert list(message) == ["type", "cursor", message["type"]]
    cursors = [first["cursor"], *(message["cursor"] for message in changes(heard))]
    assert len(set(cursors)) == len(cursors)
    phases = [message["job"]["phase"] for message in heard if message["type"] == "job"]
    assert phases == ["queued", "preparing", "capturing", "sealing", "recording", "completed"]
    (record,) = (message["record"] for message in heard if message["type"] == "record")
    (stats,) = (message["stats"] for message in heard if message["type"] == "stats")
    assert list(record) == RECORD
    assert stats["total_dumps"] == first["stats"]["total_dumps"] + 1
    (vms,) = (message["vms"] for message in heard if message["type"] == "vms")
    assert next(vm for vm in vms if vm["name"] == "alpha")["last_dump"] == record["timestamp"]


async def test_whoever_resumes_at_any_cursor_misses_nothing_and_hears_nothing_twice(api: Api) -> None:
    async with api.feed() as feed:
        snapshot = await feed.next()
        job_id = (await api.trigger("alpha"))["jobs"][0]["job_id"]
        told = changes(await everything_of_a_dump(feed, job_id))
    for seen, change in enumerate([snapshot, *told[:-1]]):
        async with api.feed(f"since={change['cursor']}") as again:
            assert [await again.next() for _ in told[seen:]] == told[seen:]
    async with api.feed(f"since={told[-1]['cursor']}") as again:
        new = (await api.trigger("beta"))["jobs"][0]["job_id"]
        first = await again.next()
        assert (first["type"], first["job"]["job_id"]) == ("job", new)
        await everything_of_a_dump(again, new)


async def test_the_snapshots_cursor_is_where_the_changes_go_on(api: Api) -> None:
    """Feeds that are opened while a dump runs: snapshot and changes together always give the same end."""
    job_id = (await api.trigger("alpha"))["jobs"][0]["job_id"]
    async with contextlib.AsyncExitStack() as open_feeds:
        for feed in [await open_feeds.enter_async_context(api.feed()) for _ in range(6)]:
            snapshot = await feed.next()
            heard = [] if any(sealed(line, job_id) for line in snapshot["activity"]) else await everything_of_a_dump(feed, job_id)
            records = [*snapshot["records"], *(message["record"] for message in heard if message["type"] == "record")]
            ids = [record["dump_id"] for record in records]
            assert len(set(ids)) == len(ids)
            jobs = [job for job in snapshot["jobs"] if job["job_id"] == job_id]
            jobs += [message["job"] for message in heard if message["type"] == "job"]
            assert jobs[-1]["phase"] == "completed"
            assert jobs[-1]["dump_id"] in ids
            assert len({job["phase"] for job in jobs}) == len(jobs)


@pytest.mark.parametrize("cursor", ["", "x", "0000.1", "12", "%00", "a.b.c", "-1", "x" * 500])
async def test_an_unknown_cursor_gives_a_snapshot(api: Api, cursor: str) -> None:
    async with api.feed(f"since={cursor}") as feed:
        assert (await feed.next())["type"] == "snapshot"


async def test_a_cursor_that_is_yet_to_come_gives_a_snapshot(api: Api) -> None:
    async with api.feed() as feed:
        run = (await feed.next())["cursor"].partition(".")[0]
    async with api.feed(f"since={run}.999999") as feed:
        assert (await feed.next())["type"] == "snapshot"


async def test_a_cursor_of_another_run_gives_a_snapshot(tmp_path: Path) -> None:
    with running_service(tmp_path, LIBVIRT_URI=node(tmp_path / "node.xml", VMS)) as service:
        async with Api.of(service) as api:
            cursor = (await api.connected())["cursor"]
        service.stop()
        service.restart()
        async with Api.of(service) as api:
            await api.connected()
            async with api.feed(f"since={cursor}") as feed:
                assert (await feed.next())["type"] == "snapshot"


@pytest.mark.parametrize("topics", [["job", "record"], ["progress", "vms"], ["stats"]])
async def test_topics_narrow_the_snapshot_and_what_follows(api: Api, topics: list[str]) -> None:
    async with api.feed() as everything, api.feed(f"topics={','.join(topics)}") as feed:
        await everything.next()
        snapshot = await feed.next()
        assert snapshot.keys() == {"type", "cursor", "now"} | {MEMBER[topic] for topic in topics if topic != "progress"}
        job_id = (await api.trigger("alpha"))["jobs"][0]["job_id"]
        wanted = [message for message in await everything_of_a_dump(everything, job_id) if message["type"] in topics]
        if "progress" in topics:  # of which only the newest is promised
            wanted = [message for message in wanted if message["type"] != "progress"]
        heard: list[Message] = []
        while len(heard) < len(wanted):
            message = await feed.next()
            assert message["type"] in topics
            heard += changes([message])
        assert heard == wanted


@pytest.mark.parametrize("query", ["topics=jobs", "topics=job,", "topics=", "topics=job,nothing", "sinc=1", "since=a&since=b"])
async def test_an_unknown_topic_or_parameter_is_refused_before_the_upgrade(api: Api, query: str) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await api.session.ws_connect(f"{FEED}?{query}")
    assert refused.value.status == 400


async def test_no_topic_at_all_is_told_apart_from_a_wrong_one(api: Api) -> None:
    problem = await api.get(f"{FEED}?topics=", 400)
    assert (problem["code"], problem["place"]) == ("request-invalid", "topics")
    assert "names none" in problem["detail"]
    assert "'jobs'" in (await api.get(f"{FEED}?topics=jobs", 400))["detail"]


async def test_a_request_that_is_no_websocket_is_told_so(api: Api) -> None:
    async with api.session.get(FEED) as answer:
        assert (answer.status, answer.headers["Upgrade"]) == (426, "websocket")
        assert (await answer.json(content_type=None))["code"] == "upgrade-required"
    async with api.session.head(FEED) as answer:
        assert answer.status == 405


async def test_a_feed_on_which_nothing_happens_says_every_few_seconds_that_it_is_alive(api: Api) -> None:
    async with api.feed("topics=job", deaf_to=()) as feed:
        snapshot = await feed.next()
        alive = await feed.next()
        assert list(alive) == ["type", "now"]
        assert alive["type"] == "alive"
        assert timedelta(seconds=4) < datetime.fromisoformat(alive["now"]) - datetime.fromisoformat(snapshot["now"])


async def test_a_feed_that_resumes_says_at_once_that_it_is_alive(api: Api) -> None:
    cursor = (await api.connected())["cursor"]
    async with api.feed(f"since={cursor}", deaf_to=()) as feed, asyncio.timeout(SILENCE_SEC - 1):
        while (await feed.next())["type"] != "alive":
            pass


async def test_the_room_that_is_left_for_dumps_is_told_and_that_it_cannot_be_seen(tmp_path: Path) -> None:
    with running_service(tmp_path, LIBVIRT_URI=node(tmp_path / "node.xml", VMS)) as service:
        async with Api.of(service) as api, api.feed("topics=room", deaf_to=("alive",)) as feed:
            room = (await feed.next())["room"]
            assert list(room) == ["dump_dir", "free_bytes", "total_bytes", "message"]
            assert (room["dump_dir"], room["message"]) == (str(service.dump_dir), None)
            assert 0 < room["free_bytes"] <= room["total_bytes"] == shutil.disk_usage(service.dump_dir).total
            await api.connected()
            service.dump_dir.rename(tmp_path / "elsewhere")
            await api.dump("alpha")  # every dump is a reason to look
            (gone,) = (await feed.until(lambda message: message["room"]["message"] is not None))[-1:]
            assert gone["room"] | {"message": ""} == room | {"free_bytes": None, "total_bytes": None, "message": ""}
            assert str(service.dump_dir) in gone["room"]["message"]
            assert "DUMP_DIR" in gone["room"]["message"]
            (tmp_path / "elsewhere").rename(service.dump_dir)
            await api.dump("alpha")
            (back,) = (await feed.until(lambda message: message["room"]["message"] is None))[-1:]
            assert back["room"]["total_bytes"] == room["total_bytes"]


async def test_what_a_subscriber_says_means_nothing(api: Api) -> None:
    async with api.feed() as feed:
        await feed.next()
        await feed.socket.send_str('{"type":"trigger","all":true}')
        await feed.socket.send_bytes(b"\x00")
        job_id = (await api.trigger("alpha"))["jobs"][0]["job_id"]
        assert (await feed.next())["job"]["job_id"] == job_id
        await everything_of_a_dump(feed, job_id)


async def test_who_says_too_much_is_closed(api: Api) -> None:
    async with api.feed("topics=stats") as feed:
        await feed.next()
        await feed.socket.send_str("x" * 4096)
        await feed.socket.send_str("x" * 4097)
        message = await feed.socket.receive(20)
        assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1009)


async def test_every_feed_is_told_that_the_service_ends(tmp_path: Path) -> None:
    with running_service(tmp_path, LIBVIRT_URI=node(tmp_path / "node.xml", VMS)) as service:
        async with Api.of(service) as api, api.feed() as feed:
            await feed.next()
            service.process.send_signal(signal.SIGTERM)
            while (message := await feed.socket.receive(20)).type is aiohttp.WSMsgType.TEXT:
                pass
            assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1001)
        assert service.stop() == 0


# --- one that does not keep up

LONG = "\U0001f9e0" * 1000
"""The longest note, in the longest letters: 4 KB, which every message about its job carries."""


class Deaf:
    """A subscriber that says hello and then reads nothing."""

    def __init__(self, service: Service) -> None:
        self.connection = socket.socket()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.connection.settimeout(20)
        self.connection.connect(("127.0.0.1", service.port))
        lines = [
            f"GET {FEED} HTTP/1.1",
            f"Host: 127.0.0.1:{service.port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
            "Sec-WebSocket-Version: 13",
            f"Authorization: Bearer {service.token}",
        ]
        self.connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        assert self.connection.recv(12) == b"HTTP/1.1 101"

    def read_to_the_end(self) -> bytes:
        """Everything that was sent before the connection went, by a close or by a reset."""
        read = bytearray()
        with contextlib.suppress(ConnectionResetError), self.connection:
            while part := self.connection.recv(1 << 20):
                read += part
        return bytes(read)


async def count(feed: Feed, until: Callable[[Message], bool]) -> list[int]:
    """The numbers of the changes up to the first that fits, read as they come."""
    return [number_of(message) for message in await feed.until(until) if message["type"] != "progress"]


def number_of(message: Message) -> int:
    return int(message["cursor"].partition(".")[2])


@thorough
async def test_a_subscriber_that_reads_nothing_is_closed_and_nobody_else_notices(tmp_path: Path) -> None:
    """A snapshot of many jobs that wait at a gate fills every buffer on the way; then come a thousand changes."""
    vms = [Vm(name=f"vm-{number:03d}", uuid=numbered_uuid(number), memory_mib=1) for number in range(1, 1000)]
    with (
        gate(tmp_path / "node.fifo", vms) as closed,
        running_service(tmp_path, LIBVIRT_URI=closed.uri, MEMDUMP_MAX_CONCURRENT_DUMPS="1") as service,
    ):
        async with Api.of(service) as api, api.feed(deaf_to=("alive",)) as feed:
            await api.connected()
            jobs = (await api.trigger(*(vm.uuid for vm in vms[:600]), reason=LONG, case=LONG))["jobs"]
            last = jobs[-1]["job_id"]
            counting = asyncio.create_task(count(feed, lambda message: cancelled(message, last)))
            deaf = Deaf(service)
            jobs = (await api.trigger(*(vm.uuid for vm in vms[600:])))["jobs"]
            while "subscriber_too_slow" not in service.log_text():  # each cancelled job is two changes
                await api.post(f"{JOBS}/{jobs.pop()['job_id']}/cancel")
            assert re.search(rb"\x88[\x02-\x7d]\x0f\xa8", deaf.read_to_the_end())  # a close frame that says 4008
            await api.post(f"{JOBS}/{last}/cancel")
            numbers = await counting
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
            assert len(numbers) > 1000


def cancelled(message: Message, job_id: str) -> bool:
    job: dict[str, Any] = message.get("job", {})
    return bool(job.get("job_id") == job_id and job["phase"] == "cancelled")
