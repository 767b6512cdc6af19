"""A record as a point: what comes back is what went out, whatever stands in it, and nothing of it becomes line protocol."""

import re
import subprocess
import sys
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.model import MOST_BYTES, MOST_TIME, Compression, Manifest, Versions, rfc3339
from app.records.columns import NoRecord
from app.records.point import UNKNOWN, Point, foreign_dump_id, line_of, point_of, record_of
from tests.influx.line_protocol import Line, lines

RECORD = Manifest(
    dump_id="01999999-aaaa-7bbb-8ccc-dddddddddddd",
    timestamp="2026-11-23T10:30:00.000001Z",
    dom="vm-web-01",
    vmid="101",
    uuid="5f0a1c9e-1111-4222-8333-444455556666",
    hypervisor="kvm-07",
    uri="qemu:///system",
    mode="live",
    format="elf",
    captured_at="2026-11-23T10:30:00.500000Z",
    guest_pause_ms=14.2,
    guest_pauses_ms=(10.1, 4.1),
    duration_sec=5.0,
    raw_size_bytes=1_074_008_443,
    sha256="a" * 64,
    gzip_size_bytes=347_025_836,
    stored_sha256="b" * 64,
    compression=Compression(algorithm="gzip", level=1, block_bytes=1_048_576),
    ctime=1_699_520_400,
    mtime=1_699_520_405,
    atime=1_699_520_410,
    dump_path="/var/dumps/101_1699520400.mem.gz",
    operator="admin",
    reason=None,
    case=None,
    versions=Versions(memory_dumps="0.1.0", libvirt="9.0.0", qemu="7.2.22"),
    warnings=("It fell back.",),
)
NINE = ("dom", "vmid", "sha256", "duration_sec", "gzip_size_bytes", "ctime", "mtime", "atime", "dump_path")
AWKWARD = (
    "", " ", "\\", "a\\", "\\\\", '"', '\\"', "a b", " a ", "a,b", "a=b", "#a", "%", "_", "%00", "\n", "a\nb", "\r\n", "\t", "\0",
    "\x7f", "\x85", "\u2028", "\N{PILE OF POO}", "e\u0301", "x" * 4096, "\N{SNOWMAN}" * 4096, "a,dom=b x=1 1", "=,\\ \n#",
    "'; DROP TABLE",
)  # fmt: skip
texts = st.one_of(st.sampled_from(AWKWARD), st.text(st.characters(exclude_categories=["Cs"]), max_size=50))
numbers = st.floats(min_value=0, max_value=MOST_TIME)
counts = st.integers(min_value=0, max_value=MOST_BYTES)
instants = st.integers(min_value=-(2**63) // 1000 + 1, max_value=2**63 // 1000 - 1)


def changed(**values: Any) -> Manifest:
    return replace(RECORD, **values)


@st.composite
def records(draw: st.DrawFn) -> Manifest:
    return replace(
        RECORD,
        timestamp=rfc3339(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=draw(instants))),
        dom=draw(texts),
        vmid=draw(texts),
        uri=draw(texts),
        guest_pause_ms=draw(numbers),
        guest_pauses_ms=tuple(draw(st.lists(numbers, max_size=3))),
        duration_sec=draw(numbers | st.integers(min_value=0, max_value=10)),
        raw_size_bytes=draw(counts),
        compression=Compression(algorithm="none", level=draw(st.none() | counts), block_bytes=draw(counts)),
        dump_path=draw(texts),
        reason=draw(st.none() | texts),
        case=draw(st.none() | texts),
        warnings=tuple(draw(st.lists(texts, max_size=3))),
        audit_head=draw(st.none() | texts),
    )


def only_line(text: str) -> Line:
    """What a server reads from the body ``text``: one good line, and nothing beside it."""
    (line,) = lines(text)
    assert isinstance(line, Line), line
    return line


def row_of(line: Line) -> dict[str, object]:
    return {**dict(line.tags), **dict(line.fields), "time": line.timestamp}


def through_line_protocol(record: Manifest) -> Manifest:
    return record_of(row_of(only_line(line_of(point_of(record)))))


@given(records())
def test_a_record_comes_back_exactly(record: Manifest) -> None:
    assert through_line_protocol(record) == record


@pytest.mark.parametrize("text", AWKWARD)
@pytest.mark.parametrize("name", [field.name for field in fields(Manifest) if field.type == "str" and field.name not in (
    "timestamp", "dump_id", "mode", "format", "captured_at", "domain_xml")])  # fmt: skip
def test_every_text_of_a_record_comes_back_exactly(name: str, text: str) -> None:
    record = changed(**{name: text})
    assert through_line_protocol(record) == record


