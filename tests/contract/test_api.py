"""Contract, sections 4 and 7: which VM a name means, and the shape of every answer that is read."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.contract.conftest import ALPHA, BETA, NAMED_1, NAMED_UUID, NEBULA, OFF, OFF_ONE, ONE, TWIN_A, VMS
from tests.contract.speech import JOBS, RECORDS, Api
from tests.nodes import SHUTOFF, numbered_uuid
from tests.thorough import thorough

LIVE_VMS = "/api/telemetry/live-vms"
STATS = "/api/memory-dumps/stats"
ACTIVITY = "/api/memory-dumps/activity"

RECORD = [
    "dump_id", "timestamp", "dom", "vmid", "uuid", "hypervisor", "uri", "mode", "format", "captured_at", "guest_pause_ms",
    "guest_pauses_ms", "duration_sec", "raw_size_bytes", "sha256", "gzip_size_bytes", "stored_sha256", "compression", "ctime",
    "mtime", "atime", "dump_path", "operator", "reason", "case", "versions", "warnings",
    "audit_head", "group",
]  # fmt: skip
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


# --- which VM


@pytest.mark.parametrize(
    ("named", "uuid"),
    [
        (ALPHA.uuid, ALPHA.uuid),  # though another VM is called that
        (ALPHA.uuid.upper(), ALPHA.uuid),
        (ALPHA.uuid.replace("-", ""), ALPHA.uuid),
        (f"urn:uuid:{ALPHA.uuid}", ALPHA.uuid),
        ("777", NEBULA.uuid),
        ("one-43", NEBULA.uuid),
        ("42", ONE.uuid),
        ("1", ALPHA.uuid),  # its vmid, which comes before the name that another VM has
        ("3", ONE.uuid),  # nobody's vmid or name, so the libvirt ID
        ("twin-a", TWIN_A.uuid),
        (NAMED_1.uuid, NAMED_1.uuid),
    ],
)
async def test_a_vm_is_found_by_uuid_then_vmid_then_name_then_libvirt_id(api: Api, named: str, uuid: str) -> None:
    (job,) = await api.dump(named)
    assert (job["uuid"], job["phase"]) == (uuid, "completed")


@pytest.mark.parametrize("named", ["43", "ALPHA", "alpha ", "01", "-1", numbered_uuid(999), "%"])
async def test_what_is_nobodys_name_is_unknown(api: Api, named: str) -> None:
    assert (await api.trigger(named, status=404))["code"] == "vm-unknown"


async def test_live_vms_shows_every_vm_running_or_not(api: Api) -> None:
    answer = await api.get(LIVE_VMS)
    assert list(answer) == ["vms"]
    vms = {vm["uuid"]: vm for vm in answer["vms"]}
    assert vms.keys() == {vm.uuid for vm in VMS}
    for vm in answer["vms"]:
        assert list(vm)[:8] == ["id", "vmid", "name", "uuid", "state", "memory_bytes", "vcpus", "hypervisor"]
        assert list(vm)[8:] == ["group", "last_dump", "alarm"]
        assert vm["hypervisor"]
    shapes = {uuid: (vm["id"], vm["vmid"], vm["name"], vm["state"]) for uuid, vm in vms.items()}
    assert shapes[ALPHA.uuid] == (1, "1", "alpha", "running")
    assert shapes[BETA.uuid] == (2, "2", "beta", "paused")
    assert shapes[ONE.uuid] == (3, "42", "one-42", "running")
    assert shapes[NEBULA.uuid] == (4, "777", "one-43", "running")
    assert shapes[OFF.uuid] == (None, "", "off", "shutoff")
    assert shapes[OFF_ONE.uuid] == (None, "99", "one-99", "shutoff")
    assert (vms[NEBULA.uuid]["group"], vms[ONE.uuid]["group"]) == ("blue", None)
    assert (vms[BETA.uuid]["memory_bytes"], vms[BETA.uuid]["vcpus"]) == (96 << 20, 2)
    assert all(vm["id"] is None for vm in answer["vms"] if vm["state"] == "shutoff")
    assert vms[NAMED_UUID.uuid]["last_dump"] is None
    assert NAMED_UUID.state == SHUTOFF


async def test_live_vms_knows_each_vms_last_dump(api: Api) -> None:
    (job,) = await api.dump("alpha")
    record = await api.get(f"{RECORDS}/{job['dump_id']}")
    vms = {vm["name"]: vm for vm in (await api.get(LIVE_VMS))["vms"]}
    assert vms["alpha"]["last_dump"] == record["timestamp"]


# --- records


async def test_records_come_newest_first_and_a_page_at_a_time(api: Api) -> None:
    for _ in range(3):
        await api.dump("alpha", compression="none")
    everything = await api.get(RECORDS)
    assert list(everything) == ["records", "count", "limit", "offset", "next_cursor"]
    assert (everything["limit"], everything["offset"]) == (1000, 0)
    ids = [record["dump_id"] for record in everything["records"]]
    assert len(ids) == everything["count"] >= 3
    times = [record["timestamp"] for record in everything["records"]]
    assert times == sorted(times, reverse=True)
    page = await api.get(f"{RECORDS}?limit=2&offset=1")
    assert [record["dump_id"] for record in page["records"]] == ids[1:3]
    assert (page["count"], page["limit"], page["offset"]) == (everything["count"], 2, 1)
    beyond = await api.get(f"{RECORDS}?offset=100000")
    assert (beyond["records"], beyond["count"]) == ([], everything["count"])
    assert (await api.get(f"{RECORDS}?limit=10000"))["limit"] == 10_000


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ("limit=0", "limit"),
        ("limit=10001", "limit"),
        ("limit=", "limit"),
        ("limit=-1", "limit"),
        ("limit=1e3", "limit"),
        ("limit=٣", "limit"),
        ("offset=-1", "offset"),
        ("offset=x", "offset"),
        ("offset=99999999999999999999", "offset"),
        ("limit=1&limit=2", "limit"),
        ("pages=1", "pages"),
    ],
)
async def test_a_page_that_cannot_be_is_refused(api: Api, query: str, place: str) -> None:
    problem = await api.get(f"{RECORDS}?{query}", 400)
    assert (problem["code"], problem["place"]) == ("request-invalid", place)


async def test_a_record_has_the_manifests_names_and_the_whole_manifest_is_one_request_away(api: Api) -> None:
    (job,) = await api.dump("777")
    newest = (await api.get(f"{RECORDS}?limit=1"))["records"][0]
    whole = await api.get(f"{RECORDS}/{job['dump_id']}")
    assert list(newest) == RECORD
    assert list(whole) == [*RECORD, "domain_xml"]
    assert {**newest, "domain_xml": whole["domain_xml"]} == whole
    assert "<name>one-43</name>" in whole["domain_xml"]
    assert (whole["dump_id"], whole["vmid"], whole["uuid"]) == (job["dump_id"], "777", NEBULA.uuid)
    assert whole["group"] == "blue"
    assert (whole["mode"], whole["format"]) == ("plain", "raw")  # what the test driver can


@pytest.mark.parametrize("dump_id", ["0199", "x" * 300, "%00", "..%2f..", "a%20b"])
async def test_an_unknown_record_is_not_found(api: Api, dump_id: str) -> None:
    assert (await api.get(f"{RECORDS}/{dump_id}", 404))["code"] == "record-unknown"


# --- jobs


async def test_a_job_shows_its_whole_life(api: Api) -> None:
    (job,) = await api.dump("alpha", mode="paused", reason="because")
    assert await api.get(f"{JOBS}/{job['job_id']}") == job
    assert (await api.get(JOBS))["jobs"][0] == job
    assert (job["vm_id"], job["dom"], job["uuid"], job["phase"]) == ("1", "alpha", ALPHA.uuid, "completed")
    assert (job["mode"], job["compression"], job["reason"], job["operator"]) == ("paused", "gzip", "because", "admin")
    moments = [job["requested_at"], job["started_at"], job["finished_at"]]
    assert all(MOMENT.fullmatch(moment) for moment in moments)
    assert moments == sorted(moments)
    assert (job["error"], job["warnings"]) == (None, [])
    progress = job["progress"]
    assert progress["bytes_done"] == progress["bytes_total"] == 15  # what the test driver gives
    assert progress.keys() == {"bytes_done", "bytes_total", "rate_bytes_per_sec", "eta_sec", "guest_paused", "iteration", "mode"}


async def test_jobs_come_newest_first(api: Api) -> None:
    (first,) = await api.dump("alpha")
    (second,) = await api.dump("beta")
    assert [job["job_id"] for job in (await api.get(JOBS))["jobs"][:2]] == [second["job_id"], first["job_id"]]


async def test_an_unknown_job_is_not_found(api: Api) -> None:
    assert (await api.get(f"{JOBS}/nobody", 404))["code"] == "job-unknown"
    assert (await api.post(f"{JOBS}/nobody/cancel", status=404))["code"] == "job-unknown"


async def test_a_job_that_has_ended_stays_as_it_is_when_it_is_cancelled(api: Api) -> None:
    (job,) = await api.dump("alpha")
    assert await api.post(f"{JOBS}/{job['job_id']}/cancel", {}) == job
    assert (await api.post(f"{JOBS}/{job['job_id']}/cancel", {"really": True}, 400))["place"] == "$.really"


# --- the rest


async def test_stats_are_totals_of_the_records(api: Api) -> None:
    await api.dump("alpha", "beta")
    await api.dump("alpha")
    stats = await api.get(STATS)
    assert list(stats) == ["total_dumps", "total_vms", "total_size_bytes", "avg_duration_sec", "last_dump"]
    records = (await api.get(f"{RECORDS}?limit=10000"))["records"]
    assert stats["total_dumps"] == len(records)
    assert stats["total_vms"] == len({record["uuid"] for record in records})
    assert stats["total_size_bytes"] == sum(record["gzip_size_bytes"] for record in records)
    assert stats["avg_duration_sec"] == pytest.approx(sum(record["duration_sec"] for record in records) / len(records))
    assert stats["last_dump"] == records[0]["timestamp"]


@thorough
async def test_activity_is_the_last_twenty_events_or_as_many_as_are_asked_for(api: Api) -> None:
    for _ in range(3):
        await api.dump(all=True)
    await api.dump("alpha")
    everything = (await api.get(f"{ACTIVITY}?limit=1000"))["activity"]
    lines: list[dict[str, Any]] = (await api.get(ACTIVITY))["activity"]
    assert len(everything) > 20
    assert lines == everything[:20]
    for line in lines:
        assert list(line) == ["at", "kind", "code", "message", "job_id", "dump_id", "dom"]
        assert MOMENT.fullmatch(line["at"])
        assert line["kind"] in ("success", "error", "warning", "info")
    assert [line["at"] for line in lines] == sorted((line["at"] for line in lines), reverse=True)
    assert [line["code"] for line in lines[:2]] == ["dump-sealed", "dump-scheduled"]
    assert (await api.get(f"{ACTIVITY}?limit=3"))["activity"] == lines[:3]
    for query in ("limit=0", "limit=1001", "limit=few", "since=1"):
        await api.get(f"{ACTIVITY}?{query}", 400)


async def test_only_the_names_that_an_address_has_may_be_asked_with(api: Api) -> None:
    for path in (LIVE_VMS, STATS, JOBS, "/api/memory-dumps/status", f"{RECORDS}/x", f"{JOBS}/x"):
        assert (await api.get(f"{path}?q=1", 400))["place"] == "q"


async def test_a_method_that_an_address_does_not_have_is_named_with_those_it_has(api: Api) -> None:
    async with api.session.delete(RECORDS) as answer:
        assert answer.status == 405
        assert answer.headers["Allow"] == "GET, HEAD"
        assert (await answer.json(content_type=None))["code"] == "method-not-allowed"
    async with api.session.head(RECORDS) as answer:
        assert (answer.status, await answer.read()) == (200, b"")


async def test_an_address_that_is_not_there_is_not_found(api: Api) -> None:
    for path in ("/api/nowhere", "/api/", "/api"):
        assert (await api.get(path, 404))["code"] == "not-found"
    to_people = ("/nowhere", "/memory-dumps/none", "/memory-dumps/none?q=x", "/static/none/none.js")
    for path in to_people:
        async with api.session.get(path) as answer:
            assert (answer.status, answer.content_type) == (404, "text/html")
            assert "<main" in await answer.text()
        async with api.session.head(path) as answer:
            assert (answer.status, await answer.read()) == (404, b"")


async def test_a_body_that_is_too_large_is_refused(api: Api) -> None:
    async with api.session.post("/api/memory-dumps/trigger", data=b" " * (1 << 20)) as answer:
        assert answer.status == 413
        assert (await answer.json(content_type=None))["code"] == "body-too-large"
