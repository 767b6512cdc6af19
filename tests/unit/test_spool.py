"""The spool: the same image in memory and on disk, room that is really reserved, an allowance that no sum exceeds."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.capture.allowance import LEDGER, Allowance, available_bytes
from app.capture.migration import Block, Migration
from app.capture.spool import MOST_NOTES, MUCH_PAGES, SLACK_BYTES, Spool, open_spool
from app.errors import DumpDirUnusable, NoSpace
from app.fifo import Rendezvous
from tests.migration_stream import PAGE, Page, image, stream

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = [("pc.ram", 600), ("pc.bios", 3)]
RAM, BIOS = Block("pc.ram", 600 * PAGE), Block("pc.bios", 3 * PAGE)
MIB = 1 << 20
ROOMY = SLACK_BYTES + 16 * MIB
NOTE = b"\x0b\0\0\0\x10\0\0\0\0\0\0\0VMCOREINFO\0\0"

Opened = Callable[[], Spool]


@pytest.fixture(params=["memory", "disk"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opened]:
    spools = []

    def make() -> Spool:
        spool = open_spool(4 * MIB, tmp_path, Rendezvous(tmp_path, None), ROOMY if request.param == "memory" else 0)
        spools.append(spool)
        assert spool.in_memory == (request.param == "memory")
        return spool

    yield make
    for spool in spools:
        spool.close()
    assert list(tmp_path.iterdir()) == []


def content(spool: Spool, block: int) -> bytes:
    into = bytearray(spool.block_list[block].size_bytes)
    spool.read(block, 0, memoryview(into))
    return bytes(into)


def numbers(*values: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(values, np.int64)


def page(start: bytes) -> bytes:
    return start.ljust(PAGE, b"\x01")


def put(spool: Spool, number: int, body: bytes, block: int = 0) -> None:
    spool.pages(block, numbers(number), np.frombuffer(body, np.uint8).reshape(1, PAGE))


@st.composite
def runs(draw: st.DrawFn) -> list[Page]:
    out: list[Page] = []
    for _ in range(draw(st.integers(0, 5))):
        first, count, step = draw(st.integers(0, 599)), draw(st.integers(1, 600)), draw(st.sampled_from((1, 1, 3)))
        kind = draw(st.sampled_from(("data", "zero", "fill", "both")))
        for at, number in enumerate(range(first, min(600, first + count * step), step)):
            byte = kind in ("zero", "fill") or (kind == "both" and at % 2)
            body = (b"\xcd" if kind == "fill" else b"\0") if byte else (number * 7 + at + 1).to_bytes(4, "big") * (PAGE // 4)
            out.append(Page(0, number, body))
    return out


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(given_parts=st.lists(runs(), min_size=1, max_size=3))
def test_what_the_stream_wrote_last_is_read(opened: Opened, given_parts: list[list[Page]]) -> None:
    with opened() as spool:
        migration = Migration(spool)
        migration.feed(memoryview(stream(BLOCKS, given_parts)))
        migration.finish()
        expected = image(BLOCKS, given_parts)
        assert [content(spool, 0), content(spool, 1)] == expected
        for first in range(0, 600, 40):
            part = expected[0][first * PAGE : (first + 40) * PAGE]
            assert spool.blank(0, first * PAGE, 40 * PAGE) == (part == bytes(len(part)))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(first=runs(), second=runs())
def test_nothing_of_a_try_that_was_given_up_is_in_the_next(opened: Opened, first: list[Page], second: list[Page]) -> None:
    with opened() as spool:
        for pages in (first, second):
            spool.clear()
            migration = Migration(spool)
            migration.feed(memoryview(stream(BLOCKS, [pages])))
            migration.finish()
        expected = image(BLOCKS, [second])
        assert [content(spool, 0), content(spool, 1)] == expected
        into = bytearray(3 * PAGE)
        spool.read(0, 4 * PAGE + 100, memoryview(into))
        assert into == expected[0][4 * PAGE + 100 :][: len(into)]


def test_a_try_that_was_given_up_leaves_no_note(opened: Opened) -> None:
    spool = opened()
    spool.blocks((RAM,))
    put(spool, 4, page(NOTE))
    spool.clear()
    spool.blocks((RAM,))
    assert spool.vmcoreinfo() == ()


def test_memory_is_held_between_two_tries(tmp_path: Path) -> None:
    with open_spool(4 * MIB, tmp_path, Rendezvous(tmp_path, None), ROOMY) as spool:
        spool.blocks((RAM,))
        spool.clear()
        assert not Allowance(tmp_path, ROOMY).take(ROOMY // 2)
        spool.blocks((RAM,))
        assert spool.in_memory


def test_room_on_disk_is_held_between_two_tries(tmp_path: Path) -> None:
    before = open_files()
    with open_spool(4 * MIB, tmp_path, Rendezvous(tmp_path, None), 0) as spool:
        spool.blocks((RAM,))
        (key,) = (key for key, stat in open_files().items() if key not in before and stat.st_size)
        spool.clear()
        assert open_files()[key].st_blocks * 512 >= 4 * MIB + SLACK_BYTES


def test_any_slice_of_a_block_is_read_and_nothing_beyond_it(opened: Opened) -> None:
    spool = opened()
    spool.blocks((RAM, BIOS))
    put(spool, 2, page(b"bios"), block=1)
    into = bytearray(6)
    spool.read(1, 2 * PAGE - 2, memoryview(into))
    assert into == b"\0\0bios"
    for offset in (-1, 3 * PAGE - 5):
        with pytest.raises(ValueError, match=r"pc\.bios"):
            spool.read(1, offset, memoryview(into))


def test_blank_is_what_holds_nothing_but_zeros_to_the_byte(opened: Opened) -> None:
    spool = opened()
    spool.blocks((RAM,))
    put(spool, 5, page(b"x"))
    assert spool.blank(0, 0, 5 * PAGE)
    assert not spool.blank(0, 0, 5 * PAGE + 1)
    assert not spool.blank(0, 6 * PAGE - 1, 10)
    assert spool.blank(0, 6 * PAGE, 594 * PAGE)
    spool.filled(0, numbers(5), np.zeros(1, np.uint8))
    assert spool.blank(0, 0, 600 * PAGE)
    assert content(spool, 0) == bytes(600 * PAGE)


def test_vmcoreinfo_pages_are_those_whose_last_copy_begins_with_the_note(opened: Opened) -> None:
    spool = opened()
    spool.blocks((RAM, BIOS))
    for number in (4, 3, 8, 9):
        put(spool, number, page(NOTE))
    put(spool, 1, page(b"\x0c" + NOTE[1:]))
    put(spool, 2, page(NOTE[:12] + b"VMCOREINF0\0"))
    put(spool, 3, page(b"gone"))
    spool.filled(0, numbers(8), np.zeros(1, np.uint8))
    put(spool, 0, page(NOTE), block=1)
    assert spool.vmcoreinfo() == ((0, 4), (0, 9), (1, 0))


def test_guest_that_is_full_of_notes_has_no_more_remembered_than_the_first_of_them(tmp_path: Path) -> None:
    count = 2 * MOST_NOTES
    notes = np.broadcast_to(np.frombuffer(page(NOTE), np.uint8), (count, PAGE))
    with open_spool(count * PAGE, tmp_path, Rendezvous(tmp_path, None), 1 << 30) as spool:
        spool.blocks((Block("pc.ram", count * PAGE),))
        spool.pages(0, np.arange(count), notes)
        assert spool.vmcoreinfo() == tuple((0, number) for number in range(MOST_NOTES))


def test_a_spool_that_is_closed_gives_nothing_more(opened: Opened) -> None:
    spool = opened()
    spool.blocks((RAM,))
    spool.close()
    spool.close()
    with pytest.raises(ValueError, match="closed"):
        spool.read(0, 0, memoryview(bytearray(1)))


def open_files() -> dict[tuple[int, int], os.stat_result]:
    found = {}
    for number in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208 - names, not paths
        with contextlib.suppress(OSError):
            stat = os.fstat(number)
            found[stat.st_dev, stat.st_ino] = stat
    return found


def test_room_on_disk_is_reserved_at_once_and_the_file_has_no_name(tmp_path: Path) -> None:
    before = open_files()
    with open_spool(4 * MIB, tmp_path, Rendezvous(tmp_path, None), 0) as spool:
        (file,) = (stat for key, stat in open_files().items() if key not in before and stat.st_size)
        assert not spool.in_memory
        assert file.st_blocks * 512 >= 4 * MIB + SLACK_BYTES
        assert file.st_nlink == 0
        assert [path.name for path in tmp_path.iterdir()] == [LEDGER]
    assert list(tmp_path.iterdir()) == []


def test_parts_that_were_never_written_cost_no_memory(tmp_path: Path) -> None:
    """In a process of its own, whose address space has no other ups and downs."""
    script = """
