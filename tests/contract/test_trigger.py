"""Contract, section 7: what a trigger accepts, what it refuses, and with which words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.conftest import ACTIVE, ALPHA, BETA, NEBULA, OFF, ONE, TWIN_A, TWIN_B
from tests.contract.speech import JOBS, RECORDS, TRIGGER, Api, Message
from tests.nodes import Gate, Vm, gate, node, numbered_uuid
from tests.service import running_service
from tests.thorough import thorough


async def test_a_trigger_is_answered_with_the_jobs_it_scheduled(api: Api) -> None:
    answer = await api.trigger("777", "alpha")
    assert list(answer) == ["status", "message", "vm_ids", "timestamp", "jobs"]
    assert answer["status"] == "scheduled"
    assert answer["message"] == "Memory dump scheduled for 2 VM(s)"
    assert answer["vm_ids"] == ["777", "1"]
    assert answer["timestamp"].endswith("Z")
    assert [list(job) for job in answer["jobs"]] == [["job_id", "vm_id", "dom"]] * 2
    assert [(job["vm_id"], job["dom"]) for job in answer["jobs"]] == [("777", "one-43"), ("1", "alpha")]
    ends = await api.ended(job["job_id"] for job in answer["jobs"])
    assert {job["phase"] for job in ends.values()} == {"completed"}


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({}, "$"),
        ({"vm_ids": ["1"], "all": True}, "$"),
        ({"all": False}, "$"),
        ({"vm_ids": []}, "$.vm_ids"),
        ({"vm_ids": "1"}, "$.vm_ids"),
        ({"vm_ids": [1]}, "$.vm_ids[0]"),
        ({"vm_ids": ["1", None]}, "$.vm_ids[1]"),
        ({"all": "true"}, "$.all"),
        ({"all": True, "vms": ["1"]}, "$.vms"),
        ({"all": True, "mode": "fast"}, "$.mode"),
        ({"all": True, "compression": 1}, "$.compression"),
        ({"all": True, "max_pause_ms": "20"}, "$.max_pause_ms"),
        ({"all": True, "reason": ["x"]}, "$.reason"),
        ({"all": True, "case": {}}, "$.case"),
        ([], "$"),
        (None, "$"),
    ],
)
async def test_a_body_that_does_not_fit_is_refused_and_its_place_is_named(api: Api, body: object, place: str) -> None:
    before = (await api.get(JOBS))["jobs"]
    problem = await api.post(TRIGGER, body, 400)
    assert (problem["code"], problem["place"]) == ("request-invalid", place)
    assert (await api.get(JOBS))["jobs"] == before


@pytest.mark.parametrize("mode", ["live", "paused"])
async def test_driver_that_can_do_neither_is_captured_plain_in_every_mode(api: Api, mode: str) -> None:
    (job,) = await api.dump("alpha", mode=mode, max_pause_ms=50)
    assert (job["mode"], job["phase"]) == (mode, "completed")
    assert (await api.get(f"{RECORDS}/{job['dump_id']}"))["mode"] == "plain"


async def test_auto_is_what_a_trigger_without_a_mode_gets(api: Api) -> None:
    (job,) = await api.dump("alpha")
    assert (job["mode"], job["phase"]) == ("auto", "completed")


@pytest.mark.parametrize(
    ("vm_ids", "status", "codes"),
    [
        (["nowhere"], 404, {"nowhere": "vm-unknown"}),
        (["500"], 409, {"500": "ambiguous-vm"}),
        (["off"], 409, {"off": "vm-not-running"}),
        (["off", "alpha", "500", "nowhere", "99"], 404, {
            "off": "vm-not-running", "500": "ambiguous-vm", "nowhere": "vm-unknown", "99": "vm-not-running",
        }),
    ],
)  # fmt: skip
async def test_every_vm_at_fault_is_listed_and_the_lowest_status_answers(
    api: Api, vm_ids: list[str], status: int, codes: dict[str, str]
) -> None:
    before = (await api.get(JOBS))["jobs"]
    problem = await api.trigger(*vm_ids, status=status)
    assert {fault["vm_id"]: fault["code"] for fault in problem["errors"]} == codes
    assert [fault["vm_id"] for fault in problem["errors"]] == [vm for vm in vm_ids if vm in codes]
    assert problem["code"] in codes.values()
    assert (await api.get(JOBS))["jobs"] == before  # all or nothing: alpha was not scheduled either


async def test_an_ambiguous_vm_comes_with_its_candidates(api: Api) -> None:
    problem = await api.trigger("500", status=409)
    (fault,) = problem["errors"]
    assert sorted((one["uuid"], one["name"]) for one in fault["candidates"]) == [
        (TWIN_A.uuid, "twin-a"),
        (TWIN_B.uuid, "twin-b"),
    ]


async def test_a_body_at_fault_comes_before_a_vm_at_fault(api: Api) -> None:
    assert (await api.trigger("nowhere", mode="sideways", status=400))["code"] == "request-invalid"


async def test_a_vm_named_twice_counts_once(api: Api) -> None:
    answer = await api.trigger("alpha", ALPHA.uuid, "1", "alpha", ALPHA.uuid.upper())
    assert answer["vm_ids"] == ["1"]
    assert answer["message"] == "Memory dump scheduled for 1 VM(s)"
    await api.ended(job["job_id"] for job in answer["jobs"])


async def test_all_means_every_vm_that_has_memory(api: Api) -> None:
    jobs = await api.dump(all=True)
    assert sorted(job["uuid"] for job in jobs) == sorted(vm.uuid for vm in ACTIVE)
    assert {job["phase"] for job in jobs} == {"completed"}


async def test_what_a_trigger_says_of_a_dump_stands_in_its_manifest(api: Api) -> None:
    (job,) = await api.dump("alpha", reason="why – “so”\nthere", case="C-17", compression="zstd")
    manifest = await api.get(f"{RECORDS}/{job['dump_id']}")
    assert (manifest["reason"], manifest["case"]) == ("why – “so”\nthere", "C-17")
    assert manifest["compression"]["algorithm"] == "zstd"
    assert manifest["operator"] == "admin"


async def test_a_reason_that_looks_like_an_option_is_only_a_reason(api: Api) -> None:
    (job,) = await api.dump("alpha", reason="--uri=test:///default", case="-- all")
    manifest = await api.get(f"{RECORDS}/{job['dump_id']}")
    assert (manifest["reason"], manifest["case"], manifest["dom"]) == ("--uri=test:///default", "-- all", "alpha")


# --- Idempotency-Key


async def test_the_same_key_and_request_schedule_once(api: Api) -> None:
    key = {"Idempotency-Key": "once"}
    first = await api.trigger("alpha", "beta", headers=key)
    assert await api.trigger("alpha", "beta", headers=key) == first  # while it runs, and the VMs are busy
    await api.ended(job["job_id"] for job in first["jobs"])
    assert await api.trigger("alpha", "beta", headers=key) == first


async def test_a_key_for_another_request_is_refused(api: Api) -> None:
    key = {"Idempotency-Key": "other"}
    first = await api.trigger("alpha", headers=key)
    await api.ended(job["job_id"] for job in first["jobs"])
    assert (await api.trigger("beta", headers=key, status=409))["code"] == "idempotency-key-reused"
    assert (await api.trigger("alpha", reason="x", headers=key, status=409))["code"] == "idempotency-key-reused"


async def test_a_key_of_a_refused_request_is_free_again(api: Api) -> None:
    key = {"Idempotency-Key": "refused"}
    await api.trigger("nowhere", headers=key, status=404)
    answer = await api.trigger("alpha", headers=key)
    await api.ended(job["job_id"] for job in answer["jobs"])


async def test_a_name_that_is_given_twice_in_a_body_is_refused(api: Api) -> None:
    async with api.session.post(TRIGGER, data=b'{"vm_ids":["alpha"],"vm_ids":["beta"]}') as answer:
        problem = await answer.json(content_type=None)
    assert (answer.status, problem["code"], problem["place"]) == (400, "request-invalid", "$.vm_ids")
    assert "twice" in problem["detail"]


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\tinside"])
async def test_a_key_that_is_none_is_refused(api: Api, key: str) -> None:
    assert (await api.trigger("alpha", headers={"Idempotency-Key": key}, status=400))["place"] == "Idempotency-Key"


# --- while dumps run


@pytest.fixture
async def held(tmp_path: Path) -> AsyncIterator[tuple[Api, Gate]]:
    """A service with one place, whose captures wait at a gate."""
    with (
        gate(tmp_path / "node.fifo", [ALPHA, BETA, ONE, OFF]) as closed,
        running_service(tmp_path, LIBVIRT_URI=closed.uri, MEMDUMP_MAX_CONCURRENT_DUMPS="1") as service,
    ):
        async with Api.of(service) as api:
            await api.connected()
            yield api, closed


async def phase(api: Api, job_id: str, phase: str) -> None:
    """Wait until the job is in that phase."""
    async with api.feed("topics=job") as feed:
        jobs: list[Message] = (await feed.next())["jobs"]
        while not any(job["job_id"] == job_id and job["phase"] == phase for job in jobs):
            jobs = [(await feed.next())["job"]]


async def test_a_vm_that_is_being_dumped_is_refused_with_its_job(held: tuple[Api, Gate]) -> None:
    api, _ = held
    running = (await api.trigger("alpha"))["jobs"][0]
    waiting = (await api.trigger("beta"))["jobs"][0]
    for vm, job in (("alpha", running), ("beta", waiting)):
        (fault,) = (await api.trigger(vm, status=409))["errors"]
        assert (fault["vm_id"], fault["code"], fault["job_id"]) == (vm, "already-dumping", job["job_id"])


async def test_all_leaves_out_what_is_being_dumped_and_then_there_is_nothing_to_dump(held: tuple[Api, Gate]) -> None:
    api, _ = held
    await api.trigger("alpha")
    answer = await api.trigger(all=True)
    assert sorted(job["dom"] for job in answer["jobs"]) == ["beta", "one-42"]
    assert (await api.trigger(all=True, status=409))["code"] == "nothing-to-dump"


async def test_a_job_can_be_cancelled_while_it_runs_and_again(held: tuple[Api, Gate]) -> None:
    api, _ = held
    job_id = (await api.trigger("alpha"))["jobs"][0]["job_id"]
    await phase(api, job_id, "preparing")
    for _ in range(2):
        assert (await api.post(f"{JOBS}/{job_id}/cancel"))["job_id"] == job_id
    ended = (await api.ended([job_id]))[job_id]
    assert (ended["phase"], ended["error"]["code"]) == ("cancelled", "cancelled")
    assert await api.post(f"{JOBS}/{job_id}/cancel") == ended
    assert (await api.get("/api/memory-dumps/status"))["status"] == "cancelled"
    assert list(api.service.dump_dir.iterdir()) == []


async def test_a_job_can_be_cancelled_while_it_waits_and_again(held: tuple[Api, Gate]) -> None:
    api, gate = held
    first, second = (await api.trigger("alpha", "beta"))["jobs"]
    cancelled = await api.post(f"{JOBS}/{second['job_id']}/cancel")
    assert (cancelled["phase"], cancelled["started_at"]) == ("cancelled", None)
    assert await api.post(f"{JOBS}/{second['job_id']}/cancel", {}) == cancelled
    gate.open()
    assert (await api.ended([first["job_id"]]))[first["job_id"]]["phase"] == "completed"
    assert (await api.get("/api/memory-dumps/status"))["status"] == "partial"


async def test_the_activity_log_says_who_cancelled(held: tuple[Api, Gate]) -> None:
    api, _ = held
    running, waiting = (await api.trigger("alpha", "beta"))["jobs"]
    await phase(api, running["job_id"], "preparing")
    async with api.feed("topics=activity") as feed:
        await feed.next()
        for job in (waiting, running):
            await api.post(f"{JOBS}/{job['job_id']}/cancel")
            line = (await feed.next())["activity"]
            assert (line["code"], line["kind"], line["job_id"]) == ("dump-cancelled", "info", job["job_id"])
            assert line["message"].startswith(f"admin cancelled the dump of {job['dom']}")


async def test_a_cancelled_vm_can_be_dumped_again_at_once(held: tuple[Api, Gate]) -> None:
    api, gate = held
    _, second = (await api.trigger("alpha", "beta"))["jobs"]
    await api.post(f"{JOBS}/{second['job_id']}/cancel")
    again = (await api.trigger("beta"))["jobs"][0]
    gate.open()
    assert (await api.ended([again["job_id"]]))[again["job_id"]]["phase"] == "completed"


async def test_the_status_says_how_the_last_trigger_is(held: tuple[Api, Gate]) -> None:
    api, gate = held
    path = "/api/memory-dumps/status"
    assert await api.get(path) == {
        "status": "idle", "vm_ids": [], "timestamp": None, "duration": None, "error": None, "jobs": [],
    }  # fmt: skip
    first = (await api.trigger("alpha"))["jobs"][0]
    await phase(api, first["job_id"], "preparing")
    running = await api.get(path)
    assert list(running) == ["status", "vm_ids", "timestamp", "duration", "error", "jobs"]
    assert (running["status"], running["vm_ids"], running["error"]) == ("running", ["1"], None)
    second = (await api.trigger("beta"))["jobs"][0]
    assert (await api.get(path))["status"] == "scheduled"
    gate.open()
    await api.ended([first["job_id"], second["job_id"]])
    done = await api.get(path)
    assert (done["status"], done["vm_ids"], done["error"]) == ("completed", ["2"], None)
    assert done["duration"] > 0
    assert [job["phase"] for job in done["jobs"]] == ["completed"]


async def test_a_capture_that_fails_is_told_in_status_job_and_activity(tmp_path: Path) -> None:
    with running_service(tmp_path, LIBVIRT_URI=node(tmp_path / "node.xml", [ALPHA])) as service:
        async with Api.of(service) as api:
            await api.connected()
            service.dump_dir.rmdir()
            service.dump_dir.write_text("somebody's file")
            (job,) = await api.dump("alpha")
            assert (job["phase"], job["error"]["code"]) == ("failed", "dump-dir-unusable")
            status = await api.get("/api/memory-dumps/status")
            assert status["status"] == "failed"
            assert job["error"]["message"] in status["error"]
            newest = (await api.get("/api/memory-dumps/activity?limit=1"))["activity"][0]
            assert (newest["kind"], newest["code"], newest["job_id"]) == ("error", "dump-dir-unusable", job["job_id"])
            assert "dump-dir-unusable" in service.log_text()


@thorough
async def test_a_thousand_dumps_may_wait_and_then_the_next_is_refused(tmp_path: Path) -> None:
    vms = [Vm(name=f"vm-{number:04d}", uuid=numbered_uuid(number), memory_mib=1) for number in range(1, 1003)]
    with (
        gate(tmp_path / "node.fifo", vms) as closed,
        running_service(tmp_path, LIBVIRT_URI=closed.uri, MEMDUMP_MAX_CONCURRENT_DUMPS="1") as service,
    ):
        async with Api.of(service) as api:
            await api.connected()
            problem = await api.trigger(all=True, status=429)
            assert problem["code"] == "too-many-waiting"
            assert problem["detail"] == "1002 dumps were asked for at once, and at most 1000 may wait. Ask for fewer at once."
            assert (await api.get(JOBS))["jobs"] == []
            answer = await api.trigger(*(vm.uuid for vm in vms[:-1]))
            assert len(answer["jobs"]) == 1001
            async with api.session.post(TRIGGER, json={"vm_ids": ["vm-1002"]}) as refused:
                assert (refused.status, refused.headers["Retry-After"]) == (429, "10")
                problem = await refused.json(content_type=None)
            assert problem["code"] == "too-many-waiting"
            assert problem["detail"] == (
                "1000 dumps wait already, at most 1000 may, and 1 more was asked for. Try again when some have ended."
            )
            async with api.feed() as feed:  # and all that is still told to those who listen
                assert len((await feed.next())["jobs"]) == 1001


async def test_what_is_asked_for_at_once_is_never_scheduled_twice(api: Api) -> None:
    async def ask(_: int) -> tuple[int, Any]:
        async with api.session.post(TRIGGER, json={"vm_ids": [NEBULA.uuid]}) as answer:
            return answer.status, await answer.json(content_type=None)

    answers = await asyncio.gather(*(ask(number) for number in range(8)))
    assert sorted(status for status, _ in answers) == [202] + [409] * 7
    (scheduled,) = (document for status, document in answers if status == 202)
    await api.ended(job["job_id"] for job in scheduled["jobs"])
