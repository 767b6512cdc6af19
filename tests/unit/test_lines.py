"""The JSON lines between a capture process and the service: the contract's shapes, and what is made of nonsense."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.lines import FailedLine, FifoLine, Line, LineError, ProgressLine, SealedLine, WarningLine, decode, encode, phase_line
from app.model import Compression, Manifest, Phase, Versions

MANIFEST = Manifest(
    dump_id="0199",
    timestamp="2026-11-23T10:30:00.000000Z",
    dom="vm-web-01",
    vmid="101",
    uuid="u",
    hypervisor="kvm-07",
    uri="qemu:///system",
    mode="paused",
    format="elf",
    captured_at="2026-11-23T10:30:00.000000Z",
    guest_pause_ms=14.2,
    guest_pauses_ms=(14.2,),
    duration_sec=5.23,
    raw_size_bytes=1,
    sha256="a",
    gzip_size_bytes=1,
    stored_sha256="b",
    compression=Compression(algorithm="gzip", level=1, block_bytes=1 << 20),
    ctime=1,
    mtime=2,
    atime=3,
    dump_path="/var/dumps/101_1.mem.gz",
    operator="admin",
    reason=None,
    case=None,
    versions=Versions(memory_dumps="0.1.0", libvirt="9.0.0", qemu="7.2.22"),
    warnings=("one\ntwo",),
    domain_xml="<domain>\n</domain>",
)
PROGRESS = ProgressLine(
    vm="101", phase=Phase.CAPTURING, bytes_done=1, bytes_total=2, rate_bytes_per_sec=3.0, eta_sec=0.3, guest_paused=False
)
LINES: list[Line] = [
    phase_line("101", "vm-web-01", Phase.PREPARING),
    phase_line("101", "vm-web-01", Phase.CAPTURING, "live"),
    PROGRESS,
    FifoLine(vm="101", directory="/var/dumps/.memdump-x"),
    WarningLine(vm="101", code="guest-resumed", message="It stood still."),
    SealedLine(vm="101", manifest=MANIFEST),
    FailedLine(vm="101", code="vm-not-running", message="…"),
]


@pytest.mark.parametrize("line", LINES, ids=[f"{type(line).__name__}-{place}" for place, line in enumerate(LINES)])
def test_a_line_is_read_as_it_was_written_and_is_one_line(line: Line) -> None:
    text = encode(line)
    assert decode(text) == line
    assert text.endswith(b"\n")
    assert text.count(b"\n") == 1


def test_progress_is_the_contracts_example() -> None:
    assert encode(PROGRESS).decode() == (
        '{"event":"progress","vm":"101","phase":"capturing","bytes_done":1,"bytes_total":2,'
        '"rate_bytes_per_sec":3.0,"eta_sec":0.3,"guest_paused":false,"iteration":0,"mode":null}\n'
    )


def test_a_phase_without_a_way_is_the_contracts_example() -> None:
    assert list(json.loads(encode(LINES[0]))) == ["event", "vm", "dom", "phase", "ts"]


def test_every_line_says_first_what_it_is_and_of_which_vm() -> None:
    for line in LINES:
        assert list(json.loads(encode(line)))[:2] == ["event", "vm"]


def test_names_that_a_later_version_adds_are_passed_over() -> None:
    assert decode(encode(PROGRESS).replace(b'"vm"', b'"pass":2,"vm"')) == PROGRESS


@pytest.mark.parametrize(
    "text",
    [
        b"", b"\n", b"{", b"null", b"[]", b"{}", b'{"event":"party","vm":"1"}', b'{"event":"failed","vm":"1"}', b"\xff\xfe",
        b'{"event":"failed","vm":1,"code":"x","message":"y"}', b'{"event":"phase","vm":"1","dom":"d","phase":"lost","ts":""}',
        b"Traceback (most recent call last):", b'{"event":"failed","vm":"\xff","code":"x","message":"y"}', b"[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_line_of_ours_is_an_error_of_ours(text: bytes) -> None:
    with pytest.raises(LineError):
        decode(text)


@given(st.binary(max_size=200))
def test_no_bytes_at_all_break_the_reader(text: bytes) -> None:
    with pytest.raises(LineError):
        decode(text)


@given(vm=st.text(), message=st.text())
def test_whatever_a_message_holds_it_stays_on_its_line(vm: str, message: str) -> None:
    line = FailedLine(vm=vm, code="capture-failed", message=message)
    text = encode(line)
    assert text.count(b"\n") == 1
    assert decode(text) == line
