"""``/readyz``: whether dumps can be made, and each thing that this hangs on by name."""

from __future__ import annotations

from pathlib import Path

import aiohttp

from tests.contract.speech import Api
from tests.service import running_service


async def test_with_a_login_each_dependency_is_named_with_its_state(api: Api) -> None:
    answer = await api.get("/readyz")
    assert answer["status"] == "ready"
    assert {name: one["state"] for name, one in answer["dependencies"].items()} == {
        "state": "ok",
        "dump_dir": "ok",
        "hypervisor": "connected",
        "history": "off",
    }
    assert (answer["pending_records"], answer["set_aside_records"]) == (0, 0)


async def test_without_a_login_there_is_the_status_code_alone(api: Api, nobody: aiohttp.ClientSession) -> None:
    for method in ("GET", "HEAD"):
        async with nobody.request(method, "/readyz") as answer:
            assert (answer.status, await answer.read()) == (200, b"")


async def test_what_is_not_well_is_said_in_words_and_by_the_status(tmp_path: Path) -> None:
    with running_service(tmp_path, LIBVIRT_URI="test:///nowhere/node.xml") as service:
        async with Api.of(service) as api:
            async with api.feed("topics=hypervisor") as feed:
                await feed.until(lambda message: message["hypervisor"]["state"] == "unreachable")
            async with api.session.get("/readyz") as answer:
                assert answer.status == 503
                said = await answer.json()
            assert said["status"] == "not-ready"
            assert said["dependencies"]["hypervisor"]["message"]
            service.dump_dir.rmdir()
            async with api.session.get("/readyz") as answer:
                assert str(service.dump_dir) in (await answer.json())["dependencies"]["dump_dir"]["message"]
