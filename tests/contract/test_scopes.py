"""Two tenants on one service: each sees, hears and does what is theirs, and in no answer of the service is a word of the other."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from app.web.route import Route
from app.web.routes import ROUTES
from tests.contract.speech import ANSWER_SEC, CHANGES, JOBS, RECORDS, Api
from tests.contract.test_rights import said_of
from tests.nodes import SHUTOFF, Vm, node, numbered_uuid
from tests.service import Service, run_app, running_service

SHOP = (
    Vm(name="shop-web", uuid=numbered_uuid(21), opennebula="500"),
    Vm(name="shop-db", uuid=numbered_uuid(22)),
    Vm(name="shop-off", uuid=numbered_uuid(23), state=SHUTOFF),
)
BLUE = (
    Vm(name="azure", uuid=numbered_uuid(31), opennebula="500", group="blue"),  # shares its vmid with shop-web
    Vm(name="indigo", uuid=numbered_uuid(32), group="blue"),
)
NOBODYS = Vm(name="lonely", uuid=numbered_uuid(41), group="grey")
LIVE_VMS = "/api/telemetry/live-vms"
STATUS = "/api/memory-dumps/status"
STATS = "/api/memory-dumps/stats"
ACTIVITY = "/api/memory-dumps/activity"


@dataclass
class Tenant:
    """Somebody with a token for some VMs. ``marks`` are texts that nobody else may ever be shown."""

    vms: tuple[Vm, ...]
    api: Api
    marks: set[str] = field(default_factory=set)
    jobs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        return sorted(vm.name for vm in self.vms)

    async def dump(self, *vm_ids: str, **more: Any) -> list[dict[str, Any]]:
        jobs = await self.api.dump(*vm_ids, **more)
        self.jobs += jobs
        self.marks |= {job[name] for job in jobs for name in ("job_id", "trigger_id", "dump_id")}
        return jobs


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    with running_service(folder, LIBVIRT_URI=node(folder / "node.xml", (*SHOP, *BLUE, NOBODYS))) as started:
        yield started


@pytest.fixture
async def admin(service: Service) -> AsyncIterator[Api]:
    async with Api.of(service) as api:
        await api.connected()
        yield api


@pytest.fixture(scope="module")
def tokens(service: Service) -> dict[str, str]:
    """Both of one account: even that makes nothing of the one the other's."""
    wanted = {"shop": ["--vm", "shop-*"], "blue": ["--group", "blue"], "elsewhere": ["--hypervisor", "kvm-99"]}
    made = {
        name: run_app("token", "add", name, "--role", "operator", *scope, environment=service.environment).stdout
        for name, scope in wanted.items()
    }
    return {name: re.findall(r"mdt_\S+", text)[0] for name, text in made.items()}


def speaks(service: Service, token: str) -> Api:
    headers = {"Authorization": f"Bearer {token}"}
    return Api(service, aiohttp.ClientSession(service.url, headers=headers, cookie_jar=aiohttp.DummyCookieJar()))


@pytest.fixture
async def shop(service: Service, admin: Api, tokens: dict[str, str]) -> AsyncIterator[Tenant]:
    async with speaks(service, tokens["shop"]) as api:
        yield Tenant(SHOP, api, {text for vm in SHOP for text in (vm.name, vm.uuid)} | {"for the shop alone"})


@pytest.fixture
async def blue(service: Service, admin: Api, tokens: dict[str, str]) -> AsyncIterator[Tenant]:
    async with speaks(service, tokens["blue"]) as api:
        yield Tenant(BLUE, api, {text for vm in BLUE for text in (vm.name, vm.uuid)} | {"for blue alone"})


@pytest.fixture
async def both(shop: Tenant, blue: Tenant, admin: Api) -> tuple[Tenant, Tenant]:
    """Each has dumped what is theirs, and somebody else what is nobody's."""
    await shop.dump(all=True, reason="for the shop alone")
    await blue.dump(all=True, case="for blue alone")
    await admin.dump(NOBODYS.name)
    return shop, blue


# --- what each sees