@pytest.mark.parametrize("length", [32 * 1024, 32 * 1024 + 1, 65_536, 200_000])
@pytest.mark.parametrize("name", ["dom", "reason"])
def test_a_text_longer_than_a_column_takes_comes_back_exactly(name: str, length: int) -> None:
    record = changed(**{name: "\N{SNOWMAN}" * length})
    assert through_line_protocol(record) == record


@given(st.lists(records(), min_size=1, max_size=4))
def test_points_are_as_many_lines(several: list[Manifest]) -> None:
    body = "\n".join(line_of(point_of(record)) for record in several)
    assert body.count("\n") == len(several) - 1
    assert len(list(lines(body))) == len(several)


@given(records())
def test_every_column_has_one_type(record: Manifest) -> None:
    line = only_line(line_of(point_of(record)))
    assert [name for name, _ in line.tags] == ["dom", "vmid"]
    usual = {
        name: type(value) for name, value in only_line(line_of(point_of(replace(RECORD, reason="", case="", audit_head="")))).fields
    }
    assert {name: type(value) for name, value in line.fields if name in usual} == {
        name: usual[name] for name, _ in line.fields if name in usual
    }
    assert all(re.fullmatch(r"exact(_[0-9]+)?", name) for name, _ in line.fields if name not in usual)


@given(texts, texts)
@example("a\\", "a\0")
@example("", "\N{REPLACEMENT CHARACTER}")
def test_two_vms_are_never_one_series(one: str, other: str) -> None:
    def tag(dom: str) -> str:
        return dict(only_line(line_of(point_of(replace(RECORD, dom=dom)))).tags)["dom"]

    assert (tag(one) == tag(other)) == (one == other)


@pytest.mark.parametrize("text", ["vm-web-01", "a b", "a,b=c", "100%", "%0A", "Müller", "#1", "\N{PILE OF POO}", "'\""])
def test_an_ordinary_name_is_its_own_tag(text: str) -> None:
    line = only_line(line_of(point_of(replace(RECORD, dom=text))))
    assert dict(line.tags)["dom"] == text
    assert "exact" not in dict(line.fields)


@given(instants)
def test_a_time_is_exact_to_the_microsecond(microseconds: int) -> None:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    point = point_of(replace(RECORD, timestamp=rfc3339(moment)))
    assert point.time_ns == microseconds * 1000


def test_a_point_is_what_the_contract_says() -> None:
    line = only_line(line_of(point_of(RECORD)))
    assert line.measurement == "mem_dumps"
    assert line.tags == (("dom", "vm-web-01"), ("vmid", "101"))
    assert line.timestamp == 1_795_429_800_000_001_000
    found = dict(line.fields)
    assert {name: found[name] for name in NINE if name not in ("dom", "vmid")} == {
        "sha256": "a" * 64,
        "duration_sec": 5.0,
        "gzip_size_bytes": 347_025_836,
        "ctime": 1_699_520_400,
        "mtime": 1_699_520_405,
        "atime": 1_699_520_410,
        "dump_path": "/var/dumps/101_1699520400.mem.gz",
    }
    assert isinstance(found["duration_sec"], float)


def test_the_domains_xml_stays_at_home() -> None:
    record = replace(RECORD, domain_xml="<domain/>")
    assert "<domain" not in line_of(point_of(record))
    assert through_line_protocol(record) == RECORD


@pytest.mark.parametrize(
    "wrong",
    [
        {"timestamp": "yesterday"},
        {"timestamp": "2026-11-23T10:30:00"},
        {"timestamp": "2500-01-01T00:00:00.000000Z"},
        {"raw_size_bytes": 2**63},
        {"duration_sec": float("inf")},
        {"guest_pause_ms": float("nan")},
    ],
)
def test_what_influxdb_cannot_hold_is_said(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"hold|offset|isoformat"):
        point_of(changed(**wrong))


def test_a_point_of_another_program_is_a_record_with_what_it_says() -> None:
    row = row_of(only_line(line_of(point_of(RECORD))))
    record = record_of({name: row[name] for name in (*NINE, "time")})
    assert record == record_of({name: row[name] for name in (*NINE, "time")})
    assert {name: getattr(record, name) for name in (*NINE, "timestamp")} == {
        name: getattr(RECORD, name) for name in (*NINE, "timestamp")
    }
    assert record.dump_id == foreign_dump_id("vm-web-01", "101", 1_795_429_800_000_001_000)
    assert (record.mode, record.format, record.uuid, record.compression.algorithm) == ("plain", "raw", "", "gzip")
    assert record.warnings == (UNKNOWN,)


@given(st.tuples(texts, texts, instants), st.tuples(texts, texts, instants))
def test_the_id_of_a_foreign_point_is_its_own(one: tuple[str, str, int], other: tuple[str, str, int]) -> None:
    assert (foreign_dump_id(*one) == foreign_dump_id(*other)) == (one == other)


