"""The JSON API: each function is one address of the contract's section 7. Who may ask was decided by the gate."""

from __future__ import annotations

import re

from aiohttp import web

from app.access.audit import about
from app.errors import RequestError
from app.model import Wish
from app.web import answers, asked, keys, requests
from app.web.errors import ProblemError
from app.web.sight import Sight

_IDEMPOTENCY_KEY = re.compile(r"[\x20-\x7e]{1,255}")


def as_json(answer: object, *, status: int = 200) -> web.Response:
    """An answer for programs."""
    return web.Response(body=answers.encode(answer), status=status, content_type="application/json")


async def healthz(_request: web.Request) -> web.StreamResponse:
    """The process is alive and its event loop turns."""
    return as_json(answers.Health())


async def trigger(request: web.Request) -> web.StreamResponse:
    """Schedule dumps, all or nothing."""
    requests.query(request.query, requests.Query)
    wanted = requests.body(await request.read(), requests.TriggerBody)
    about("all" if wanted.all else ", ".join(wanted.vm_ids or ()))
    settings = request.app[keys.SETTINGS]
    wish = Wish(
        mode=wanted.mode or settings.mode,
        compression=wanted.compression or settings.compression,
        max_pause_ms=wanted.max_pause_ms,
        reason=wanted.reason,
        case=wanted.case,
    )
    scheduled = await Sight(request).trigger(
        wanted.vm_ids, all=bool(wanted.all), wish=wish, idempotency_key=_idempotency_key(request)
    )
    return as_json(answers.Scheduled.of(scheduled), status=202)


def _idempotency_key(request: web.Request) -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is not None and not _IDEMPOTENCY_KEY.fullmatch(key):
        raise RequestError("Idempotency-Key has to be 1 to 255 printable ASCII characters.", place="Idempotency-Key")
    return key


async def records(request: web.Request) -> web.StreamResponse:
    """A page of records, and how many match. They are JSON already, and go out as they lie in the index."""
    query = requests.query(request.query, asked.RecordsQuery)
    wanted = query.page()
    page = await Sight(request).page(wanted.filters, limit=query.limit, order=query.order, offset=wanted.offset, after=wanted.after)
    return as_json(
        answers.Records(
            records=page.records,
            count=page.count,
            limit=query.limit,
            offset=wanted.offset if wanted.after is None else None,
            next_cursor=asked.cursor_of(page.next, query.order) if page.next is not None else None,
        )
    )


async def record(request: web.Request) -> web.StreamResponse:
    """One record: the whole manifest."""
    requests.query(request.query, requests.Query)
    dump_id = request.match_info["dump_id"]
    found = await Sight(request).record(dump_id)
    if found is None:
        raise ProblemError("record-unknown", f"There is no record of a dump {dump_id!r}.")
    return as_json(answers.Manifest.of(found))


async def status(request: web.Request) -> web.StreamResponse:
    """The last trigger."""
    requests.query(request.query, requests.Query)
    return as_json(answers.Status.of(Sight(request).status()))


async def jobs(request: web.Request) -> web.StreamResponse:
    """The jobs, newest first."""
    requests.query(request.query, requests.Query)
    return as_json(answers.Jobs(jobs=tuple(answers.Job.of(job) for job in Sight(request).jobs())))


async def job(request: web.Request) -> web.StreamResponse:
    """One job."""
    requests.query(request.query, requests.Query)
    job_id = request.match_info["job_id"]
    found = await Sight(request).job(job_id)
    if found is None:
        raise _unknown_job(job_id)
    return as_json(answers.Job.of(found))


async def cancel(request: web.Request) -> web.StreamResponse:
    """Ask a job to stop. Asking again, or asking one that has ended, changes nothing."""
    requests.query(request.query, requests.Query)
    if body := await request.read():
        requests.body(body, requests.EmptyBody)
    job_id = request.match_info["job_id"]
    found = await Sight(request).cancel(job_id)
    if found is None:
        raise _unknown_job(job_id)
    about(found.dom, job_id=job_id, phase=found.phase.value)
    return as_json(answers.Job.of(found))


def _unknown_job(job_id: str) -> ProblemError:
    return ProblemError("job-unknown", f"There is no job {job_id!r}.")


async def stats(request: web.Request) -> web.StreamResponse:
    """Totals over all records, or of each VM or day in a range."""
    query = requests.query(request.query, asked.StatsQuery)
    since, until = query.bounds()
    sight = Sight(request)
    match query.by:
        case "vm":
            return as_json(answers.StatsByVm(since=since, until=until, vms=await sight.stats_by_vm(since, until)))
        case "day":
            return as_json(answers.StatsByDay(since=since, until=until, days=await sight.stats_by_day(since, until)))
    return as_json(await sight.stats())


async def activity(request: web.Request) -> web.StreamResponse:
    """What happened last, newest first."""
    query = requests.query(request.query, requests.ActivityQuery)
    lines = await Sight(request).activity(query.limit)
    return as_json(answers.ActivityLog(activity=tuple(answers.Activity.of(line) for line in lines)))


async def live_vms(request: web.Request) -> web.StreamResponse:
    """The inventory as it was last seen, running or not."""
    requests.query(request.query, requests.Query)
    return as_json(answers.LiveVms(vms=tuple(answers.Vm.of(sighting) for sighting in Sight(request).vms())))
