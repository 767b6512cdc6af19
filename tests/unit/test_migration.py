"""The parser of QEMU's migration stream: nothing but the right image, or an error that says what and where."""

from __future__ import annotations

import contextlib
import copy
import itertools
import struct
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from app.capture.migration import REST_BYTES, Block, Machine, Migration
from app.errors import StreamMalformed, StreamTruncated
from tests.migration_stream import (
    CONTINUE,
    CPU,
    CPU_STATE,
    DATA,
    FILL,
    PAGE,
    Page,
    counted,
    description,
    device,
    header,
    image,
    records,
    section,
    start,
    stream,
)

BLOCKS = [("pc.ram", 400), ("pc.bios", 3)]
DATA_PAGE = bytes(range(256)) * 16


class Images:
    """A sink that is as plain as can be."""

    def __init__(self) -> None:
        self.listed: tuple[Block, ...] = ()
        self.blocks_held: list[NDArray[np.uint8]] = []
        self.calls = 0

    def blocks(self, blocks: tuple[Block, ...]) -> None:
        assert not self.listed
        self.listed = blocks
        self.blocks_held = [np.zeros((block.size_bytes // PAGE, PAGE), np.uint8) for block in blocks]

    def pages(self, block: int, numbers: NDArray[np.int64], content: NDArray[np.uint8]) -> None:
        assert (np.diff(numbers) > 0).all()
        self.calls += 1
        for number, page in zip(numbers, content, strict=True):
            self.blocks_held[block][number] = page

    def filled(self, block: int, numbers: NDArray[np.int64], fill: NDArray[np.uint8]) -> None:
        assert (np.diff(numbers) > 0).all()
        self.calls += 1
        for number, byte in zip(numbers, fill, strict=True):
            self.blocks_held[block][number] = byte

    @property
    def image(self) -> list[bytes]:
        return [block.tobytes() for block in self.blocks_held]


def feed(content: bytes, cuts: Iterable[int] = ()) -> tuple[Images, Migration]:
    """Feed in pieces, as a reader with a buffer would: what is left goes in front of the next piece."""
    images = Images()
    migration = Migration(images)
    rest = b""
    for begin, end in itertools.pairwise([0, *sorted(cuts), len(content)]):
        chunk = rest + content[begin:end]
        rest = chunk[migration.feed(memoryview(chunk)) :]
        assert len(rest) < REST_BYTES
    return images, migration


def parse(content: bytes, cuts: Iterable[int] = ()) -> tuple[Images, Machine]:
    images, migration = feed(content, cuts)
    return images, migration.finish()


@st.composite
def pages(draw: st.DrawFn, most: int = 60) -> list[Page]:
    """Runs and lone pages, of data and of one byte, going up and down, in both blocks, again and again."""
    out: list[Page] = []
    for _ in range(draw(st.integers(0, 4))):
        block = draw(st.integers(0, 1))
        first = draw(st.integers(0, BLOCKS[block][1] - 1))
        count = min(draw(st.integers(1, most)), BLOCKS[block][1] - first)
        step = draw(st.sampled_from((1, 1, 1, 2, -1, 0)))
        kinds = draw(st.sampled_from(("data", "zero", "both", "fill")))
        for at in range(count):
            number = min(max(first + at * step, 0), BLOCKS[block][1] - 1)
            zero = kinds in ("zero", "fill") or (kinds == "both" and at % 2)
            body = (b"\xab" if kinds == "fill" else b"\0") if zero else struct.pack(">HH", at, number) * (PAGE // 4)
            out.append(Page(block, number, body))
    return out


parts = st.lists(pages(), min_size=1, max_size=4)


def first_pass() -> list[Page]:
    """All of memory: data, zeros, and both in turn."""
    ram = [
        Page(0, number, b"\0" if 100 <= number < 300 or (number % 2 and number >= 300) else struct.pack(">I", number) * 1024)
        for number in range(400)
    ]
    return ram + [Page(1, number, b"\xff") for number in range(3)]


WHOLE = stream(BLOCKS, [first_pass(), [Page(0, 7, b"\0"), Page(0, 100, DATA_PAGE)]])


@given(parts)
def test_the_last_copy_of_each_page_counts(given_parts: list[list[Page]]) -> None:
    images, _ = parse(stream(BLOCKS, given_parts))
    assert images.image == image(BLOCKS, given_parts)
    assert images.listed == (Block("pc.ram", 400 * PAGE), Block("pc.bios", 3 * PAGE))


@given(parts, st.data())
def test_every_way_to_cut_it_into_chunks_gives_the_same(given_parts: list[list[Page]], data: st.DataObject) -> None:
    content = stream(BLOCKS, given_parts)
    cuts = data.draw(st.lists(st.integers(0, len(content)), max_size=12))
    assert parse(content, cuts)[0].image == image(BLOCKS, given_parts)


def test_byte_by_byte_gives_the_same() -> None:
    few = [[Page(0, 0, DATA_PAGE), Page(0, 1, b"\0"), Page(1, 2, b"\x01")]]
    content = stream(BLOCKS, few)
    assert parse(content, range(1, len(content)))[0].image == image(BLOCKS, few)


def test_a_stream_cut_anywhere_is_truncated_and_never_an_image() -> None:
    few = stream([("pc.ram", 30)], [[Page(0, number, b"\0") for number in range(30)], [Page(0, 3, DATA_PAGE)]])
    for length in range(len(few)):
        _, migration = feed(few[:length])
        with pytest.raises(StreamTruncated):
            migration.finish()


def test_a_long_run_is_handed_on_in_few_calls() -> None:
    images, _ = parse(stream(BLOCKS, [[Page(0, number, DATA_PAGE) for number in range(400)]]))
    assert images.calls <= 4


def test_progress_is_told_by_passes_over_memory() -> None:
    _, migration = feed(stream(BLOCKS, [first_pass(), [Page(0, 9, b"\0")], [Page(0, 9, b"\0"), Page(1, 0, b"\0")]]))
    assert migration.iteration == 3
    assert migration.ram_bytes_total == 403 * PAGE
    assert migration.pass_bytes_done == 401 * PAGE
    assert migration.read_bytes == (403 + 1 + 2) * PAGE
    assert migration.bytes_fed == len(stream(BLOCKS, [first_pass(), [Page(0, 9, b"\0")], [Page(0, 9, b"\0"), Page(1, 0, b"\0")]]))


def headers_of(content: bytes) -> list[int]:
    """Where the record headers of ``WHOLE`` are, found by walking it as its writer wrote it."""
    found, at = [], content.index(struct.pack(">Q", 403 * PAGE | 0x04))
    end = content.index(b"\x04" + struct.pack(">I", 40) + b"\x03cpu")
    while at < end:
        found.append(at)
        flags = struct.unpack_from(">Q", content, at)[0] & 0xFFF
        at += 8
        if flags & 0x04:
            at = content.index(struct.pack(">Q", 0x10), at)
        elif flags == 0x10:
            at += 5 + 5  # footer, and the next section's kind and id
        else:
            at += (0 if flags & CONTINUE else 1 + content[at]) + (PAGE if flags & DATA else 1)
    return found


HEADERS = headers_of(WHOLE)


def test_the_walk_over_the_headers_finds_every_record() -> None:
    assert len(HEADERS) == 1 + 403 + 2 + 3


@settings(max_examples=400)
@given(st.sampled_from(HEADERS), st.integers(0, 11))
def test_a_flipped_flag_is_an_error(at: int, bit: int) -> None:
    garbled = bytearray(WHOLE)
    garbled[at + 6 : at + 8] = (int.from_bytes(WHOLE[at + 6 : at + 8], "big") ^ (1 << bit)).to_bytes(2, "big")
    with pytest.raises((StreamMalformed, StreamTruncated)):
        parse(bytes(garbled))


@settings(max_examples=400)
@given(st.integers(0, len(WHOLE) - 1), st.binary(min_size=1, max_size=9), st.lists(st.integers(0, len(WHOLE)), max_size=3))
def test_garbage_anywhere_ends_in_our_errors_or_in_an_image_of_the_same_shape(at: int, garbage: bytes, cuts: list[int]) -> None:
    garbled = WHOLE[:at] + garbage + WHOLE[at + len(garbage) :]
    with contextlib.suppress(StreamMalformed, StreamTruncated):
        images, _ = parse(garbled, cuts)
        assert [len(block) for block in images.image] == [400 * PAGE, 3 * PAGE]


@given(st.binary(max_size=300))
def test_garbage_is_an_error_and_nothing_else(garbage: bytes) -> None:
    with pytest.raises((StreamMalformed, StreamTruncated)):
        parse(garbage)


RAM = header() + start(BLOCKS)


def ram_record(flags: int, body: bytes = b"", offset: int = 0) -> tuple[bytes, int]:
    """A stream whose first record in a part is this one, and where that record stands."""
    return RAM + section(2, struct.pack(">Q", offset | flags) + body), len(RAM) + 5


NAMED = counted("pc.ram")


@pytest.mark.parametrize(
    ("content", "at", "what"),
    [
        (*ram_record(0x40 | CONTINUE), "XBZRLE"),
        (*ram_record(0x80), "RDMA"),
        (*ram_record(0x100 | CONTINUE), "compressed"),
        (*ram_record(0x200), "multifd"),
        (*ram_record(0x01), "full"),
        (*ram_record(0x00), "not understood"),
        (*ram_record(DATA | FILL, NAMED + DATA_PAGE), "not understood"),
        (*ram_record(0x04, offset=PAGE), "not understood"),
        (*ram_record(DATA | CONTINUE, DATA_PAGE), "no block"),
        (*ram_record(DATA, counted("vga.vram") + DATA_PAGE), "vga.vram"),
        (*ram_record(FILL, NAMED + b"\0", offset=400 * PAGE), "page 400 of the block 'pc.ram'"),
        (*ram_record(DATA, NAMED + DATA_PAGE, offset=1 << 40), "pc.ram"),
        (RAM + section(2, b"", 9), len(RAM), "section 9"),
        (RAM + section(2, b"")[:-1] + b"\x09", len(RAM) + 13, "footer 9"),
        (RAM + section(2, b"")[:-5] + b"\x02" * 5, len(RAM) + 13, "footer"),
        (RAM + RAM[len(header()) :], len(RAM), "second start"),
        (RAM + device(CPU, CPU_STATE), len(RAM), "cpu"),
        (RAM + b"\0", len(RAM), "0x00"),
        (RAM + b"\x08\0\x03\0\x10", len(RAM), "command 00030010"),
        (header() + section(1, counted("dirty-bitmap") + struct.pack(">II", 0, 1)), len(header()), "dirty-bitmap"),
        (header() + section(1, counted("ram") + struct.pack(">II", 0, 3)), len(header()), "version 3"),
        (header() + start([("a", 1), ("a", 1)]), len(header()) + 5 + 4 + 8 + 8 + 10, "second block b'a'"),
        (header() + start([("a\n", 1)]), len(header()) + 5 + 4 + 8 + 8 + 1, "name"),
        (header() + section(1, counted("ram") + struct.pack(">II", 0, 4)), len(header()) + 17, "not understood"),
        (header() + b"\x05" + counted("configuration/capabilities"), len(header()), "configuration/capabilities"),
        (header().replace(b"\0\0\0\x03", b"\0\0\0\x02") + bytes(9), 0, "magic"),
        (header()[:8] + b"\x01" + bytes(20), 8, "configuration"),
        (header()[:8] + b"\x07\xff\0\0\0" + bytes(20), 8, "machine type"),
    ],
)
def test_what_is_unknown_is_named_with_its_offset(content: bytes, at: int, what: str) -> None:
    for cuts in ((), range(1, len(content), 7)):
        with pytest.raises(StreamMalformed) as caught:
            parse(content, cuts)
        assert what in str(caught.value)
        assert f"at offset {at} (" in str(caught.value)


@pytest.mark.parametrize(
    ("magic", "name"), [(b"\x1f\x8b\x08", "gzip"), (b"BZh9", "bzip2"), (b"\xfd7zXZ\0", "xz"), (b"\x89LZO\0\r\n", "lzop")]
)
def test_a_stream_that_the_host_compresses_is_refused_with_the_setting_that_does_it(magic: bytes, name: str) -> None:
    with pytest.raises(StreamMalformed, match=f"{name}.*dump_image_format"):
        parse(magic + bytes(100))


def test_a_page_outside_its_block_in_the_middle_of_a_run_is_named_with_its_offset() -> None:
    run = records([Page(1, number, b"\0") for number in range(2)] + [Page(1, number, DATA_PAGE) for number in range(40)], BLOCKS)
    content = RAM + section(2, run)
    bad = len(RAM) + 5 + (9 + 8) + 9 + 3 * (PAGE + 8)
    with pytest.raises(StreamMalformed, match=rf"page 3 of the block 'pc.bios', which has 3, at offset {bad} "):
        parse(content)


def test_what_newer_versions_add_without_a_meaning_for_memory_is_taken() -> None:
    uuid = b"\x05" + counted("configuration/uuid") + struct.pack(">I", 1) + bytes(16)
    switchover = b"\x08" + struct.pack(">HH", 11, 0)
    few = [Page(0, 1, DATA_PAGE)]
    content = header() + uuid + start(BLOCKS) + switchover + section(3, records(few, BLOCKS)) + description([])
    assert parse(content)[0].image == image(BLOCKS, [few])


def test_device_state_without_an_end_is_not_collected_for_ever() -> None:
    migration = feed(RAM + section(3, b""))[1]
    for _ in range(64):
        migration.feed(memoryview(bytes(1 << 20)))
    with pytest.raises(StreamMalformed, match="64 MiB"):
        migration.feed(memoryview(b"x"))


# -- the devices


def devices(state: bytes, described: Sequence[dict[str, Any]], more: bytes = b"") -> Machine:
    return parse(RAM + section(3, b"") + state + description(described) + more)[1]


def test_fields_are_read_by_their_description() -> None:
    machine = devices(device(CPU, CPU_STATE), [CPU])
    (cpu,) = machine.named("cpu")
    assert machine.name == "pc-q35-7.2"
    assert (cpu.name, cpu.instance, cpu.version, cpu.device) == ("cpu", 0, 12, "cpu")
    assert cpu.integers("env.regs") == (7, 2**63)
    assert cpu.integers("env.segs", "selector") == (16, 24)
    assert cpu.integer("offset") == -5
    assert cpu.content("own") == b"own"
    tsc = cpu.subsection("cpu/tsc")
    assert tsc is not None
    assert tsc.integer("tsc") == 99
    assert cpu.subsection("cpu/absent") is None
    with pytest.raises(KeyError, match=r"env\.absent"):
        cpu.integers("env.absent")
    with pytest.raises(ValueError, match="no number"):
        cpu.integer("own")


def test_device_state_may_look_like_a_description() -> None:
    plain = {"name": "p", "instance_id": 0, "vmsd_name": "p", "version": 1}
    lure = b"\0\x06\0\0\0\x02{}"
    described = {**plain, "fields": [{"name": "data", "type": "buffer", "size": len(lure)}]}
    assert devices(device(described, lure), [described]).sections[0].content("data") == lure


def without(field: str) -> dict[str, Any]:
    described = copy.deepcopy(CPU)
    described["fields"] = [each for each in described["fields"] if each["name"] != field]
    return described


@pytest.mark.parametrize(
    ("state", "described", "what"),
    [
        (device(CPU, CPU_STATE), [], "nothing describes"),
        (b"", [CPU], "more is described"),
        (device(CPU, CPU_STATE), [{**CPU, "name": "apic"}], "the section 'cpu'"),
        (device(CPU, CPU_STATE), [{**CPU, "instance_id": 1}], "the section 'cpu'"),
        (device(CPU, CPU_STATE), [{**CPU, "version": 13}], "the section 'cpu'"),
        (device(CPU, CPU_STATE) * 2, [CPU, CPU], "which another one has"),
        (device(CPU, CPU_STATE)[:-1] + b"\x09", [CPU], "the footer 9"),
        (device(CPU, CPU_STATE + b"\0"), [CPU], "the footer of 'cpu'"),
        (device(CPU, CPU_STATE[:-1]), [CPU], "more is described|footer"),
        (device(CPU, CPU_STATE), [without("own")], "the subsection 'cpu/tsc'"),
        (device(CPU, CPU_STATE.replace(b"cpu/tsc", b"cpu/tsx")), [CPU], "the subsection 'cpu/tsx'"),
        (device(CPU, CPU_STATE), [{**CPU, "fields": [{"name": "x", "type": "uint8", "size": 10**9}]}], "more than there are"),
        (device(CPU, CPU_STATE), [{**CPU, "fields": [{"name": "x", "type": "uint8", "size": -1}]}], "makes no sense"),
        (device(CPU, CPU_STATE), [{**CPU, "fields": [{"name": "x"}]}], "makes no sense"),
        (device(CPU, CPU_STATE), [{**CPU, "fields": None}], "makes no sense"),
    ],
)
def test_state_and_description_must_agree_to_the_byte(state: bytes, described: list[dict[str, Any]], what: str) -> None:
    with pytest.raises(StreamMalformed, match=what) as caught:
        devices(state, described)
    assert "at offset" in str(caught.value)


def test_a_struct_must_be_as_long_as_its_description_says() -> None:
    described = copy.deepcopy(CPU)
    described["fields"][1]["size"] = 5
    with pytest.raises(StreamMalformed, match=r"a struct 'env\.segs' of 8 bytes where 10"):
        devices(device(CPU, CPU_STATE), [described])


def test_bytes_behind_the_end_are_not_an_end() -> None:
    with pytest.raises(StreamTruncated):
        devices(device(CPU, CPU_STATE), [CPU], b"\0")


def test_a_description_that_is_no_json_is_an_error() -> None:
    with pytest.raises(StreamMalformed, match="description of the devices that is not one"):
        parse(RAM + section(3, b"") + b"\0\x06\0\0\0\x05{nope")


@settings(max_examples=300)
@given(st.data())
def test_garbled_device_state_ends_in_our_errors_or_reads_as_described(data: st.DataObject) -> None:
    tail = device(CPU, CPU_STATE) + description([CPU])
    at = data.draw(st.integers(0, len(tail) - 1))
    garbage = data.draw(st.binary(min_size=1, max_size=4))
    garbled = tail[:at] + garbage + tail[at + len(garbage) :]
    with contextlib.suppress(StreamMalformed, StreamTruncated):
        _, machine = parse(RAM + section(3, b"") + garbled)
        assert len(machine.sections) == 1
