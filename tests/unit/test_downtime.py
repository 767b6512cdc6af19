"""The promise to put a domain's downtime back: never lost, never taken for broken while it is kept, the owner's value wins."""

import fcntl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.downtime import SUFFIX, Downtime, Promise, broken_promises, promise, take_over
from app.fifo import FOLDER_PREFIX, Rendezvous
from tests.thorough import thorough

UUID = "a3090414-a879-482f-852d-f2fd8e7300e5"
OWNERS = Downtime(UUID, 7, 4321)
OURS = Downtime(UUID, 7, 20)


@pytest.fixture
def where(tmp_path: Path) -> Rendezvous:
    return Rendezvous(tmp_path, None)


def dead(where: Rendezvous, capture_id: str, before: Downtime) -> None:
    """A capture wrote its note, and was killed."""
    promise(where, capture_id, before).broken()


def notes(where: Rendezvous) -> list[str]:
    return sorted(path.name.removeprefix(FOLDER_PREFIX).removesuffix(SUFFIX) for path in where.directory.iterdir())


def end(promises: list[Promise]) -> list[Downtime]:
    for one in promises:
        one.broken()
    return [one.before for one in promises]


def test_a_promise_that_is_kept_leaves_nothing(where: Rendezvous) -> None:
    made = promise(where, "1", OWNERS)
    assert notes(where) == ["1"]
    assert broken_promises(where) == []
    made.kept()
    assert notes(where) == []


def test_a_dead_captures_promise_is_found_until_it_is_kept(where: Rendezvous) -> None:
    dead(where, "1", OWNERS)
    assert end(broken_promises(where)) == [OWNERS]
    (found,) = broken_promises(where)
    assert broken_promises(where) == []  # nobody else keeps it at the same time
    found.kept()
    assert notes(where) == []


@pytest.fixture
def lookers(where: Rendezvous) -> Iterator[list[Downtime]]:
    """Others who look for broken promises all the time; what they find."""
    over, found = threading.Event(), list[Downtime]()

    def look() -> None:
        while not over.is_set():
            found.extend(end(broken_promises(where)))

    with ThreadPoolExecutor(3) as pool:
        looking = [pool.submit(look) for _ in range(3)]
        yield found
        over.set()
    for one in looking:
        one.result()


@thorough
def test_a_promise_that_is_being_made_or_kept_is_neither_lost_nor_taken_for_broken(
    where: Rendezvous, lookers: list[Downtime]
) -> None:
    for number in range(1000):
        made = promise(where, str(number), OWNERS)
        assert notes(where) == [str(number)]
        made.kept()
    assert lookers == []
    assert notes(where) == []


def test_of_several_notes_the_oldest_has_the_owners_value(where: Rendezvous) -> None:
    dead(where, "1", OWNERS)
    dead(where, "2", OURS)
    assert end(broken_promises(where)) == [OWNERS]


def test_the_oldest_note_is_the_last_to_go(where: Rendezvous) -> None:
    for number in range(3):
        dead(where, str(number), OWNERS if number == 0 else OURS)
    (found,) = broken_promises(where)
    (where.directory / f"{FOLDER_PREFIX}1{SUFFIX}").unlink()
    (where.directory / f"{FOLDER_PREFIX}1{SUFFIX}").mkdir()  # cannot be unlinked: as if its keeper had died there
    found.kept()
    assert notes(where) == ["0", "1"]
    assert end(broken_promises(where)) == [OWNERS]


def test_while_somebody_holds_the_oldest_note_the_later_ones_are_left_alone(where: Rendezvous) -> None:
    dead(where, "2", OURS)
    other = Downtime("other", 8, 300)
    dead(where, "3", other)
    living = promise(where, "1", OWNERS)
    assert end(broken_promises(where)) == [other]
    living.kept()
    assert end(broken_promises(where)) == [OURS, other]


@pytest.mark.parametrize("content", [b"", b'{"uuid":"a30904'])
def test_a_note_that_is_not_whole_is_removed(where: Rendezvous, content: bytes) -> None:
    (where.directory / f"{FOLDER_PREFIX}1{SUFFIX}").write_bytes(content)
    assert broken_promises(where) == []
    assert notes(where) == []


def test_a_note_that_is_being_written_is_not_removed(where: Rendezvous) -> None:
    path = where.directory / f"{FOLDER_PREFIX}1{SUFFIX}"
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert broken_promises(where) == []
    assert notes(where) == ["1"]


def test_a_promise_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        promise(Rendezvous(tmp_path / "none", None), "1", OWNERS)
    assert broken_promises(Rendezvous(tmp_path / "none", None)) == []


# --- the next capture of the guest


def test_the_next_capture_takes_over_what_dead_ones_owe(where: Rendezvous) -> None:
    dead(where, "1", OWNERS)
    dead(where, "2", OURS)
    dead(where, "3", Downtime("other", 7, 300))
    owed = take_over(where, UUID, 7)
    assert owed is not None
    assert owed.before == OWNERS
    assert [one.uuid for one in end(broken_promises(where))] == ["other"]
    owed.kept()
    assert notes(where) == ["3"]


def test_nothing_is_owed_to_a_guest_that_was_started_anew(where: Rendezvous) -> None:
    dead(where, "1", OWNERS)
    assert take_over(where, UUID, 8) is None
    assert notes(where) == []


def test_the_next_capture_waits_for_whoever_is_putting_the_value_back(where: Rendezvous) -> None:
    dead(where, "1", OWNERS)
    (keeper,) = broken_promises(where)
    with ThreadPoolExecutor(1) as pool:
        taking = pool.submit(take_over, where, UUID, 7)
        _until_somebody_waits_for(where.directory / f"{FOLDER_PREFIX}1{SUFFIX}")
        keeper.kept()
        assert taking.result() is None
    assert notes(where) == []


def test_it_does_not_wait_for_the_capture_of_another_guest(where: Rendezvous) -> None:
    living = promise(where, "1", Downtime("other", 8, 300))
    assert take_over(where, UUID, 7) is None
    living.kept()


def _until_somebody_waits_for(path: Path) -> None:
    """Until ``/proc/locks`` (proc(5)) lists a waiter, with ``->``, for the lock of ``path``."""
    inode = path.stat().st_ino
    for _ in range(2000):
        if any("->" in line and line.split()[6].endswith(f":{inode}") for line in Path("/proc/locks").read_text().splitlines()):
            return
        threading.Event().wait(0.005)
    raise AssertionError("nobody waits")
