"""The nouns: which VM a name means, what a vmid is, which phase follows which."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import libvirt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import AmbiguousVm, VmUnknown
from app.model import (
    FINAL_PHASES,
    Called,
    Domain,
    DomainState,
    Fault,
    Job,
    Outcome,
    Phase,
    Subject,
    Wish,
    domain_of,
    domain_state,
    find_domain,
    from_rfc3339,
    may_follow,
    opennebula_group,
    opennebula_vmid,
    outcome_of,
    rfc3339,
    vmid_of,
)

NOW = datetime(2026, 11, 23, 10, 30, tzinfo=UTC)


def domain(name: str, number: int = 1, *, id: int | None = None, vmid: str = "") -> Domain:
    return Domain(
        uuid=f"{number:08d}-0000-4000-8000-{number:012d}",
        name=name,
        id=id,
        vmid=vmid,
        state=DomainState.SHUTOFF if id is None else DomainState.RUNNING,
        memory_bytes=1,
        vcpus=1,
        hypervisor="kvm",
    )


def job(phase: Phase) -> Job:
    return Job(
        job_id="j",
        trigger_id="t",
        uuid="u",
        vm_id="1",
        dom="vm",
        wish=Wish(mode="auto", compression="gzip"),
        phase=phase,
        requested_at=NOW,
    )


# --- which VM


def test_the_kinds_are_tried_in_the_contracts_order() -> None:
    by_uuid = domain("a", 1)
    by_vmid = domain("b", 2, vmid="x")
    by_name = domain("x", 3)
    by_id = domain("d", 4, id=7, vmid="70")
    known = [by_id, domain(by_uuid.uuid, 5), by_name, by_vmid, by_uuid]
    assert find_domain(by_uuid.uuid, known) == by_uuid
    assert find_domain(by_uuid.uuid.upper(), known) == by_uuid
    assert find_domain("x", known) == by_vmid
    assert find_domain("x", [by_id, by_name]) == by_name
    assert find_domain("7", known) == by_id


@pytest.mark.parametrize("spelt", ["{}", "urn:uuid:{}", "{{{}}}", "{{{}"])
@pytest.mark.parametrize("change", [str, str.upper, lambda uuid: uuid.replace("-", "")])
def test_a_uuid_is_one_however_it_is_spelt(spelt: str, change: Callable[[str], str]) -> None:
    meant = replace(domain("a"), uuid="c829a7ce-8254-5ff1-ba7b-29158aa6a543")
    assert find_domain(spelt.format(change(meant.uuid)), [domain("b", 2), meant]) == meant


@pytest.mark.parametrize("almost", ["-", "{}", "urn:uuid:", "0" * 31, "0" * 33, "g" * 32, "٣" * 31])
def test_what_is_almost_a_uuid_is_a_name_like_any_other(almost: str) -> None:
    called_so = domain(almost, 1)
    assert find_domain(almost, [domain("b", 0), called_so]) == called_so


def test_several_at_the_first_kind_that_fits_any_are_ambiguous_even_if_a_later_kind_fits_one() -> None:
    twins = [domain("a", 1, vmid="5"), domain("b", 2, vmid="5")]
    with pytest.raises(AmbiguousVm) as caught:
        find_domain("5", [*twins, domain("5", 3)])
    assert caught.value.candidates == tuple((twin.uuid, twin.name) for twin in twins)
    assert caught.value.vm == "5"


def test_a_vm_that_is_off_has_no_number_to_be_called_by() -> None:
    for wanted in ("", "None", "0", "-1"):
        with pytest.raises(VmUnknown):
            find_domain(wanted, [domain("a")])


names = st.sampled_from(["1", "2", "3", "a", "b", "one-1"])
domains = st.lists(
    st.builds(domain, names, st.integers(1, 4), id=st.none() | st.integers(1, 3), vmid=st.sampled_from(["", "1", "2", "3"])),
    max_size=6,
    unique_by=lambda one: one.uuid,
)


@given(wanted=names, known=domains)
def test_what_is_found_fits_and_nothing_of_an_earlier_kind_would(wanted: str, known: list[Domain]) -> None:
    kinds = [
        [one for one in known if one.vmid == wanted],
        [one for one in known if one.name == wanted],
        [one for one in known if one.id is not None and str(one.id) == wanted],
    ]
    first = next((fits for fits in kinds if fits), [])
    if len(first) == 1:
        assert find_domain(wanted, known) == first[0]
    else:
        with pytest.raises(AmbiguousVm if first else VmUnknown):
            find_domain(wanted, known)


def test_of_many_domains_each_is_found_by_all_that_names_it_though_they_are_walked_once() -> None:
    many = [domain(f"vm-{number}", number, id=number, vmid=f"{number + 5000}") for number in range(1, 3000)]
    called = Called(iter(many))
    for one in many:
        assert {called.find(name).uuid for name in (one.uuid.upper(), one.vmid, one.name, str(one.id))} == {one.uuid}
    with pytest.raises(VmUnknown):
        called.find("vm-0")


# --- vmid


@pytest.mark.parametrize(
    ("name", "libvirt_id", "opennebula", "vmid"),
    [
        ("vm", 7, None, "7"),
        ("vm", None, None, ""),
        ("one-42", 7, None, "42"),
        ("one-42", None, None, "42"),
        ("one-42", 7, "55", "55"),
        ("vm", None, "55", "55"),
        ("vm", 0, None, "0"),
        ("one-42", 7, "../../etc", "42"),
        ("one-42", 7, "", "42"),
        ("one-42x", 7, None, "7"),
        ("xone-42", 7, None, "7"),
        ("one-42\n", 7, None, "7"),
        ("one-", 7, None, "7"),
        ("ONE-42", 7, None, "7"),
        ("one-٤٢", 7, None, "7"),
        ("one-" + "9" * 19, 7, None, "7"),
        ("one-42", 7, "٤٢", "42"),
    ],
)
def test_a_vmid_is_opennebulas_then_the_names_then_libvirts(
    name: str, libvirt_id: int | None, opennebula: str | None, vmid: str
) -> None:
    assert vmid_of(name=name, libvirt_id=libvirt_id, opennebula_vmid=opennebula) == vmid


digits = st.from_regex(r"\A\d+\Z")


@given(
    name=st.text() | digits.map("one-{}".format),
    libvirt_id=st.none() | st.integers(0, 2**31),
    opennebula=st.none() | st.text() | digits,
)
def test_a_vmid_is_digits_whatever_people_name_their_vms(name: str, libvirt_id: int | None, opennebula: str | None) -> None:
    """It becomes a part of a file's name."""
    vmid = vmid_of(name=name, libvirt_id=libvirt_id, opennebula_vmid=opennebula)
    assert vmid == "" or (vmid.isdecimal() and vmid.isascii() and len(vmid) < 20)