async def test_all_means_all_of_ones_own_and_every_list_and_total_is_of_those_alone(both: tuple[Tenant, Tenant]) -> None:
    for tenant in both:
        api, running = tenant.api, sorted(vm.name for vm in tenant.vms if vm.state != SHUTOFF)
        assert sorted(job["dom"] for job in tenant.jobs) == running
        assert sorted(vm["name"] for vm in (await api.get(LIVE_VMS))["vms"]) == tenant.names
        assert {job["dom"] for job in (await api.get(JOBS))["jobs"]} == set(running)
        status = await api.get(STATUS)
        assert (sorted(job["dom"] for job in status["jobs"]), status["status"]) == (running, "completed")
        page = await api.get(RECORDS)
        assert {record["dom"] for record in page["records"]} == set(running)
        dumps = page["count"]
        assert dumps == len(page["records"]) == (await api.get(STATS))["total_dumps"]
        assert (await api.get(STATS))["total_vms"] == len(running)
        assert [vm["dom"] for vm in (await api.get(f"{STATS}?by=vm"))["vms"]] == running
        assert sum(day["total_dumps"] for day in (await api.get(f"{STATS}?by=day"))["days"]) == dumps
        assert {line["dom"] for line in (await api.get(ACTIVITY))["activity"]} <= {*running, None}
        async with api.session.get(f"{RECORDS}.csv") as answer:
            assert len((await answer.text()).splitlines()) == dumps + 1


async def test_a_search_finds_nothing_of_others_however_exactly_one_knows_it(both: tuple[Tenant, Tenant], admin: Api) -> None:
    for tenant, other in (both, both[::-1]):
        record = await admin.get(f"{RECORDS}/{other.jobs[0]['dump_id']}")
        for query in (f"q={record['dom']}", f"q={record['uuid'][:13]}", f"q={record['dump_path']}", f"dom={record['dom']}"):
            assert (await admin.get(f"{RECORDS}?{query}"))["count"] > 0
            assert (await tenant.api.get(f"{RECORDS}?{query}"))["count"] == 0


# --- what each may do


async def test_a_vm_of_others_is_unknown_in_the_very_words_of_one_that_there_is_not(shop: Tenant, blue: Tenant) -> None:
    before = await shop.api.get(JOBS)
    for name in (*(text for vm in BLUE for text in (vm.name, vm.uuid, vm.uuid.upper())), NOBODYS.name):
        foreign = await shop.api.trigger(name, status=404)
        unknown = await shop.api.trigger("there-is-none", status=404)
        assert plain(foreign, name) == plain(unknown, "there-is-none")
        mixed = await shop.api.trigger("shop-web", name, status=404)
        assert mixed["code"] == "vm-unknown"
    assert await shop.api.get(JOBS) == before


async def test_an_id_that_two_tenants_vms_have_means_ones_own(shop: Tenant, blue: Tenant, admin: Api) -> None:
    assert (await admin.trigger("500", status=409))["code"] == "ambiguous-vm"
    assert [job["dom"] for job in await shop.dump("500")] == ["shop-web"]
    assert [job["dom"] for job in await blue.dump("500")] == ["azure"]


async def test_a_job_and_a_record_of_others_are_as_unknown_as_what_there_is_not(both: tuple[Tenant, Tenant]) -> None:
    nothing = "00000000-0000-7000-8000-000000000000"
    for tenant, other in (both, both[::-1]):
        for job in other.jobs:
            for path, called in ((f"{JOBS}/{{}}", job["job_id"]), (f"{RECORDS}/{{}}", job["dump_id"])):
                foreign, unknown = [await tenant.api.get(path.format(each), 404) for each in (called, nothing)]
                assert plain(foreign, called) == plain(unknown, nothing)
            foreign = await tenant.api.post(f"{JOBS}/{job['job_id']}/cancel", status=404)
            assert plain(foreign, job["job_id"]) == plain(await tenant.api.post(f"{JOBS}/{nothing}/cancel", status=404), nothing)


async def test_the_same_idempotency_key_is_another_key_to_another_scope(shop: Tenant, blue: Tenant) -> None:
    headers = {"Idempotency-Key": "night"}
    first, again = [await shop.api.trigger(all=True, headers=headers) for _ in range(2)]
    assert first == again
    assert {job["dom"] for job in first["jobs"]} == {"shop-web", "shop-db"}
    others = await blue.api.trigger(all=True, headers=headers)
    assert {job["dom"] for job in others["jobs"]} == {"azure", "indigo"}
    for tenant, made in ((shop, first), (blue, others)):
        await tenant.api.ended(job["job_id"] for job in made["jobs"])


async def test_with_nothing_in_scope_there_is_nothing_to_dump(service: Service, admin: Api, tokens: dict[str, str]) -> None:
    async with speaks(service, tokens["elsewhere"]) as api:
        assert (await api.trigger(all=True, status=409))["code"] == "nothing-to-dump"
        assert (await api.get(LIVE_VMS))["vms"] == []
        assert (await api.get(STATUS))["status"] == "idle"
        async with api.feed() as feed:
            snapshot = await feed.next()
        assert [snapshot[name] for name in ("vms", "jobs", "records", "activity")] == [[]] * 4
        assert (snapshot["hypervisor"]["name"], snapshot["hypervisor"]["uri"]) == ("", "")


