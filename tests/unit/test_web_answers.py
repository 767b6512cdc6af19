"""The shapes of answers: every name that the contract has, and those of the nouns that they are made of."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime

from app.model import Activity, Domain, DomainState, Fault, Job, Manifest, Phase, Progress, Sighting, Wish
from app.web import answers
from tests.unit.test_lines import MANIFEST

AT = datetime(2026, 11, 23, 10, 30, tzinfo=UTC)


def test_a_job_on_the_wire_has_all_names_and_microseconds_even_when_they_are_zero() -> None:
    wish = Wish(mode="auto", compression="gzip", reason="why", operator="admin")
    job = Job(
        job_id="j",
        trigger_id="t",
        uuid="u",
        vm_id="101",
        dom="vm-web-01",
        wish=wish,
        phase=Phase.FAILED,
        requested_at=AT,
        finished_at=AT,
        progress=Progress(bytes_done=1, bytes_total=2, rate_bytes_per_sec=3.0, eta_sec=None, guest_paused=True, mode="paused"),
        error=Fault("timed-out", "Too slow."),
        warnings=("one",),
    )
    assert json.loads(answers.encode(answers.Job.of(job))) == {
        "job_id": "j",
        "trigger_id": "t",
        "vm_id": "101",
        "dom": "vm-web-01",
        "uuid": "u",
        "phase": "failed",
        "mode": "auto",
        "compression": "gzip",
        "max_pause_ms": None,
        "reason": "why",
        "case": None,
        "operator": "admin",
        "requested_at": "2026-11-23T10:30:00.000000Z",
        "started_at": None,
        "finished_at": "2026-11-23T10:30:00.000000Z",
        "progress": {
            "bytes_done": 1,
            "bytes_total": 2,
            "rate_bytes_per_sec": 3.0,
            "eta_sec": None,
            "guest_paused": True,
            "iteration": 0,
            "mode": "paused",
        },
        "error": {"code": "timed-out", "message": "Too slow."},
        "dump_id": None,
        "guest_pause_ms": None,
        "warnings": ["one"],
    }


def test_a_vm_on_the_wire_has_the_names_of_the_contract() -> None:
    domain = Domain(
        uuid="u", name="n", id=None, vmid="7", state=DomainState.SHUTOFF, memory_bytes=2**30, vcpus=2, hypervisor="kvm-07"
    )
    assert json.loads(answers.encode(answers.Vm.of(Sighting(domain, "2026-11-23T10:30:00.000000Z")))) == {
        "id": None,
        "vmid": "7",
        "name": "n",
        "uuid": "u",
        "state": "shutoff",
        "memory_bytes": 2**30,
        "vcpus": 2,
        "hypervisor": "kvm-07",
        "group": None,
        "last_dump": "2026-11-23T10:30:00.000000Z",
        "alarm": None,
    }


def test_an_activity_on_the_wire_has_the_names_of_the_contract() -> None:
    line = Activity(at=AT, kind="success", code="dump-sealed", message="Done.", dom="n")
    assert json.loads(answers.encode(answers.Activity.of(line))) == {
        "at": "2026-11-23T10:30:00.000000Z",
        "kind": "success",
        "code": "dump-sealed",
        "message": "Done.",
        "job_id": None,
        "dump_id": None,
        "dom": "n",
    }


def test_a_record_on_the_wire_is_the_manifest_without_the_domains_xml() -> None:
    whole = json.loads(answers.encode(answers.Manifest.of(MANIFEST)))
    assert list(whole) == [field.name for field in dataclasses.fields(Manifest)]
    assert whole == json.loads(answers.encode(MANIFEST))
    record = json.loads(answers.encode(answers.Record.of(MANIFEST)))
    assert {**record, "domain_xml": MANIFEST.domain_xml} == whole
    assert "domain_xml" not in record