@pytest.mark.parametrize(
    ("xml", "vmid"),
    [
        ("<vm>\n  <vmid>777</vmid>\n</vm>", "777"),  # as libvirt gives it
        ('<one:vm xmlns:one="http://opennebula.org/xmlns/libvirt/1.0"><one:vmid>42</one:vmid></one:vm>', "42"),
        ("<one:vm><one:vmid> 42 </one:vmid></one:vm>", "42"),
        ("<one:vm><one:vmid>abc</one:vmid></one:vm>", None),
        ("<one:vm><one:vmid></one:vmid></one:vm>", None),
        ("<one:vm/>", None),
        ("", None),
    ],
)
def test_opennebulas_id_is_read_from_its_metadata(xml: str, vmid: str | None) -> None:
    assert opennebula_vmid(xml) == vmid


NAMESPACE = 'xmlns:one="http://opennebula.org/xmlns/libvirt/1.0"'


@pytest.mark.parametrize(
    ("xml", "group"),
    [
        (f"<one:vm {NAMESPACE}><one:uname>ann</one:uname><one:gname>blue</one:gname><one:gid>104</one:gid></one:vm>", "blue"),
        ("<vm><gname>blue &amp; red</gname></vm>", "blue & red"),  # as libvirt gives it
        ("<vm><gname><![CDATA[blue]]></gname></vm>", "blue"),
        ("<vm><name><![CDATA[<one:gname>red</one:gname>]]></name><gname>blue</gname></vm>", "blue"),
        ("<vm><name>&lt;gname&gt;red&lt;/gname&gt;</name></vm>", None),
        ("<vm><!-- <gname>red</gname> --><name><gname>red</gname></name></vm>", None),
        ("<vm><gname>blue</gname><gname>red</gname></vm>", None),
        ("<vm><gname></gname></vm>", None),
        ("<vm><gname>blue</vm>", None),
        ("<vm/>", None),
        ("", None),
    ],
)
def test_an_opennebula_group_is_what_opennebula_says_and_nothing_that_people_can_name_so(xml: str, group: str | None) -> None:
    assert opennebula_group(xml) == group