def test_the_id_of_a_foreign_point_stays_the_same_in_every_version() -> None:
    assert foreign_dump_id("vm-web-01", "101", 1_795_429_800_000_000_000) == "ec6a89c9-a9de-549c-b1b2-02255edae9e1"


odd = st.sampled_from([float("nan"), float("inf"), float("-inf")])
values = st.none() | st.booleans() | counts | numbers | odd | texts | st.binary(max_size=3)


@given(
    st.dictionaries(
        st.sampled_from([*NINE, "dump_id", "warnings", "exact", "exact_2", "mode", "colour", "compression_level"]), values
    )
)
def test_columns_of_any_type_make_a_record_unless_they_say_what_no_dump_has(row: dict[str, object]) -> None:
    row = {**row, "time": 1_795_429_800_000_000_123}
    too_long = row.get("duration_sec")
    if isinstance(too_long, int | float) and MOST_TIME < too_long < float("inf"):
        with pytest.raises(ValueError, match="duration_sec"):
            record_of(row)
        del row["duration_sec"]
    record = record_of(row)
    assert record.timestamp == "2026-11-23T10:30:00.000000Z"
    assert isinstance(record.dom, str)
    assert isinstance(record.duration_sec, float)
    assert isinstance(record.gzip_size_bytes, int)
    assert record.dump_id


@pytest.mark.parametrize("time", [None, "2026-11-23", 2**80, 1.5])
def test_a_row_without_a_time_is_no_record(time: object) -> None:
    with pytest.raises(ValueError, match="time"):
        record_of({"dom": "a", "vmid": "1", "time": time})


AT = {"dom": "a", "vmid": "1", "time": 1_795_429_800_000_000_000}


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("gzip_size_bytes", 2**64 - 1), ("gzip_size_bytes", -1), ("gzip_size_bytes", MOST_BYTES + 1), ("ctime", 1e300),
        ("mtime", -1), ("atime", -1), ("duration_sec", 1.7e308), ("duration_sec", -5.0),
    ],
)  # fmt: skip
def test_a_row_with_a_number_of_every_producers_that_no_dump_has_is_no_record(column: str, value: float) -> None:
    with pytest.raises(NoRecord) as none:
        record_of({**AT, column: value})
    assert (none.value.column, none.value.value) == (column, repr(value))


NONSENSE = {
    "raw_size_bytes": -1, "guest_pause_ms": -5.0, "guest_pauses_ms": "[1e308]", "captured_at": "2026-02-30T00:00:00.000000Z",
    "compression_level": 2**60, "compression_block_bytes": -1, "mode": "sideways", "format": "jpeg", "warnings": "{}",
    "dump_id": "none", "compression_algorithm": "xz", "uuid": 7, "reason": 1.5, "colour": "blue",
}  # fmt: skip


@pytest.mark.parametrize("column", NONSENSE)
def test_a_column_beyond_those_that_makes_no_sense_costs_itself_alone(column: str) -> None:
    assert record_of({**AT, "sha256": "ab", column: NONSENSE[column]}) == record_of({**AT, "sha256": "ab"})


@pytest.mark.parametrize("captured_at", ["garbage", "2026-11-23", "2026-11-23T10:30:00Z", ""])
def test_without_a_time_of_the_image_that_is_one_it_is_the_captures_beginning(captured_at: str) -> None:
    record = record_of({**AT, "captured_at": captured_at})
    assert record.captured_at == record.timestamp


@pytest.mark.parametrize(
    "foreign", ["", "7", "x" * 36, "01999999aaaa7bbb8cccdddddddddddd", "01999999-aaaa-7bbb-8ccc-dddddddddddd\n"]
)
def test_a_dump_id_that_is_no_uuid_is_none(foreign: str) -> None:
    record = record_of({**AT, "dump_id": foreign})
    assert record.dump_id == foreign_dump_id("a", "1", AT["time"])  # type: ignore[arg-type]
    assert record.warnings == (UNKNOWN,)


def test_a_dump_id_that_is_a_uuid_is_kept_as_it_is_written() -> None:
    for dump_id in (RECORD.dump_id, RECORD.dump_id.upper(), "5f0a1c9e-1111-4222-8333-444455556666"):
        assert record_of({**AT, "dump_id": dump_id}).dump_id == dump_id


def test_a_point_may_be_made_by_hand() -> None:
    line = only_line(line_of(Point("a\n", "1", 1_000, {"sha256": "x\0", "duration_sec": 1.0})))
    record = record_of(row_of(line))
    assert (record.dom, record.sha256, record.duration_sec) == ("a\n", "x\0", 1.0)


def test_neither_client_nor_arrow_is_imported_with_it() -> None:
    program = (
        "import app.records.point, sys; print([m for m in sys.modules if m.split('.')[0] in ('influxdb_client_3', 'pyarrow')])"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"
