"""Contract, sections 7 and 8: the live feed as long requests."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from tests.contract.conftest import VMS
from tests.contract.described import assert_shape
from tests.contract.speech import CHANGES, Api, Message
from tests.nodes import node
from tests.service import running_service

NOTHING_ELSE = "topics=job,record,activity,progress"


async def now(api: Api, query: str = NOTHING_ELSE) -> str:
    """The cursor of this moment."""
    return str((await api.get(f"{CHANGES}?{query}"))["cursor"])


async def follow(api: Api, cursor: str, until: Callable[[Message], bool], query: str = NOTHING_ELSE) -> list[Message]:
    """What long requests, one after the other, tell up to the first message that fits."""
    told: list[Message] = []
    while not any(until(message) for message in told):
        heard = await api.get(f"{CHANGES}?since={cursor}&{query}")
        told += heard["messages"]
        cursor = heard["cursor"]
    return told


def told_whole(job_id: str) -> Callable[[Message], bool]:
    """Fits the line of the activity log that ends a dump."""
    return lambda message: (
        message["type"] == "activity" and message["activity"]["code"] == "dump-sealed" and message["activity"]["job_id"] == job_id
    )


async def test_without_a_cursor_the_answer_is_the_snapshot_that_a_websocket_begins_with(api: Api) -> None:
    await api.dump("alpha")
    async with api.feed() as feed:
        said = await feed.next()
    heard = await api.get(CHANGES)
    assert list(heard) == ["cursor", "messages"]
    (snapshot,) = heard["messages"]
    assert list(snapshot) == list(said)
    for name in ("type", "vms", "jobs", "stats", "records", "activity", "hypervisor", "history"):
        assert snapshot[name] == said[name]
    assert_shape("Snapshot", snapshot)


async def test_requests_one_after_the_other_tell_what_a_websocket_tells(api: Api) -> None:
    cursor = await now(api)
    async with api.feed(NOTHING_ELSE) as feed:
        await feed.next()
        job_id = (await api.trigger("alpha"))["jobs"][0]["job_id"]
        said = [message for message in await feed.until(told_whole(job_id)) if message["type"] != "progress"]
    told = await follow(api, cursor, told_whole(job_id))
    assert [message for message in told if message["type"] != "progress"] == said
    for message in told:
        if message["type"] == "progress":
            assert_shape("ProgressMessage", message)
    ends = next(place for place, message in enumerate(told) if message.get("job", {}).get("phase") == "completed")
    assert "progress" not in [message["type"] for message in told[ends:]]


async def test_a_request_waits_and_is_answered_as_soon_as_something_changes(api: Api) -> None:
    cursor = await now(api, "topics=job")
    waiting = asyncio.ensure_future(api.get(f"{CHANGES}?since={cursor}&topics=job"))
    await api.get("/healthz")  # whose turn comes after
    assert not waiting.done()
    job_id = (await api.trigger("alpha"))["jobs"][0]["job_id"]
    first = (await waiting)["messages"][0]
    assert (first["type"], first["job"]["job_id"], first["job"]["phase"]) == ("job", job_id, "queued")
    await api.ended([job_id])


async def test_a_request_that_need_not_wait_does_not_and_one_on_which_nothing_happens_says_so(api: Api) -> None:
    cursor = await now(api, "topics=job")
    for wait in (0, 1):
        heard = await api.get(f"{CHANGES}?since={cursor}&wait={wait}&topics=job")
        assert heard["messages"] == []
        cursor = heard["cursor"]
    async with api.feed(f"topics=job&since={cursor}") as feed:  # a websocket goes on from there, too
        job_id = (await api.trigger("alpha"))["jobs"][0]["job_id"]
        assert (await feed.next())["job"]["job_id"] == job_id
        await feed.ended([job_id])


@pytest.mark.parametrize("cursor", ["x", "0000.1", "%00", "a.b.c", "x" * 500])
async def test_an_unknown_cursor_gives_a_snapshot_at_once(api: Api, cursor: str) -> None:
    assert [message["type"] for message in (await api.get(f"{CHANGES}?since={cursor}"))["messages"]] == ["snapshot"]


async def test_a_cursor_of_another_run_gives_a_snapshot_and_a_wait_ends_with_the_service(tmp_path: Path) -> None:
    with running_service(tmp_path, LIBVIRT_URI=node(tmp_path / "node.xml", VMS)) as service:
        async with Api.of(service) as api:
            await api.connected()
            cursor = await now(api, "topics=job")
            waiting = [asyncio.ensure_future(api.get(f"{CHANGES}?since={cursor}&wait=30&topics=job")) for _ in range(20)]
            async with api.feed("topics=job") as feed:  # whose turn comes after theirs
                await feed.next()
                await api.get("/healthz")
                service.process.send_signal(signal.SIGTERM)
                assert [heard["messages"] for heard in await asyncio.gather(*waiting)] == [[]] * 20
        assert service.stop() == 0
        service.restart()
        async with Api.of(service) as api:
            await api.connected()
            (snapshot,) = (await api.get(f"{CHANGES}?since={cursor}&topics=job"))["messages"]
            assert snapshot.keys() == {"type", "cursor", "now", "jobs"}


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ("wait=31", "wait"), ("wait=-1", "wait"), ("wait=1.5", "wait"), ("wait=", "wait"), ("wait=soon", "wait"),
        ("topics=jobs", "topics"), ("topics=", "topics"), ("sinc=1", "sinc"), ("since=a&since=b", "since"),
    ],
)  # fmt: skip
async def test_what_makes_no_sense_is_refused_with_the_name_of_the_parameter(api: Api, query: str, place: str) -> None:
    problem = await api.get(f"{CHANGES}?{query}", 400)
    assert (problem["code"], problem["place"]) == ("request-invalid", place)


async def test_it_needs_a_login_and_says_so_to_programs(nobody: aiohttp.ClientSession) -> None:
    async with nobody.get(CHANGES) as answer:
        assert (answer.status, (await answer.json(content_type=None))["code"]) == (401, "login-required")


async def test_whoever_goes_while_waiting_is_no_failure_and_what_went_well_is_not_logged(tmp_path: Path) -> None:
    with running_service(tmp_path, LIBVIRT_URI=node(tmp_path / "node.xml", VMS)) as service:
        async with Api.of(service) as api:
            await api.connected()
            cursor = await now(api, "topics=job")
            for _ in range(20):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.02):
                        await api.get(f"{CHANGES}?since={cursor}&wait=30&topics=job")
            await api.dump("alpha")
        assert service.stop() == 0
        assert "request_failed" not in service.log_text()
        assert CHANGES not in service.log_text()