import sys
from pathlib import Path
import numpy as np
from app.capture.migration import Block
from app.capture.spool import open_spool
from app.fifo import Rendezvous
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
size = 1 << 30
with open_spool(size, Path(sys.argv[1]), Rendezvous(Path(sys.argv[1]), None), 2 << 30) as spool:
    assert spool.in_memory
    before = resident()
    spool.blocks((Block("pc.ram", size),))
    spool.filled(0, np.arange(size // 4096), np.zeros(size // 4096, np.uint8))
    here_and_there = np.arange(0, size // 4096, 128)
    spool.pages(0, here_and_there, np.ones((len(here_and_there), 4096), np.uint8))  # 8 MiB
    print(resident() - before)
"""
    ended = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert int(ended.stdout) < 32 * MIB


def test_what_comes_in_one_piece_is_read_back_wherever_huge_pages_begin_and_end(tmp_path: Path) -> None:
    pages = 3 * MUCH_PAGES + 5
    content = np.repeat(np.arange(1, pages + 1, dtype=np.uint16).astype(np.uint8)[:, None], 4096, axis=1)
    with open_spool(16 * MIB, tmp_path, Rendezvous(tmp_path, None), 64 * MIB) as spool:
        spool.blocks((Block("vga.vram", 5 * 4096), Block("pc.ram", 16 * MIB)))
        for first in (0, 700, 16 * MIB // 4096 - pages):
            spool.pages(1, np.arange(first, first + pages), content)
            into = bytearray(pages * 4096)
            spool.read(1, first * 4096, memoryview(into))
            assert bytes(into) == content.tobytes()


def test_room_that_is_nowhere_is_missed_before_the_guest_is_touched(tmp_path: Path) -> None:
    stat = os.statvfs(tmp_path)
    with pytest.raises(NoSpace):
        open_spool(stat.f_blocks * stat.f_frsize * 2, tmp_path, Rendezvous(tmp_path, None), 0)


def test_a_guest_that_is_larger_than_said_goes_to_disk_if_the_memory_is_not_there(tmp_path: Path) -> None:
    with open_spool(4 * MIB, tmp_path, Rendezvous(tmp_path, None), ROOMY) as spool:
        assert spool.in_memory
        spool.blocks((Block("pc.ram", ROOMY + PAGE),))
        assert not spool.in_memory
        put(spool, ROOMY // PAGE, page(b"the last one"))
        into = bytearray(12)
        spool.read(0, ROOMY, memoryview(into))
        assert into == b"the last one"
    assert list(tmp_path.iterdir()) == []


def test_a_guest_that_is_larger_than_said_takes_more_of_the_allowance(tmp_path: Path) -> None:
    with open_spool(4 * MIB, tmp_path, Rendezvous(tmp_path, None), 2 * ROOMY) as spool:
        spool.blocks((Block("pc.ram", 2 * ROOMY),))
        assert spool.in_memory
        assert not Allowance(tmp_path, 2 * ROOMY).take(PAGE)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DumpDirUnusable, match="gone"):
        open_spool(4 * MIB, tmp_path / "gone", Rendezvous(tmp_path / "gone", None), 0)


def test_a_disk_that_runs_full_in_the_middle_is_no_space(tmp_path: Path) -> None:
    """A real limit of the kernel (RLIMIT_FSIZE, which gives EFBIG) stands for it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with open_spool(4 * MIB, tmp_path, Rendezvous(tmp_path, None), 0) as spool:
        spool.blocks((RAM,))
        resource.setrlimit(resource.RLIMIT_FSIZE, (100 * PAGE, before[1]))
        try:
            put(spool, 99, page(b"fits"))
            with pytest.raises(NoSpace):
                put(spool, 100, page(b"does not"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


# -- the allowance


def test_no_sum_exceeds_the_allowance_and_what_is_given_back_can_be_taken_again(tmp_path: Path) -> None:
    one, two, three = (Allowance(tmp_path, 100 * MIB) for _ in range(3))
    assert one.take(40 * MIB)
    assert two.take(40 * MIB)
    assert not three.take(30 * MIB)
    assert three.take(20 * MIB)
    one.give_back()
    two.give_back()
    assert three.take(80 * MIB), "the room is in two pieces, and fits"
    assert not one.take(1)
    three.give_back()
    assert one.take(100 * MIB)
    one.give_back()
    assert list(tmp_path.iterdir()) == []


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 60)), max_size=25))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
def test_the_sum_is_right_whoever_comes_and_goes(tmp_path: Path, steps: list[tuple[int, int]]) -> None:
    captures = [Allowance(tmp_path, 100) for _ in range(5)]
    held = [0] * 5
    for who, size in steps:
        if held[who] > 40:
            captures[who].give_back()
            held[who] = 0
        elif captures[who].take(size):
            held[who] += size
            assert sum(held) <= 100
        else:
            assert sum(held) + size > 100
        assert captures[who].taken_bytes == held[who]
    for each in captures:
        each.give_back()
    assert list(tmp_path.iterdir()) == []


HOLDER = """
import sys
from pathlib import Path
from app.capture.allowance import Allowance
taken = Allowance(Path(sys.argv[1]), 100 << 20)
print(taken.take(60 << 20), flush=True)
sys.stdin.read()
"""


def test_what_a_killed_capture_had_taken_is_free_at_once(tmp_path: Path) -> None:
    mine = Allowance(tmp_path, 100 * MIB)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        assert not mine.take(60 * MIB)
        other.kill()
    assert mine.take(60 * MIB)
    mine.give_back()
    assert list(tmp_path.iterdir()) == []


def test_more_than_the_machine_has_is_not_taken_whatever_is_allowed(tmp_path: Path) -> None:
    mine = Allowance(tmp_path, 1 << 50)
    assert not mine.take(available_bytes() * 2)
    assert not mine.take(MIB, beside_bytes=available_bytes() * 2)
    assert mine.take(MIB)
    mine.give_back()


def test_without_a_setting_it_is_a_quarter_of_what_is_available(tmp_path: Path) -> None:
    mine = Allowance(tmp_path)
    assert not mine.take(available_bytes() // 3)
    assert mine.take(available_bytes() // 5)
    mine.give_back()


def test_a_ledger_that_cannot_be_made_allows_nothing(tmp_path: Path) -> None:
    assert not Allowance(tmp_path / "gone", 100).take(1)
    (tmp_path / LEDGER).symlink_to(tmp_path / "elsewhere")
    assert not Allowance(tmp_path, 100).take(1)
    assert not (tmp_path / "elsewhere").exists()


def test_a_ledger_that_is_deleted_under_a_capture_harms_nobody(tmp_path: Path) -> None:
    one, two = Allowance(tmp_path, 100), Allowance(tmp_path, 100)
    assert one.take(60)
    (tmp_path / LEDGER).unlink()
    assert two.take(60)
    one.give_back()
    assert (tmp_path / LEDGER).exists(), "it is the other's"
    two.give_back()
    assert list(tmp_path.iterdir()) == []


MEMINFO = "MemTotal:       100 kB\nMemAvailable:       80 kB\n"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 80 * 1024),
        ({"proc/self/cgroup": "0::/\n"}, 80 * 1024),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/b/memory.max": "max\n",
                "sys/fs/cgroup/a/b/memory.current": "1000\n",
                "sys/fs/cgroup/a/memory.max": "50000\n",
                "sys/fs/cgroup/a/memory.current": "30000\n",
                "sys/fs/cgroup/a/memory.stat": "anon 1\ninactive_file 2000\n",
            },
            22_000,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu,memory:/a\n0::/\n",
                "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "40000\n",
                "sys/fs/cgroup/memory/a/memory.usage_in_bytes": "30000\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "30000\n",
            },
            10_000,
        ),
        (
            {
                "proc/self/cgroup": "0::/of/the/host\n",
                "sys/fs/cgroup/memory.max": "7000\n",
                "sys/fs/cgroup/memory.current": "9000\n",
            },
            0,
        ),
    ],
    ids=["none", "v2 root", "v2 above", "v1", "container, full"],
)
def test_what_is_available_is_the_least_of_machine_and_cgroups(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    for name, text in {"proc/meminfo": MEMINFO, **files}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert available_bytes(tmp_path) == expected


def test_the_capture_process_offers_itself_to_be_killed_first(tmp_path: Path) -> None:
    script = "from app.capture.allowance import first_to_be_killed as f; f(); print(open('/proc/self/oom_score_adj').read())"
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout.strip() == "1000"