def plain(document: dict[str, Any], called: str) -> str:
    return str(document).replace(called, "…")


# --- what each hears


async def test_who_follows_the_feed_hears_of_ones_own_alone_and_of_others_not_even_that_something_happened(
    shop: Tenant, blue: Tenant, admin: Api
) -> None:
    async with shop.api.feed() as feed:
        snapshot = await feed.next()
        assert sorted(vm["name"] for vm in snapshot["vms"]) == shop.names
        assert snapshot["room"] is None
        await blue.dump(all=True, case="for blue alone")
        await admin.dump(NOBODYS.name)
        heard = await feed.socket.receive_json(timeout=ANSWER_SEC)
        assert heard["type"] == "alive"
        (job,) = await shop.dump("shop-web")
        told = await feed.until(lambda one: one["type"] == "stats")
    assert {one["job"]["job_id"] for one in told if one["type"] == "job"} == {job["job_id"]}
    assert [one["record"]["dump_id"] for one in told if one["type"] == "record"] == [job["dump_id"]]
    assert told[-1]["stats"]["total_dumps"] == snapshot["stats"]["total_dumps"] + 1
    numbers = [int(one["cursor"].partition(".")[2]) for one in told if "cursor" in one]
    begun = int(snapshot["cursor"].partition(".")[2])
    assert numbers == list(range(begun + 1, begun + 1 + len(numbers)))
    assert not [mark for mark in blue.marks if mark in str((snapshot, told))]


async def test_a_cursor_of_somebody_else_is_no_place_in_ones_own_feed(shop: Tenant, blue: Tenant, admin: Api) -> None:
    theirs = [(await api.get(f"{CHANGES}?wait=0"))["cursor"] for api in (admin, blue.api)]
    for cursor in theirs:
        heard = await shop.api.get(f"{CHANGES}?wait=0&since={cursor}")
        assert [message["type"] for message in heard["messages"]] == ["snapshot"]
    own = (await shop.api.get(f"{CHANGES}?wait=0"))["cursor"]
    assert (await shop.api.get(f"{CHANGES}?wait=0&since={own}"))["messages"] == []
    await blue.dump("indigo")
    assert (await shop.api.get(f"{CHANGES}?wait=0&since={own}"))["messages"] == []
    await shop.dump("shop-db")
    told = (await shop.api.get(f"{CHANGES}?wait=0&since={own}"))["messages"]
    assert {message["job"]["dom"] for message in told if message["type"] == "job"} == {"shop-db"}


# --- and everywhere else


def path_of(route: Route, tenant: Tenant) -> Iterator[str]:
    """Its addresses, with everything in the place of its variables that others might guess."""
    variables = re.findall(r"{(\w+)", route.pattern)
    if not variables:
        yield route.pattern
    for job in tenant.jobs if variables else ():
        values = {"job_id": job["job_id"], "dump_id": job["dump_id"], "path": "main.js", "name": "admin", "number": "1"}
        yield re.sub(r"{(\w+)[^}]*}", lambda found, values=values: values[found[1]], route.pattern)  # type: ignore[misc]


async def test_no_answer_of_any_address_holds_a_word_of_another_tenant(both: tuple[Tenant, Tenant]) -> None:
    told: list[tuple[str, str]] = []
    for tenant, other in (both, both[::-1]):
        for route in ROUTES:
            if route.websocket:
                continue  # it has tests of its own
            for path in path_of(route, other):
                query, said = {"wait": "0"} if path == CHANGES else None, said_of(route, other.vms[0].uuid)
                headers = {"Content-Type": route.body_type} if said is not None else None
                async with tenant.api.session.request(
                    route.method, path, params=query, data=said, headers=headers, allow_redirects=False
                ) as answer:
                    body = (await answer.text()).replace(path, "")
                    assert answer.status < 500
                named = set(re.findall(r"{(\w+)", route.pattern))
                asked = {job[name] for job in other.jobs for name in ("job_id", "dump_id")} if named else set()
                asked |= {other.vms[0].uuid} if said is not None else set()
                told += [(path, mark) for mark in other.marks - asked if mark in body]
    assert not told


def test_the_routes_have_no_other_way_to_what_a_scope_limits() -> None:
    """What is wired under these keys answers for all scopes, or for the one that it is given: only ``sight`` gives it one."""
    around = re.compile(r"keys\.(INDEX|POOL|JOURNAL|INVENTORY|FEEDS|CHANGES)\b")
    rooms = Path(__file__).resolve().parents[2] / "app" / "web"
    assert [file.name for file in sorted(rooms.glob("*.py")) if around.search(file.read_text())] == ["sight.py"]
