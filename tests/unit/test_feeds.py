"""A feed within a scope: whatever happens while it is opened it misses nothing, says nothing twice, and tells of nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import cast
from urllib.parse import quote

import pytest
from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.typedefs import Handler

from app.access import Identity
from app.access.identity import Via
from app.access.presence import Stay
from app.changes import Change, Changes
from app.errors import RUNS_ON, NoSpace, TooManyFeeds
from app.hypervisor import Hypervisor
from app.jobs.alarms import SCHEMA as ALARMS_SCHEMA
from app.jobs.alarms import Alarms
from app.jobs.inventory import Inventory
from app.jobs.journal import SCHEMA as JOURNAL_SCHEMA
from app.jobs.journal import Journal, activity_now, may_see
from app.jobs.pool import Pool
from app.model import Activity, Domain, DomainState, Fault, HypervisorStatus, Job, Link, Phase, Progress, Room, Subject, Wish
from app.records.index import RecordIndex
from app.records.schema import SCHEMA
from app.scope import WHOLE, Scope
from app.state import State
from app.web import feeds, keys, live
from app.web.discretion import job_within
from app.web.feeds import Feed, Feeds, Stores
from app.web.view import View
from tests.unit.test_index import manifest_of

OURS = Domain(
    uuid="u1",
    name="shop-web",
    id=1,
    vmid="1",
    state=DomainState.RUNNING,
    memory_bytes=1,
    vcpus=1,
    hypervisor="kvm-07",
    group="shop",
)
THEIRS = replace(OURS, uuid="u2", name="azure", id=2, vmid="2", group="blue")
SHOP = Scope(groups=("shop",))
PROGRESS = Progress(bytes_done=1, bytes_total=2, rate_bytes_per_sec=1.0, eta_sec=None, guest_paused=False)


class Host(Hypervisor):
    """A libvirt with two VMs, one of each tenant."""

    def __init__(self) -> None:
        super().__init__("test:///default", domains_changed=lambda: None, status_changed=lambda: None)
        self.known: tuple[Domain, ...] = (OURS, THEIRS)

    def domains(self) -> tuple[Domain, ...]:
        return self.known


class Jobs:
    """What a pool holds."""

    def __init__(self) -> None:
        self.held: list[Job] = []

    def jobs(self, scope: Scope) -> tuple[Job, ...]:
        return tuple(job for job in reversed(self.held) if scope.covers(*job.subject))


class Scene:
    """A service without anything around it."""

    def __init__(self, state: State) -> None:
        self.changes, self.host, self.pool = Changes(), Host(), Jobs()
        self.index = RecordIndex(state)
        self.journal = Journal(state, lambda line: self.changes.publish("activity", line))
        self.inventory = Inventory(self.host, self.index, Alarms(state, self.journal, lambda: None), self.changes)
        stores = Stores(
            changes=self.changes,
            hypervisor=self.host,
            inventory=self.inventory,
            pool=cast(Pool, self.pool),
            index=self.index,
            journal=self.journal,
        )
        self.whole = Feed(self.changes, View(self.changes))
        self.feeds = Feeds(self.whole, stores)

    async def happens(self, number: int, domain: Domain) -> None:
        """A dump, from its job to its record and the line that tells of it."""
        job = job_of(number, domain)
        self.pool.held.append(job)
        self.changes.publish("job", job)
        self.changes.advance(job.job_id, Phase.CAPTURING, PROGRESS)
        record = manifest_of(number, dom=domain.name, uuid=domain.uuid, group=domain.group)
        await self.index.add(record)
        self.inventory.dumped(record)
        self.changes.publish("record", record)
        await self.journal.tell(activity_now("success", "dump-sealed", f"{domain.name} {number}", job=job))
        self.changes.publish("stats", await self.index.stats())
        self.inventory.publish()
        ended = replace(job, phase=Phase.COMPLETED)
        self.pool.held[self.pool.held.index(job)] = ended
        self.changes.publish("job", ended)


def job_of(number: int, domain: Domain) -> Job:
    return Job(
        job_id=f"{domain.name}-{number}",
        trigger_id=str(number),
        uuid=domain.uuid,
        vm_id=domain.vmid,
        dom=domain.name,
        wish=Wish(mode="live", compression="gzip"),
        phase=Phase.CAPTURING,
        requested_at=datetime.now(UTC),
        hypervisor=domain.hypervisor,
        group=domain.group,
    )


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    with contextlib.closing(State.open(tmp_path / "memory-dumps.sqlite3", SCHEMA, JOURNAL_SCHEMA, ALARMS_SCHEMA)) as state:
        scene = Scene(state)
        yield scene
        await scene.feeds.close()


async def test_whoever_may_know_of_all_hears_the_services_own_changes(scene: Scene) -> None:
    assert await scene.feeds.of(WHOLE) is scene.whole


@pytest.mark.parametrize("before", range(0, 40, 4))
async def test_what_happens_while_a_feed_is_opened_is_in_it_once(scene: Scene, before: int) -> None:
    async def dumps() -> None:
        for number in range(1, 9):
            await scene.happens(number, OURS if number % 2 else THEIRS)

    dumping = asyncio.create_task(dumps())
    for _ in range(before):
        await asyncio.sleep(0)
    feed = await scene.feeds.of(SHOP)
    await dumping
    await told(feed, 4)
    shown = json.loads(feed.view.snapshot().encoded)
    numbers = [7, 5, 3, 1]
    assert [record["dump_id"] for record in shown["records"]] == [manifest_of(number).dump_id for number in numbers]
    assert [line["message"] for line in shown["activity"]] == [f"shop-web {number}" for number in numbers]
    assert [(job["job_id"], job["phase"]) for job in shown["jobs"]] == [(f"shop-web-{number}", "completed") for number in numbers]
    assert [(vm["name"], vm["last_dump"]) for vm in shown["vms"]] == [("shop-web", manifest_of(7).timestamp)]
    assert (shown["room"], shown["history"]["state"]) == (None, "off")


async def told(feed: Feed, dumps: int) -> None:
    """Wait until its totals are of so many."""
    async with asyncio.timeout(20):
        with feed.changes.subscribe(feed.changes.newest) as news:
            while feed.view.snapshot().message.stats.total_dumps != dumps:
                await news.next()


async def test_of_what_others_do_not_even_a_number_is_told(scene: Scene) -> None:
    feed = await scene.feeds.of(SHOP)
    before = feed.changes.place
    await scene.happens(1, THEIRS)
    scene.host.known = (OURS, replace(THEIRS, state=DomainState.PAUSED))
    scene.inventory.publish()
    scene.changes.publish("room", Room(dump_dir="/dumps", free_bytes=1, total_bytes=2, message=None))
    await scene.journal.tell(activity_now("info", "hypervisor-connected", "Connected."))
    two = [job_of(2, OURS).subject, job_of(2, THEIRS).subject]
    await scene.journal.tell(activity_now("info", "dump-scheduled", "Both.", about=two))
    await scene.index.stats(SHOP)
    assert feed.changes.place == before
    await scene.happens(3, OURS)
    await told(feed, 1)
    assert "azure" not in feed.view.snapshot().encoded


async def test_totals_are_told_once_they_are_others(scene: Scene) -> None:
    feed = await scene.feeds.of(SHOP)
    with feed.changes.subscribe(feed.changes.newest) as news:
        await scene.happens(1, OURS)
        heard: list[Change] = []
        async with asyncio.timeout(20):
            while "stats" not in [change.topic for change in heard]:
                heard += (await news.next())[0]
    assert [change.number for change in heard] == list(range(heard[0].number, heard[0].number + len(heard)))
    assert feed.view.snapshot().message.stats.total_dumps == 1


async def test_a_hypervisor_that_a_scope_does_not_name_has_no_name(scene: Scene) -> None:
    for name, shown in (("kvm-07", "kvm-07"), ("kvm-08", "")):
        scene.host.status = HypervisorStatus(name=name, uri="u", state=Link.CONNECTED, since=datetime.now(UTC))
        scene.changes.publish("hypervisor", scene.host.status)
        hypervisor = (await scene.feeds.of(Scope(hypervisors=("kvm-07",)))).view.snapshot().message.hypervisor
        assert hypervisor is not None
        assert hypervisor.name == shown


async def test_a_feed_that_nobody_follows_goes_when_there_are_many_and_one_that_is_followed_stays(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "MOST_FEEDS", 2)
    scopes = [Scope(vms=(str(number),)) for number in range(4)]
    first = await scene.feeds.of(scopes[0])
    with first.changes.subscribe(first.changes.newest):
        second = await scene.feeds.of(scopes[1])
        for scope in scopes[2:]:
            await scene.feeds.of(scope)
        assert (await scene.feeds.of(scopes[0])).changes is first.changes
        assert (await scene.feeds.of(scopes[1])).changes is not second.changes
    assert second.changes.place_of(second.changes.cursor(0)) is not None


async def test_a_feed_is_followed_before_its_websocket_stands(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "MOST_FEEDS", 1)
    theirs = Scope(groups=("blue",))

    async def others_come(_request: web.Request, _response: web.StreamResponse) -> None:
        await scene.feeds.of(theirs)

    app = app_for(scene, Identity("bob", "token", "viewer", SHOP))
    app.on_response_prepare.append(others_come)
    async with TestClient(TestServer(app)) as client, client.ws_connect(live.PATH) as socket:
        assert (await socket.receive_json())["type"] == "snapshot"
        scene.changes.publish("job", job_of(1, OURS))
        async with asyncio.timeout(20):
            assert (await socket.receive_json())["type"] == "job"


@pytest.mark.parametrize(("via", "ends"), [("proxy", True), ("session", False)])
async def test_a_proxy_is_asked_anew_who_follows_and_nothing_is_missed(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, via: Via, ends: bool
) -> None:
    monkeypatch.setattr(live, "ASKED_ANEW_SEC", 0.2)
    monkeypatch.setattr(live, "SILENCE_SEC", 0.5)
    async with TestClient(TestServer(app_for(scene, Identity("bob", via, "viewer", SHOP)))) as client, asyncio.timeout(20):
        async with client.ws_connect(live.PATH) as socket:
            cursor = (await socket.receive_json())["cursor"]
            if not ends:
                assert (await socket.receive_json())["type"] == "alive"
                return
            assert (await socket.receive()).type is WSMsgType.CLOSE
            assert socket.close_code == live.TOO_SLOW
        scene.changes.publish("job", job_of(1, OURS))
        async with client.ws_connect(f"{live.PATH}?since={quote(cursor)}") as socket:
            assert [(await socket.receive_json())["type"] for _ in range(2)] == ["alive", "job"]


def app_for(scene: Scene, identity: Identity) -> web.Application:
    """The live feed, for one person alone."""

    @web.middleware
    async def somebody(request: web.Request, handler: Handler) -> web.StreamResponse:
        request[keys.IDENTITY], request[keys.STAY] = identity, Stay(identity, lambda: None)
        return await handler(request)

    app = web.Application(middlewares=[somebody])
    app[keys.FEEDS] = scene.feeds
    app.router.add_get(live.PATH, live.feed)
    live.set_up(app)
    return app


async def test_so_many_scopes_are_followed_at_once_and_one_that_is_followed_still_is(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "MOST_FOLLOWED", 1)
    first = await scene.feeds.of(SHOP)
    with first.changes.subscribe(first.changes.newest):
        assert (await scene.feeds.of(SHOP)).changes is first.changes
        with pytest.raises(TooManyFeeds):
            await scene.feeds.of(Scope(groups=("blue",)))
        assert await scene.feeds.of(WHOLE) is scene.whole
    await scene.feeds.of(Scope(groups=("blue",)))


async def test_how_much_room_others_dumps_take_is_in_no_error_of_ones_own(scene: Scene) -> None:
    error = NoSpace("/dumps", 4 << 30, 1 << 30, 3 << 30)
    fault = Fault(error.code, str(error))
    job = replace(job_of(1, OURS), phase=Phase.FAILED, error=fault)
    feed = await scene.feeds.of(SHOP)
    scene.changes.publish("job", job)
    await scene.journal.tell(activity_now("error", error.code, f"shop-web: {error}", job=job))
    scene.pool.held.append(job)
    later = await scene.feeds.of(Scope(groups=("shop", "none")))
    words = f"There is not enough room for this dump. Try again later, or ask an administrator. {RUNS_ON}"
    for one in (feed, later):
        shown = one.view.snapshot().message
        assert [told.error for told in shown.jobs] == [Fault("no-space", words)]
        assert [line.message for line in shown.activity] == [f"shop-web: {words}"]
    assert job_within(WHOLE, job).error == fault


@pytest.mark.parametrize(
    ("about", "seen"), [([], False), ([OURS], True), ([THEIRS], False), ([OURS, THEIRS], False), ([OURS, OURS], True)]
)
async def test_a_line_is_for_those_who_may_know_of_all_that_it_is_about(scene: Scene, about: list[Domain], seen: bool) -> None:
    line = activity_now("info", "x", "x", about=[domain.subject for domain in about])
    assert (may_see(SHOP, line), may_see(WHOLE, line)) == (seen, True)
    await scene.journal.tell(line)
    assert [len(await scene.journal.activity(10, scope)) for scope in (SHOP, WHOLE)] == [int(seen), 1]


async def test_lines_of_before_that_say_of_no_vm_are_for_those_who_may_know_of_all(scene: Scene) -> None:
    for number in range(30):
        await scene.journal.tell(activity_now("info", str(number), "x", about=[(OURS if number % 3 else THEIRS).subject]))
    assert [line.code for line in await scene.journal.activity(3, SHOP)] == ["29", "28", "26"]
    assert isinstance((await scene.journal.activity(1))[0], Activity)
    assert (await scene.journal.activity(1))[0].about == (Subject("kvm-07", "shop-web", "shop"),)
