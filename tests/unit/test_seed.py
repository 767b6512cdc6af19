"""What the page's script begins with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from app.changes import Changes
from app.model import Phase, Versions
from app.web.answers import Job, Record
from app.web.listing import Listing, ListQuery
from app.web.seed import seed_of, shown_jobs
from app.web.view import View
from tests.unit.test_view import NO_STATS, job, line, record

RECORDS = tuple(Record.of(record(number)) for number in (2, 1, 0))


def answer(number: int, phase: Phase, vm: str) -> Job:
    return msgspec.structs.replace(Job.of(job(number, phase)), uuid=vm)


def shown(*jobs: Job) -> list[str]:
    return [job.job_id for job in shown_jobs(jobs)]


def seed(*rows: Record) -> dict[str, Any]:
    view = View(Changes())
    view.begin(jobs=[], records=[], stats=NO_STATS, activity=[line(1)])
    snapshot = msgspec.structs.replace(view.snapshot().message, records=RECORDS)
    found: dict[str, Any] = json.loads(seed_of(snapshot, listing(rows)))
    return found


def listing(rows: Sequence[Record], view: ListQuery = ListQuery()) -> Listing:  # noqa: B008 - frozen
    return Listing(view=view, records=rows, count=70, next="there", problems=())


def test_where_a_table_goes_on_that_is_not_of_the_newest_is_told() -> None:
    snapshot = View(Changes()).snapshot().message
    assert json.loads(seed_of(snapshot, listing([], ListQuery(q="a"))))["list"] == {"count": 70, "next": "there"}
    assert "list" not in json.loads(seed_of(snapshot, listing([])))


def test_jobs_that_run_are_shown_and_of_each_vm_the_last_that_ended_if_it_was_badly() -> None:
    assert shown(answer(3, Phase.QUEUED, "a"), answer(2, Phase.FAILED, "b"), answer(1, Phase.CANCELLED, "b")) == ["job-3", "job-2"]
    assert shown(answer(2, Phase.COMPLETED, "a"), answer(1, Phase.FAILED, "a")) == []
    assert shown(answer(2, Phase.FAILED, "a"), answer(1, Phase.CAPTURING, "a")) == ["job-1"]


def test_a_record_that_a_row_shows_is_not_told_again() -> None:
    found = seed(*RECORDS[:2])
    assert [one["dump_id"] for one in found["records"]] == ["dump-000"]
    assert found["rows"] == [["paused", 5.23, 14.2, 1, 1]] * 2
    assert "activity" not in found


def test_of_another_programs_record_a_row_has_no_way() -> None:
    nobody = Versions(memory_dumps="", libvirt="", qemu="")
    assert seed(msgspec.structs.replace(RECORDS[0], uuid="", versions=nobody))["rows"][0][0] is None


def test_what_a_name_holds_does_not_end_the_seed() -> None:
    named = msgspec.structs.replace(RECORDS[0], dom="</script>")
    view = View(Changes())
    snapshot = msgspec.structs.replace(view.snapshot().message, records=(named,))
    assert "</" not in seed_of(snapshot, listing([]))
