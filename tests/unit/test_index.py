"""The index: what goes in comes out, in order and counted right, whoever put it in."""

import asyncio
import contextlib
import json
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import StateDamaged, StateUnwritable
from app.evidence import encode_manifest
from app.model import Compression, Manifest, Stats, Versions
from app.records.by_hand import record_by_hand
from app.records.index import MOST_NEWS, Page, RecordIndex, from_json
from app.records.outbox import SCHEMA as OUTBOX_SCHEMA
from app.records.schema import SCHEMA
from app.records.search import Filters, Position
from app.state import State
from tests.other_process import beside, run

BY_HAND = """
import pathlib, sys
from app.evidence import read_manifest
from app.records.by_hand import record_by_hand
for manifest in sys.argv[2:]:
    record_by_hand(pathlib.Path(sys.argv[1]), read_manifest(pathlib.Path(manifest)))
    print(manifest, flush=True)
"""
ADD_FOR_EVER = """
import itertools, pathlib, sys
from dataclasses import replace
from app.evidence import read_manifest
from app.records.by_hand import record_by_hand
manifest = read_manifest(pathlib.Path(sys.argv[2]))
for n in itertools.count():
    record_by_hand(pathlib.Path(sys.argv[1]), replace(manifest, dump_id=str(n)))
    print(n, flush=True)
"""


def manifest_of(number: int, **changed: object) -> Manifest:
    """A manifest that differs from all others in what identifies it."""
    manifest = Manifest(
        dump_id=f"0199a0f0-0000-7000-8000-{number:012d}",
        timestamp=f"2026-11-23T10:30:00.{number:06d}Z",
        dom="vm-web-01",
        vmid="101",
        uuid="a3090414-a879-482f-852d-f2fd8e7300e5",
        hypervisor="kvm-07",
        uri="qemu:///system",
        mode="paused",
        format="elf",
        captured_at="2026-11-23T10:30:00.100000Z",
        guest_pause_ms=14.2,
        guest_pauses_ms=(14.2,),
        duration_sec=5.23,
        raw_size_bytes=1000,
        sha256="0" * 64,
        gzip_size_bytes=100,
        stored_sha256="1" * 64,
        compression=Compression(algorithm="gzip", level=1, block_bytes=1 << 20),
        ctime=1,
        mtime=2,
        atime=3,
        dump_path=f"/dumps/101_{number}.mem.gz",
        operator="admin",
        reason=None,
        case=None,
        versions=Versions(memory_dumps="0.1.0", libvirt="9.0.0", qemu="7.2.22"),
        domain_xml="<domain/>",
    )
    return replace(manifest, **changed)  # type: ignore[arg-type]  # the tests name the fields that they mean


EVERYTHING = Filters()


def decoded(page: Page) -> tuple[Manifest, ...]:
    """The records of a page."""
    return tuple(msgspec.json.decode(record, type=Manifest) for record in page.records)


def listed(*manifests: Manifest) -> tuple[Manifest, ...]:
    """Manifests as lists show them."""
    return tuple(replace(manifest, domain_xml="") for manifest in manifests)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "memory-dumps.sqlite3"


@pytest.fixture
async def state(file: Path) -> AsyncIterator[State]:
    with contextlib.closing(State.open(file, SCHEMA, OUTBOX_SCHEMA)) as state:
        yield state


@pytest.fixture
def index(state: State) -> RecordIndex:
    return RecordIndex(state)


async def test_an_empty_index_says_so(index: RecordIndex) -> None:
    assert await index.page(EVERYTHING, limit=10) == Page((), 0, None)
    assert await index.stats() == Stats(total_dumps=0, total_vms=0, total_size_bytes=0, avg_duration_sec=0.0, last_dump=None)
    assert await index.get("none") is None
    assert await index.last_dumps() == {}
    assert await index.newest() == 0
    assert await index.since(0) == (0, ())
    assert await index.stats_by_vm() == ()
    assert await index.stats_by_day() == ()
    assert [records async for records in index.chunks(EVERYTHING)] == []


async def test_a_record_comes_back_as_its_manifest_was(index: RecordIndex) -> None:
    manifest = manifest_of(
        1, dom='"; DROP TABLE records; --', reason="☃\n\u202e", warnings=("one", "two"), domain_xml="<domain>ü</domain>"
    )
    assert await index.add(manifest)
    assert await index.get(manifest.dump_id) == manifest


