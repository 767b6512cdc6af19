"""The JSON API: each function is one address of the contract's section 7. Who may ask was decided by the gate."""

from __future__ import annotations

import re

from aiohttp import web

from app.errors import RequestError
from app.model import Wish
from app.records.search import Filters
from app.web import keys, wire
from app.web.errors import ProblemError

MOST_RECORDS = 10_000
MOST_ACTIVITY = 1000
_FURTHEST = 10**12
_IDEMPOTENCY_KEY = re.compile(r"[\x20-\x7e]{1,255}")


def _json(answer: object, *, status: int = 200) -> web.Response:
    return web.Response(body=wire.encode(answer), status=status, content_type="application/json")


async def healthz(_request: web.Request) -> web.StreamResponse:
    """The process is alive and its event loop turns."""
    return _json({"status": "ok"})


async def trigger(request: web.Request) -> web.StreamResponse:
    """Schedule dumps, all or nothing."""
    wire.only(request.query)
    wanted = wire.decode(await request.read(), wire.TriggerBody)
    settings = request.app[keys.SETTINGS]
    wish = Wish(
        mode=wanted.mode or settings.mode,
        compression=wanted.compression or settings.compression,
        max_pause_ms=wanted.max_pause_ms,
        reason=wanted.reason,
        case=wanted.case,
        operator=request[keys.IDENTITY].name,
    )
    scheduled = await request.app[keys.POOL].trigger(
        wanted.vm_ids, all=bool(wanted.all), wish=wish, idempotency_key=_idempotency_key(request)
    )
    return _json(wire.scheduled(scheduled), status=202)


def _idempotency_key(request: web.Request) -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is not None and not _IDEMPOTENCY_KEY.fullmatch(key):
        raise RequestError("Idempotency-Key has to be 1 to 255 printable ASCII characters.", place="Idempotency-Key")
    return key


async def records(request: web.Request) -> web.StreamResponse:
    """A page of records, newest first, and how many there are."""
    wire.only(request.query, "limit", "offset")
    limit = wire.number(request.query, "limit", 1000, low=1, high=MOST_RECORDS)
    offset = wire.number(request.query, "offset", 0, low=0, high=_FURTHEST)
    page = await request.app[keys.INDEX].page(Filters(), limit=limit, offset=offset)
    return _json({"records": page.records, "count": page.count, "limit": limit, "offset": offset, "next_cursor": None})


async def record(request: web.Request) -> web.StreamResponse:
    """One record: the whole manifest."""
    wire.only(request.query)
    dump_id = request.match_info["dump_id"]
    found = await request.app[keys.INDEX].get(dump_id)
    if found is None:
        raise ProblemError("record-unknown", f"There is no record of a dump {dump_id!r}.")
    return _json(wire.manifest(found))


async def status(request: web.Request) -> web.StreamResponse:
    """The last trigger."""
    wire.only(request.query)
    return _json(wire.status(request.app[keys.POOL].status()))


async def jobs(request: web.Request) -> web.StreamResponse:
    """The jobs, newest first."""
    wire.only(request.query)
    return _json({"jobs": [wire.job(job) for job in request.app[keys.POOL].jobs()]})


async def job(request: web.Request) -> web.StreamResponse:
    """One job."""
    wire.only(request.query)
    job_id = request.match_info["job_id"]
    found = await request.app[keys.POOL].job(job_id)
    if found is None:
        raise _unknown_job(job_id)
    return _json(wire.job(found))


async def cancel(request: web.Request) -> web.StreamResponse:
    """Ask a job to stop. Asking again, or asking one that has ended, changes nothing."""
    wire.only(request.query)
    if body := await request.read():
        wire.decode(body, wire.EmptyBody)
    job_id = request.match_info["job_id"]
    found = await request.app[keys.POOL].cancel(job_id, request[keys.IDENTITY].name)
    if found is None:
        raise _unknown_job(job_id)
    return _json(wire.job(found))


def _unknown_job(job_id: str) -> ProblemError:
    return ProblemError("job-unknown", f"There is no job {job_id!r}.")


async def stats(request: web.Request) -> web.StreamResponse:
    """Totals over all records."""
    wire.only(request.query)
    return _json(wire.stats(await request.app[keys.INDEX].stats()))


async def activity(request: web.Request) -> web.StreamResponse:
    """What happened last, newest first."""
    wire.only(request.query, "limit")
    limit = wire.number(request.query, "limit", 20, low=1, high=MOST_ACTIVITY)
    return _json({"activity": [wire.activity(line) for line in await request.app[keys.JOURNAL].activity(limit)]})


async def live_vms(request: web.Request) -> web.StreamResponse:
    """The inventory as it was last seen, running or not."""
    wire.only(request.query)
    return _json({"vms": [wire.vm(sighting) for sighting in request.app[keys.INVENTORY].sightings()]})
