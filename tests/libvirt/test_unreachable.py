"""A service starts without its hypervisor, says so wherever one looks, and is there when libvirt comes."""

from __future__ import annotations

import re
from collections.abc import Iterator

import aiohttp
import pytest

from tests.contract.speech import RECORDS, TRIGGER, Api
from tests.service import Service, run_app, running_service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    with running_service(folder, LIBVIRT_URI=f"qemu+unix:///system?socket={folder}/libvirt-sock") as started:
        yield started


async def test_the_feed_says_what_is_wrong_and_what_to_do(service: Service) -> None:
    async with Api.of(service) as api, api.feed() as feed:
        message = await feed.next()
        while message["hypervisor"]["state"] == "connecting":
            message = (await feed.until(lambda told: told["type"] == "hypervisor"))[-1]
        assert message["hypervisor"]["state"] == "unreachable"
        assert "libvirt-sock" in message["hypervisor"]["message"]
        assert "Check that libvirtd runs" in message["hypervisor"]["message"]


async def test_a_trigger_is_answered_with_503(service: Service) -> None:
    async with Api.of(service) as api:
        for body in ({"vm_ids": ["alpha"]}, {"all": True}):
            assert (await api.trigger(status=503, **body))["code"] == "hypervisor-unreachable"
        assert (await api.get("/api/memory-dumps/jobs"))["jobs"] == []


async def test_whose_scope_hides_the_hypervisor_is_not_told_where_it_is_nor_what_it_said(service: Service) -> None:
    scopes = {"elsewhere": ["--hypervisor", "kvm-99"], "some VMs": ["--vm", "shop-*"]}
    told = {}
    for name, scope in scopes.items():
        made = run_app("token", "add", name, "--role", "operator", *scope, environment=service.environment).stdout
        (token,) = re.findall(r"mdt_\S+", made)
        headers = {"Authorization": f"Bearer {token}"}
        async with (
            aiohttp.ClientSession(service.url, headers=headers, cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.post(TRIGGER, json={"all": True}) as answer,
        ):
            told[name] = await answer.json(content_type=None)
    assert {problem["code"] for problem in told.values()} == {"hypervisor-unreachable"}
    assert "libvirt-sock" in told["some VMs"]["detail"]
    assert told["elsewhere"]["detail"] == "libvirt cannot serve this request now. Try again later, or ask an administrator."


async def test_a_request_that_is_wrong_is_wrong_all_the_same(service: Service) -> None:
    async with Api.of(service) as api:
        await api.trigger(status=400)


async def test_everything_that_can_be_read_is_read(service: Service) -> None:
    async with Api.of(service) as api:
        assert await api.get("/healthz") == {"status": "ok"}
        assert (await api.get("/api/telemetry/live-vms"))["vms"] == []
        assert (await api.get(RECORDS))["count"] == 0
        assert (await api.get("/api/memory-dumps/status"))["status"] == "idle"


async def test_activity_and_log_have_it_once(service: Service) -> None:
    async with Api.of(service) as api:
        async with api.feed("topics=activity") as feed:
            lines = (await feed.next())["activity"]
            while not lines:
                lines = [(await feed.next())["activity"]]
        assert [(line["kind"], line["code"]) for line in lines] == [("error", "hypervisor-unreachable")]
    assert service.log_text().count("hypervisor_lost") == 1