async def test_lists_leave_out_the_domains_xml_and_nothing_else(index: RecordIndex) -> None:
    await index.add(manifest_of(1))
    page = await index.page(EVERYTHING, limit=10)
    assert decoded(page) == listed(manifest_of(1))
    assert json.loads(bytes(page.records[0])) == {
        name: value for name, value in json.loads(encode_manifest(manifest_of(1))).items() if name != "domain_xml"
    }
    assert (await index.since(0))[1] == listed(manifest_of(1))
    assert [from_json(chunk) async for chunk in index.chunks(EVERYTHING)] == [listed(manifest_of(1))]


async def test_a_dump_that_is_known_is_not_added_again_and_nothing_changes(state: State, index: RecordIndex) -> None:
    first = manifest_of(1)
    assert await index.add(first)
    before = (await index.stats(), await index.since(0), await index.last_dumps())
    assert not await index.add(replace(first, dom="other", gzip_size_bytes=7, timestamp="2027-01-01T00:00:00.000000Z"))
    assert (await index.stats(), await index.since(0), await index.last_dumps()) == before
    assert await index.get(first.dump_id) == first
    await index.add(manifest_of(2))
    assert (await index.since(0))[0] == 2


async def test_a_record_that_came_without_the_domains_xml_gets_it_from_its_manifest(state: State, index: RecordIndex) -> None:
    whole = manifest_of(1)
    assert await index.add_many([replace(whole, domain_xml="")]) == 1
    assert await index.add_many([whole]) == 0
    assert await index.get(whole.dump_id) == whole
    assert await index.add_many([replace(whole, domain_xml="<other/>")]) == 0
    assert await index.get(whole.dump_id) == whole
    assert (await index.page(Filters(), limit=10)).count == 1


async def test_pages_are_newest_first_and_end_where_the_records_end(index: RecordIndex) -> None:
    assert await index.add_many(manifest_of(number) for number in (3, 1, 5, 2, 4, 1)) == 5
    newest_first = listed(*(manifest_of(number) for number in (5, 4, 3, 2, 1)))
    seen = {offset: await index.page(EVERYTHING, limit=2, offset=offset) for offset in (0, 2, 4, 10**12)}
    assert [decoded(page) for page in seen.values()] == [newest_first[:2], newest_first[2:4], newest_first[4:], ()]
    assert {page.count for page in seen.values()} == {5}
    assert [page.next for page in seen.values()] == [
        Position(manifest_of(4).timestamp, manifest_of(4).dump_id),
        Position(manifest_of(2).timestamp, manifest_of(2).dump_id),
        None,
        None,
    ]


async def test_many_are_added_all_or_none(index: RecordIndex) -> None:
    def breaks_off() -> Iterator[Manifest]:
        yield manifest_of(1)
        raise LookupError

    with pytest.raises(LookupError):
        await index.add_many(breaks_off())
    assert (await index.page(EVERYTHING, limit=1)).count == 0


async def test_records_of_the_same_moment_are_in_the_order_of_their_ids(index: RecordIndex) -> None:
    moment = "2026-11-23T10:30:00.000000Z"
    await index.add_many(manifest_of(number, timestamp=moment) for number in (2, 3, 1))
    assert [record.dump_id[-1] for record in decoded(await index.page(EVERYTHING, limit=10))] == ["3", "2", "1"]
    assert [decoded(await index.page(EVERYTHING, limit=1, offset=at))[0].dump_id[-1] for at in range(3)] == ["3", "2", "1"]


async def test_what_came_since_a_number_is_told_in_the_order_in_which_it_came(index: RecordIndex) -> None:
    for number in (5, 3):
        await index.add(manifest_of(number))
    seen, first = await index.since(0)
    assert first == listed(manifest_of(5), manifest_of(3))
    assert await index.since(seen) == (seen, ())
    await index.add(manifest_of(4))
    now, news = await index.since(seen)
    assert now > seen
    assert news == listed(manifest_of(4))


async def test_the_news_of_a_long_absence_come_in_parts(index: RecordIndex) -> None:
    await index.add_many(map(manifest_of, range(MOST_NEWS + 1)))
    seen, first = await index.since(0)
    assert (len(first), first[-1].dump_id) == (MOST_NEWS, manifest_of(MOST_NEWS - 1).dump_id)
    assert await index.since(seen) == (seen + 1, listed(manifest_of(MOST_NEWS)))


