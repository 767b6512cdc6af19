"""The shapes of requests, and what is said about those that do not fit."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from yarl import URL

from app.errors import RequestError
from app.model import Activity, Domain, DomainState, Fault, Job, Phase, Progress, Sighting, Wish
from app.web import wire


def refused(body: bytes) -> RequestError:
    with pytest.raises(RequestError) as caught:
        wire.decode(body, wire.TriggerBody)
    return caught.value


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b"", "$"),
        (b"  \n", "$"),
        (b"{", "$"),
        (b"\xff\xfe", "$"),
        (b'{"vm_ids":["\xff"]}', "$"),
        (b"[]", "$"),
        (b"null", "$"),
        (b"{}", "$"),
        (b'{"all":false}', "$"),
        (b'{"all":true,"vm_ids":["1"]}', "$"),
        (b'{"vm_ids":["1"],"vms":["1"]}', "$.vms"),
        (b'{"vm_ids":"101"}', "$.vm_ids"),
        (b'{"vm_ids":[]}', "$.vm_ids"),
        (b'{"vm_ids":["1",2]}', "$.vm_ids[1]"),
        (b'{"vm_ids":["1",""]}', "$.vm_ids[1]"),
        (b'{"all":"yes"}', "$.all"),
        (b'{"all":1}', "$.all"),
        (b'{"all":true,"mode":"sideways"}', "$.mode"),
        (b'{"all":true,"compression":"rar"}', "$.compression"),
        (b'{"all":true,"max_pause_ms":0}', "$.max_pause_ms"),
        (b'{"all":true,"max_pause_ms":1.5}', "$.max_pause_ms"),
        (b'{"all":true,"reason":5}', "$.reason"),
        (b'{"all":true,"reason":"a\\u0000b"}', "$.reason"),
        (b'{"all":true,"case":"' + b"x" * 1001 + b'"}', "$.case"),
        (b'{"all":true,"all":true}', "$.all"),
        (b'{"all":true,"\\u0061ll":true}', "$.all"),
        (b'{"vm_ids":["1"],"vm_ids":["2"]}', "$.vm_ids"),
        (b'{"all":true,"mode":"live","mode":null}', "$.mode"),
        (b"[" * 50_000, "$"),
    ],
)
def test_a_body_that_does_not_fit_is_refused_with_the_place(body: bytes, place: str) -> None:
    error = refused(body)
    assert error.place == place
    assert error.code == "request-invalid"
    assert place in str(error) or place == "$"


def test_a_control_character_is_refused_in_words() -> None:
    error = refused(b'{"all":true,"case":"a\\u0007b"}')
    assert str(error) == "Control characters, other than line ends and tabs, cannot be in this text (at $.case)."


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"vm_ids":"a"}', "This has to be a list, and it is a text (at $.vm_ids)."),
        (b'{"vm_ids":[]}', "Name at least one VM (at $.vm_ids)."),
        (b'{"vm_ids":[""]}', "This is empty (at $.vm_ids[0])."),
        (b'{"all":1}', "This has to be true or false, and it is a whole number (at $.all)."),
        (b'{"all":true,"vm_ids":[]}', "Give either `vm_ids` or `all`, not both (at $)."),
        (b'{"all":true,"max_pause_ms":0}', "This has to be 1 or more (at $.max_pause_ms)."),
        (b'{"all":true,"case":"' + b"x" * 1001 + b'"}', "This has to have at most 1000 characters (at $.case)."),
        (b'{"all":true,"disk":1}', "There is no field `disk` in this request (at $.disk)."),
        (b'{"vm_ids":["\\ud800"]}', "The body holds a text that cannot be: half a surrogate pair, such as \\ud800."),
    ],
)
def test_a_body_that_does_not_fit_is_refused_in_plain_words(body: bytes, text: str) -> None:
    assert str(refused(body)) == text


@pytest.mark.parametrize(("field", "words"), [("mode", "auto, live, paused"), ("compression", "gzip, zstd, lz4, none")])
def test_a_word_that_there_is_not_is_answered_with_those_that_there_are(field: str, words: str) -> None:
    error = refused(b'{"all":true,"%s":"fast"}' % field.encode())
    assert str(error) == f"There is no 'fast' here; there are {words} (at $.{field})."


def test_a_trigger_says_which_vms_and_how() -> None:
    body = b'{"vm_ids":["101"],"mode":"paused","compression":"zstd","max_pause_ms":50,"reason":"why\\nso","case":"C-1"}'
    assert wire.decode(body, wire.TriggerBody) == wire.TriggerBody(
        vm_ids=["101"], mode="paused", compression="zstd", max_pause_ms=50, reason="why\nso", case="C-1"
    )
    assert wire.decode(b'{"all":true}', wire.TriggerBody).all is True


@pytest.mark.parametrize("text", ["0", "-1", "10001", "1e3", "ten", "", " 5", "5.0", "٣", "9" * 30])
def test_a_limit_that_is_no_number_in_its_range_is_refused_by_name(text: str) -> None:
    with pytest.raises(RequestError, match="limit=") as caught:
        wire.number({"limit": text}, "limit", 1000, low=1, high=10_000)
    assert caught.value.place == "limit"


def test_a_number_of_the_query_has_a_default_and_may_be_at_either_end() -> None:
    assert wire.number({}, "limit", 1000, low=1, high=10_000) == 1000
    assert wire.number({"limit": "1"}, "limit", 1000, low=1, high=10_000) == 1
    assert wire.number({"limit": "10000"}, "limit", 1000, low=1, high=10_000) == 10_000


def test_unknown_and_doubled_parameters_are_refused_by_name() -> None:
    wire.only(URL("/?limit=1&offset=2").query, "limit", "offset")
    with pytest.raises(RequestError, match="'limits'"):
        wire.only(URL("/?limits=1").query, "limit", "offset")
    with pytest.raises(RequestError, match="twice"):
        wire.only(URL("/?limit=1&limit=2").query, "limit", "offset")


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
    assert json.loads(wire.encode(wire.job(job))) == {
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
    assert json.loads(wire.encode(wire.vm(Sighting(domain, "2026-11-23T10:30:00.000000Z")))) == {
        "id": None,
        "vmid": "7",
        "name": "n",
        "uuid": "u",
        "state": "shutoff",
        "memory_bytes": 2**30,
        "vcpus": 2,
        "hypervisor": "kvm-07",
        "last_dump": "2026-11-23T10:30:00.000000Z",
        "alarm": None,
    }


def test_an_activity_on_the_wire_has_the_names_of_the_contract() -> None:
    line = Activity(at=AT, kind="success", code="dump-sealed", message="Done.", dom="n")
    assert json.loads(wire.encode(wire.activity(line))) == {
        "at": "2026-11-23T10:30:00.000000Z",
        "kind": "success",
        "code": "dump-sealed",
        "message": "Done.",
        "job_id": None,
        "dump_id": None,
        "dom": "n",
    }
