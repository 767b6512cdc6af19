"""The state: what is committed stays, what is not leaves no trace, and other processes are respected and noticed."""

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.errors import StateInUse, StateUnwritable
from app.state import READERS, State, lock_state
from tests.other_process import beside, run

SCHEMA = "CREATE TABLE IF NOT EXISTS words (number INTEGER PRIMARY KEY, word TEXT NOT NULL UNIQUE) STRICT;"
SOON_SEC = 0.05

OTHER_ADDS = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=0)
connection.execute("INSERT INTO words (word) VALUES ('other')")
connection.commit()
"""
OTHER_READS = """
import sqlite3, sys
print(*(word for (word,) in sqlite3.connect(sys.argv[1]).execute("SELECT word FROM words ORDER BY number")))
"""
OTHER_HOLDS_THE_LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""
OTHER_OPENS_WHEN_TOLD = """
import pathlib, sys
from app.state import State
print("ready", flush=True)
sys.stdin.read()
State.open(pathlib.Path(sys.argv[1]), sys.argv[2]).close()
"""
OTHER_WRITES_FOR_EVER = """
import itertools, pathlib, sys
from app.state import State
state = State.open(pathlib.Path(sys.argv[1]), sys.argv[2])
for n in itertools.count():
    state.run_now(lambda connection: connection.execute("INSERT INTO words (word) VALUES (?)", (str(n),)).rowcount)
    print(n, flush=True)