async def test_vms_without_a_uuid_are_told_apart_by_name_and_vmid(index: RecordIndex) -> None:
    for number, (dom, vmid) in enumerate((("a", "1"), ("a", "1"), ("a", "2"), ("b", "1"))):
        await index.add(manifest_of(number, uuid="", dom=dom, vmid=vmid))
    await index.add(manifest_of(10, uuid="u", dom="a", vmid="1"))
    await index.add(manifest_of(11, uuid="u", dom="renamed", vmid="7"))
    assert (await index.stats()).total_vms == 4
    assert {uuid: max(dumps.values()) for uuid, dumps in (await index.last_dumps()).items()} == {"u": manifest_of(11).timestamp}


few_manifests = st.lists(
    st.builds(
        manifest_of,
        st.integers(0, 99),
        uuid=st.sampled_from(["", "u1", "u2"]),
        dom=st.sampled_from(["a", "b"]),
        vmid=st.sampled_from(["", "1", "2"]),
        reason=st.none() | st.text(st.characters(exclude_categories=["Cs"])),
        domain_xml=st.text(st.characters(exclude_categories=["Cs"])),
    ),
    max_size=30,
)


@settings(deadline=None, max_examples=40)
@given(few_manifests)
def test_the_index_agrees_with_a_plain_list_of_the_same_manifests(added: list[Manifest]) -> None:
    plain: dict[str, Manifest] = {}
    for manifest in added:
        first = plain.setdefault(manifest.dump_id, manifest)
        plain[manifest.dump_id] = replace(first, domain_xml=first.domain_xml or manifest.domain_xml)
    asyncio.run(_compare(added, list(plain.values())))


async def _compare(added: list[Manifest], plain: list[Manifest]) -> None:
    oldest_first = sorted(plain, key=lambda one: (one.timestamp, one.dump_id))
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.closing(State.open(Path(folder) / "memory-dumps.sqlite3", SCHEMA)) as state,
    ):
        index = RecordIndex(state)
        assert sum([await index.add(manifest) for manifest in added]) == len(plain)
        assert [await index.get(one.dump_id) for one in plain] == plain
        assert (await index.since(0))[1] == listed(*plain)
        last_dumps = {uuid: max(dumps.values()) for uuid, dumps in (await index.last_dumps()).items()}
        assert last_dumps == {one.uuid: one.timestamp for one in oldest_first if one.uuid}


# --- other processes ----------------------------------------------------------------------------------------------


async def test_what_another_process_records_by_hand_is_noticed_and_told(file: Path, state: State, index: RecordIndex) -> None:
    await index.add(manifest_of(1))
    seen, _ = await index.since(0)
    version = await state.data_version()
    path = file.parent / "manifest.json"
    path.write_bytes(encode_manifest(manifest_of(2)))
    by_hand = run(BY_HAND, file, path)
    assert by_hand.returncode == 0, by_hand.stderr
    assert await state.data_version() != version
    assert await index.since(seen) == (seen + 1, listed(manifest_of(2)))
    assert await index.get(manifest_of(2).dump_id) == manifest_of(2)


async def test_recording_by_hand_what_is_known_is_no_news(file: Path, state: State, index: RecordIndex) -> None:
    await index.add(manifest_of(1))
    version = await state.data_version()
    record_by_hand(file, manifest_of(1))
    assert await state.data_version() == version


async def test_a_record_by_hand_may_be_the_first_and_a_service_finds_it(file: Path) -> None:
    record_by_hand(file, manifest_of(1))
    with contextlib.closing(State.open(file, SCHEMA, "CREATE TABLE IF NOT EXISTS other (x TEXT) STRICT;")) as state:
        assert decoded(await RecordIndex(state).page(EVERYTHING, limit=10)) == listed(manifest_of(1))


def test_a_record_by_hand_that_cannot_be_kept_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("x")
    with pytest.raises(StateUnwritable):
        record_by_hand(tmp_path / "taken" / "memory-dumps.sqlite3", manifest_of(1))
    (tmp_path / "memory-dumps.sqlite3").write_text("no database" * 100)
    with pytest.raises(StateDamaged):
        record_by_hand(tmp_path / "memory-dumps.sqlite3", manifest_of(1))


async def test_a_killed_process_leaves_whole_records_and_right_totals(file: Path, tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_bytes(encode_manifest(manifest_of(1)))
    with beside(ADD_FOR_EVER, file, path) as writer:
        told = [writer.line() for _ in range(20)]
        writer.kill()
    with contextlib.closing(State.open(file, SCHEMA)) as state:
        index = RecordIndex(state)
        page = await index.page(EVERYTHING, limit=10_000)
        assert {record.dump_id for record in decoded(page)} >= set(told)
        assert page.count == (await index.stats()).total_dumps == len(page.records)