def test_a_domain_is_what_libvirt_says_of_it() -> None:
    said: dict[str, Any] = {"uuid": "u", "name": "vm", "memory_kib": 1 << 20, "vcpus": 2, "hypervisor": "kvm-07"}
    off = domain_of(number=-1, state=libvirt.VIR_DOMAIN_SHUTOFF, metadata_xml=None, **said)
    assert off == Domain(
        uuid="u",
        name="vm",
        id=None,
        vmid="",
        state=DomainState.SHUTOFF,
        memory_bytes=1 << 30,
        vcpus=2,
        hypervisor="kvm-07",
    )
    assert not off.active
    runs = domain_of(number=0, state=libvirt.VIR_DOMAIN_RUNNING, metadata_xml="<vm><vmid>42</vmid><gname>blue</gname></vm>", **said)
    assert runs == replace(off, id=0, vmid="42", state=DomainState.RUNNING, group="blue")
    assert (runs.subject, off.subject) == (Subject("kvm-07", "vm", "blue"), Subject("kvm-07", "vm", None))


@pytest.mark.parametrize("state", DomainState)
def test_a_state_has_libvirts_number(state: DomainState) -> None:
    assert domain_state(getattr(libvirt, f"VIR_DOMAIN_{state.name}")) is state


# --- phases

PHASES = tuple(Phase)
Q, PR, CA, SE, RE, CO, FA, CN, IN = PHASES
ALLOWED = {
    Q: {PR, FA, CN, IN},
    PR: {CA, FA, CN, IN},
    CA: {SE, FA, CN, IN},
    SE: {RE, FA, CN, IN},
    RE: {CO, FA, IN},  # the dump exists: there is nothing left to cancel
    CO: set(),
    FA: set(),
    CN: set(),
    IN: set(),
}


@pytest.mark.parametrize("now", PHASES)
@pytest.mark.parametrize("then", PHASES)
def test_a_phase_follows_another_only_as_the_table_says(now: Phase, then: Phase) -> None:
    assert may_follow(now, then) == (then in ALLOWED[now])


@pytest.mark.parametrize("now", PHASES)
@pytest.mark.parametrize("then", PHASES)
def test_a_job_takes_the_steps_that_are_allowed_and_no_others(now: Phase, then: Phase) -> None:
    fault = Fault("cancelled", "why")
    later = NOW + timedelta(seconds=1)
    if then not in ALLOWED[now]:
        with pytest.raises(ValueError, match=f"from {now} to {then}"):
            job(now).step(then, later, error=fault)
        return
    stepped = job(now).step(then, later, error=fault)
    assert (stepped.phase, stepped.error) == (then, fault)
    assert stepped.started_at == (later if then is PR else None)
    assert stepped.finished_at == (later if then in FINAL_PHASES else None)


def test_the_contracts_phases_are_all_there_are() -> None:
    assert [phase.value for phase in PHASES] == [
        "queued", "preparing", "capturing", "sealing", "recording", "completed", "failed", "cancelled", "interrupted",
    ]  # fmt: skip
    assert {phase for phase in PHASES if phase.final} == {CO, FA, CN, IN}


@pytest.mark.parametrize(
    ("phases", "outcome"),
    [
        ([], "idle"),
        ([Q], "scheduled"),
        ([Q, Q], "scheduled"),
        ([Q, PR], "running"),
        ([Q, CO], "running"),
        ([RE], "running"),
        ([CO, SE], "running"),
        ([CO, CO], "completed"),
        ([CO, FA], "partial"),
        ([CO, CN], "partial"),
        ([CO, IN], "partial"),
        ([FA], "failed"),
        ([FA, CN], "failed"),
        ([IN], "failed"),
        ([CN, CN], "cancelled"),
    ],
)
def test_the_jobs_of_a_trigger_have_one_word(phases: list[Phase], outcome: Outcome) -> None:
    assert outcome_of([job(phase) for phase in phases]) == outcome


# --- times


@given(st.datetimes(min_value=datetime(1000, 1, 1), timezones=st.timezones()))  # noqa: DTZ001 - hypothesis adds the zone
def test_a_moment_survives_being_written_and_is_written_one_way(moment: datetime) -> None:
    text = rfc3339(moment)
    assert from_rfc3339(text) == moment.astimezone(UTC)
    assert len(text) == len("2026-11-23T10:30:00.000000Z")
    assert rfc3339(from_rfc3339(text)) == text


def test_moments_are_told_in_utc_with_microseconds_and_a_naive_one_is_refused() -> None:
    assert rfc3339(NOW) == "2026-11-23T10:30:00.000000Z"
    assert rfc3339(NOW.astimezone(timezone(timedelta(hours=2)))) == rfc3339(NOW)
    assert rfc3339(NOW.replace(year=999, microsecond=1)) == "0999-11-23T10:30:00.000001Z" < rfc3339(NOW)
    with pytest.raises(ValueError, match="no offset"):
        from_rfc3339("2026-11-23T10:30:00")


def test_a_domain_that_stands_still_has_memory_and_one_that_is_off_has_none() -> None:
    assert domain("a", id=1).active
    assert not domain("a").active
