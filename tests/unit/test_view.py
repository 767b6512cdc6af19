"""The view: what the feed's first message says, folded from the changes."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from app.changes import Changes
from app.model import (
    Activity,
    Domain,
    DomainState,
    DumpRecord,
    HypervisorStatus,
    Job,
    Link,
    Phase,
    Progress,
    Room,
    Sighting,
    Stats,
    Wish,
    rfc3339,
)
from app.web import answers
from app.web.view import NEWEST_ACTIVITY, NEWEST_JOBS, NEWEST_RECORDS, View
from tests.unit.test_lines import MANIFEST

NOW = datetime(2026, 11, 23, 10, 30, tzinfo=UTC)
NO_STATS = Stats(total_dumps=0, total_vms=0, total_size_bytes=0, avg_duration_sec=0.0, last_dump=None)


def job(number: int, phase: Phase = Phase.COMPLETED) -> Job:
    return Job(
        job_id=f"job-{number}",
        trigger_id="t",
        uuid="u",
        vm_id="1",
        dom="vm",
        wish=Wish(mode="auto", compression="gzip"),
        phase=phase,
        requested_at=NOW,
    )


def line(number: int) -> Activity:
    return Activity(at=NOW + timedelta(seconds=number), kind="info", code="x", message=str(number))


def record(number: int, *, second: int | None = None) -> DumpRecord:
    at = rfc3339(NOW + timedelta(seconds=number if second is None else second))
    return replace(MANIFEST, dump_id=f"dump-{number:03d}", timestamp=at)


class Watched:
    """A view that has begun."""

    def __init__(self) -> None:
        self.changes = Changes()
        self.view = View(self.changes)
        self.view.begin(jobs=(), records=(), stats=NO_STATS, activity=())

    def message(self) -> dict[str, Any]:
        """The snapshot's message, which has everything that was published."""
        snapshot = self.view.snapshot()
        assert self.changes.place_of(snapshot.cursor) == self.changes.place
        return dict(json.loads(snapshot.encoded))


@pytest.fixture
def watched() -> Watched:
    return Watched()


def ids(entries: object, name: str) -> list[str]:
    assert isinstance(entries, list)
    return [entry[name] for entry in entries]


def test_it_begins_with_what_the_stores_hold_newest_first() -> None:
    view = View(Changes())
    view.begin(
        jobs=[job(number) for number in reversed(range(60))],
        records=[msgspec.Raw(answers.encode(answers.Record.of(record(number)))) for number in reversed(range(60))],
        stats=NO_STATS,
        activity=[line(number) for number in reversed(range(30))],
    )
    message = json.loads(view.snapshot().encoded)
    assert ids(message["jobs"], "job_id") == [f"job-{number}" for number in reversed(range(10, 60))]
    assert ids(message["records"], "dump_id") == [f"dump-{number:03d}" for number in reversed(range(10, 60))]
    assert ids(message["activity"], "message") == [str(number) for number in reversed(range(10, 30))]


def test_it_begins_with_every_job_that_runs_however_many_came_after_it() -> None:
    view = View(Changes())
    jobs = [job(number, Phase.CAPTURING if number in (3, 70) else Phase.COMPLETED) for number in reversed(range(120))]
    view.begin(jobs=jobs, records=(), stats=NO_STATS, activity=())
    newest = [f"job-{number}" for number in reversed(range(120))]
    assert ids(json.loads(view.snapshot().encoded)["jobs"], "job_id") == [*newest[:51], "job-3"]


def test_its_text_is_its_message_and_but_for_the_time_is_made_once_between_two_changes(watched: Watched) -> None:
    watched.changes.publish("activity", replace(line(1), message='"now":""'))
    begun = rfc3339(datetime.now(UTC))
    snapshot, again = watched.view.snapshot(), watched.view.snapshot()
    assert snapshot.encoded.encode() == answers.encode(snapshot.message)
    assert again.message.activity is snapshot.message.activity
    assert begun <= snapshot.message.now <= again.message.now <= rfc3339(datetime.now(UTC))
    watched.changes.publish("stats", replace(NO_STATS, total_dumps=1))
    watched.message()
    assert watched.view.snapshot().message.activity is not snapshot.message.activity
    assert watched.view.snapshot().message.stats.total_dumps == 1