"""
OTHER_SERVICE = """
import pathlib, sys
from app.state import lock_state
lock = lock_state(pathlib.Path(sys.argv[1]))
print("serves", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "memory-dumps.sqlite3"


@pytest.fixture
async def state(file: Path) -> AsyncIterator[State]:
    with contextlib.closing(State.open(file, SCHEMA, busy_sec=SOON_SEC)) as state:
        yield state


def add(word: str) -> Callable[[sqlite3.Connection], None]:
    def work(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO words (word) VALUES (?)", (word,))

    return work


def words(connection: sqlite3.Connection) -> list[str]:
    return [word for (word,) in connection.execute("SELECT word FROM words ORDER BY number")]


class Gated:
    """Work that says when it has begun, and ends only when it may. Belongs to a running loop."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.may_end = threading.Event()
        self._loop = asyncio.get_running_loop()

    def work(self, connection: sqlite3.Connection) -> None:
        add("gated")(connection)
        self._wait()

    def look(self, connection: sqlite3.Connection) -> list[str]:
        """What is seen at the end of a reading that began before."""
        words(connection)
        self._wait()
        return words(connection)

    def _wait(self) -> None:
        self._loop.call_soon_threadsafe(self.begun.set)
        assert self.may_end.wait(20)


# --- transactions -------------------------------------------------------------------------------------------------


async def test_what_was_written_is_there_after_the_file_is_opened_again(file: Path, state: State) -> None:
    await state.run(add("kept"))
    state.close()
    with contextlib.closing(State.open(file, SCHEMA)) as again:
        assert again.run_now(words) == ["kept"]


async def test_work_that_raises_leaves_nothing_of_itself(state: State) -> None:
    def work(connection: sqlite3.Connection) -> None:
        add("half")(connection)
        raise LookupError("the rest does not exist")

    with pytest.raises(LookupError):
        await state.run(work)
    assert await state.read(words) == []
    await state.run(add("next"))
    assert await state.read(words) == ["next"]


async def test_a_broken_constraint_is_the_callers_affair_and_no_fault_of_the_file(state: State) -> None:
    await state.run(add("once"))
    with pytest.raises(sqlite3.IntegrityError):
        await state.run(add("once"))
    assert await state.read(words) == ["once"]


async def test_one_thread_writes_others_read_and_none_is_the_event_loops(state: State) -> None:
    wrote = set(await asyncio.gather(*(state.run(lambda _: threading.get_ident()) for _ in range(5))))
    read = set(await asyncio.gather(*(state.read(lambda _: threading.get_ident()) for _ in range(5))))
    assert len(wrote) == 1
    assert not wrote & read
    assert threading.get_ident() not in wrote | read


async def test_who_only_reads_cannot_write(state: State) -> None:
    with pytest.raises(StateUnwritable):
        await state.read(add("smuggled"))
    assert await state.read(words) == []


async def test_slow_reading_delays_neither_a_commit_nor_a_quick_question(state: State) -> None:
    """More of it than there are threads for, and all of it under way until the rest is done."""
    may_end = threading.Event()
    slow = [asyncio.create_task(state.read(lambda _: may_end.wait(20), slow=True)) for _ in range(READERS + 1)]
    await state.run(add("meanwhile"))
    assert await state.read(words) == ["meanwhile"]
    may_end.set()
    assert await asyncio.gather(*slow) == [True] * (READERS + 1)


async def test_a_reader_sees_one_moment_while_others_commit(state: State) -> None:
    gated = Gated()
    reading = asyncio.create_task(state.read(gated.look))
    await gated.begun.wait()
    await state.run(add("later"))
    gated.may_end.set()
    assert await reading == []
    assert await state.read(words) == ["later"]


async def test_closing_waits_for_who_still_reads(state: State) -> None:
    gated = Gated()
    reading = asyncio.create_task(state.read(gated.look, slow=True))
    await gated.begun.wait()
    with ThreadPoolExecutor(1) as threads:
        closing = threads.submit(state.close)
        gated.may_end.set()
        await asyncio.gather(reading, asyncio.wrap_future(closing))


async def test_work_goes_to_its_end_though_the_task_that_waits_is_cancelled(state: State) -> None:
    gated = Gated()
    task = asyncio.create_task(state.run(gated.work))
    await gated.begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gated.may_end.set()
    assert await state.run(words) == ["gated"]


async def test_work_that_waits_for_its_turn_is_not_begun_when_its_task_is_cancelled(state: State) -> None:
    gated = Gated()
    first = asyncio.create_task(state.run(gated.work))
    await gated.begun.wait()
    second = asyncio.create_task(state.run(add("never")))
    await asyncio.sleep(0)  # one turn of the loop: now it stands in the queue
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    gated.may_end.set()
    await first
    assert await state.read(words) == ["gated"]


async def test_closing_waits_for_what_was_begun_and_a_second_time_does_nothing(file: Path, state: State) -> None:
    gated = Gated()
    task = asyncio.create_task(state.run(gated.work))
    await gated.begun.wait()
    with ThreadPoolExecutor(1) as threads:
        closing = threads.submit(state.close)
        gated.may_end.set()
        await asyncio.gather(task, asyncio.wrap_future(closing))
    state.close()
    with contextlib.closing(State.open(file, SCHEMA)) as again:
        assert again.run_now(words) == ["gated"]


def test_threads_may_ask_at_the_same_time(file: Path) -> None:
    with contextlib.closing(State.open(file, SCHEMA)) as state, ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda n: state.run_now(add(str(n))), range(50)))
        assert sorted(map(int, state.run_now(words))) == list(range(50))


# --- other processes ----------------------------------------------------------------------------------------------


async def test_the_data_version_tells_of_another_process_alone(file: Path, state: State) -> None:
    before = await state.data_version()
    await state.run(add("own"))
    assert await state.data_version() == before
    assert run(OTHER_ADDS, file).returncode == 0
    assert await state.data_version() != before
    assert await state.read(words) == ["own", "other"]


async def test_opening_the_file_again_is_no_news(file: Path, state: State) -> None:
    before = await state.data_version()
    State.open(file, SCHEMA).close()
    assert await state.data_version() == before


async def test_opening_the_file_again_in_one_process_does_not_drop_the_locks_on_it(file: Path, state: State) -> None:
    """POSIX drops all locks of a process on a file when that process closes any descriptor of the file. Another process
    would then take itself for the last one and remove the write-ahead log that is in use here."""
    await state.run(add("before"))
    State.open(file, SCHEMA).close()
    assert run(OTHER_ADDS, file).returncode == 0
    assert file.with_name(f"{file.name}-wal").exists()
    await state.run(add("after"))
    assert run(OTHER_READS, file).stdout.split() == ["before", "other", "after"]


async def test_while_another_process_holds_the_lock_writing_fails_with_advice_and_reading_goes_on(file: Path, state: State) -> None:
    await state.run(add("before"))
    with beside(OTHER_HOLDS_THE_LOCK, file) as other:
        assert other.line() == "locked"
        with pytest.raises(StateUnwritable, match=rf"{file} cannot be written.*Another process keeps it locked"):
            await state.run(add("during"))
        assert await state.read(words) == ["before"]
        assert other.end() == 0
    await state.run(add("after"))
    assert await state.read(words) == ["before", "after"]


def test_a_new_file_that_another_process_keeps_locked_is_waited_for_no_longer_than_said(file: Path) -> None:
    file.parent.mkdir()
    with beside(OTHER_HOLDS_THE_LOCK, file) as other:
        assert other.line() == "locked"
        with pytest.raises(StateUnwritable, match="Another process keeps it locked"):
            State.open(file, SCHEMA, busy_sec=SOON_SEC)


def test_many_processes_may_open_a_new_file_at_the_same_moment(file: Path) -> None:
    with contextlib.ExitStack() as processes:
        others = [processes.enter_context(beside(OTHER_OPENS_WHEN_TOLD, file, SCHEMA)) for _ in range(4)]
        assert [other.line() for other in others] == ["ready"] * 4
        for other in others:
            other.go_on()
        assert [other.end() for other in others] == [0] * 4


@pytest.mark.parametrize("told_before", [1, 50, 200])
def test_what_was_committed_survives_a_sigkill_of_the_process_that_writes(file: Path, told_before: int) -> None:
    with beside(OTHER_WRITES_FOR_EVER, file, SCHEMA) as writer:
        told = [writer.line() for _ in range(told_before)]
        told += [line.rstrip("\n") for line in writer.kill().splitlines(keepends=True) if line.endswith("\n")]
    with contextlib.closing(State.open(file, SCHEMA)) as state:
        kept = state.run_now(words)
    assert kept[: len(told)] == told
    assert len(kept) - len(told) in (0, 1), "the last one may have been committed and not told any more"


# --- one service a state directory --------------------------------------------------------------------------------


def test_a_second_service_is_told_who_uses_the_directory_and_what_to_do(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    with beside(OTHER_SERVICE, folder) as service:
        assert service.line() == "serves"
        with pytest.raises(StateInUse, match=rf"process {service.pid}.*{folder}.*Stop it.*MEMDUMP_STATE_DIR"):
            lock_state(folder)
        service.kill()
        lock_state(folder).close()  # its end, however sudden, lets the next one in


def test_a_closed_lock_lets_the_next_service_in_and_closing_twice_harms_nobody(tmp_path: Path) -> None:
    first = lock_state(tmp_path)
    first.close()
    with contextlib.closing(lock_state(tmp_path)):
        first.close()
        with pytest.raises(StateInUse):
            lock_state(tmp_path)


def test_the_command_line_writes_beside_a_service(file: Path) -> None:
    with contextlib.closing(lock_state(file.parent)), contextlib.closing(State.open(file, SCHEMA)) as service:
        assert run(OTHER_ADDS, file).returncode == 0
        assert service.run_now(words) == ["other"]