def test_jobs_that_have_not_ended_stay_however_many_there_are(watched: Watched) -> None:
    for number in range(80):
        watched.changes.publish("job", job(number, Phase.QUEUED))
    for number in range(80, 200):
        watched.changes.publish("job", job(number))
    found = ids((watched.message())["jobs"], "job_id")
    assert found == [f"job-{number}" for number in (*reversed(range(150, 200)), *reversed(range(80)))]
    assert NEWEST_JOBS == 50


def test_a_job_keeps_its_place_when_it_changes(watched: Watched) -> None:
    for number in range(3):
        watched.changes.publish("job", job(number, Phase.QUEUED))
    watched.changes.publish("job", job(0, Phase.PREPARING))
    message = watched.message()
    assert ids(message["jobs"], "job_id") == ["job-2", "job-1", "job-0"]
    assert ids(message["jobs"], "phase") == ["queued", "queued", "preparing"]


def test_progress_is_shown_and_one_of_an_unknown_job_is_not(watched: Watched) -> None:
    progress = Progress(bytes_done=5, bytes_total=10, rate_bytes_per_sec=1.0, eta_sec=5.0, guest_paused=True)
    watched.changes.publish("job", job(1, Phase.CAPTURING))
    watched.changes.advance("job-1", Phase.CAPTURING, progress)
    watched.changes.advance("job-9", Phase.CAPTURING, progress)
    jobs = (watched.message())["jobs"]
    assert isinstance(jobs, list)
    assert [entry["progress"] for entry in jobs] == [{
        "bytes_done": 5, "bytes_total": 10, "rate_bytes_per_sec": 1.0, "eta_sec": 5.0, "guest_paused": True, "iteration": 0,
        "mode": None,
    }]  # fmt: skip


def test_records_are_in_the_order_of_their_time_not_of_their_coming(watched: Watched) -> None:
    for number, second in ((1, 10), (2, 30), (3, 20), (4, 20)):
        watched.changes.publish("record", record(number, second=second))
    assert ids((watched.message())["records"], "dump_id") == ["dump-002", "dump-004", "dump-003", "dump-001"]


def test_only_the_newest_records_and_lines_stay(watched: Watched) -> None:
    for number in range(60):
        watched.changes.publish("record", record(number))
        watched.changes.publish("activity", line(number))
    watched.changes.publish("record", record(999, second=-5))  # older than all that are shown
    message = watched.message()
    assert ids(message["records"], "dump_id") == [f"dump-{number:03d}" for number in reversed(range(60 - NEWEST_RECORDS, 60))]
    assert ids(message["activity"], "message") == [str(number) for number in reversed(range(60 - NEWEST_ACTIVITY, 60))]


def test_vms_hypervisor_and_room_are_shown_as_they_were_last_told(watched: Watched) -> None:
    domain = Domain(
        uuid="u", name="vm", id=1, vmid="1", state=DomainState.RUNNING, memory_bytes=1, vcpus=1, hypervisor="kvm"
    )  # fmt: skip
    watched.changes.publish("vms", (Sighting(domain, None),))
    watched.changes.publish("vms", (Sighting(domain, "2026"), Sighting(replace(domain, name="other"), None)))
    watched.changes.publish("hypervisor", HypervisorStatus(name="kvm", uri="x", state=Link.UNREACHABLE, since=NOW, message="why"))
    watched.changes.publish("room", Room(dump_dir="/d", free_bytes=None, total_bytes=None, message="why"))
    watched.changes.publish("room", Room(dump_dir="/d", free_bytes=1, total_bytes=2, message=None))
    message = watched.message()
    assert ids(message["vms"], "name") == ["vm", "other"]
    assert message["hypervisor"] == {"name": "kvm", "uri": "x", "state": "unreachable", "since": rfc3339(NOW), "message": "why"}
    assert message["room"] == {"dump_dir": "/d", "free_bytes": 1, "total_bytes": 2, "message": None}


async def test_a_snapshot_and_the_changes_after_its_cursor_are_everything_once(watched: Watched) -> None:
    """Whenever it is taken: what it shows, and what comes after its cursor, add up."""
    for number in range(100):
        watched.changes.publish("activity", line(number))
        snapshot = watched.view.snapshot()
        after = watched.changes.place_of(snapshot.cursor)
        assert after is not None
        with watched.changes.subscribe(after.change) as subscription:
            for later in range(number % 3):
                watched.changes.publish("activity", line(1000 + later))
            rest = (await subscription.next())[0] if number % 3 else []
        shown = [entry.message for entry in snapshot.message.activity]
        assert shown[0] == str(number)
        assert [change.subject for change in rest] == [line(1000 + later) for later in range(number % 3)]
