"""The route table: every address that the service has, and all that ``/api/openapi.json`` says of them.

What may be asked without a login stands in ``guard.PUBLIC``.
"""

from __future__ import annotations

from aiohttp import web

from app import model
from app.access import Right
from app.access.audit import Deed
from app.web import (
    answers,
    api,
    asked,
    audit,
    download,
    guard,
    keys,
    live,
    longrequest,
    messages,
    openapi,
    ready,
    reference,
    requests,
    subscriber,
)
from app.web.errors import REFERENCE
from app.web.keepingroutes import KEEPING
from app.web.pageroutes import PAGES
from app.web.route import Reply, Route

_HTML = "text/html"
_CALLED = {
    "Idempotency-Key": "1 to 255 printable ASCII characters. The same key with the same request within a day: the same jobs again."
}
_SEVERAL = ("vm-unknown", "ambiguous-vm", "vm-not-running", "already-dumping", "domain-busy", "nothing-to-dump")
_HYPERVISOR = ("hypervisor-refused", "hypervisor-unreachable", "hypervisor-not-responding", "vm-not-responding")

ROUTES = (
    Route(
        method="GET",
        pattern="/api/telemetry/live-vms",
        handler=api.live_vms,
        name="vms",
        right="see",
        group="VMs and dumps",
        what="All VMs, running or not. While libvirt is away: what was known last.",
        replies=[Reply(200, "The VMs.", [answers.LiveVms])],
    ),
    Route(
        method="POST",
        pattern="/api/memory-dumps/trigger",
        handler=api.trigger,
        name="trigger",
        right="dump",
        deed="dump",
        group="VMs and dumps",
        what="Schedule dumps, all or nothing.",
        headers=_CALLED,
        body=requests.TriggerBody,
        replies=[Reply(202, "The jobs that were made.", [answers.Scheduled])],
        problems=(*_SEVERAL, "idempotency-key-reused", "too-many-waiting", *_HYPERVISOR),
    ),
    Route(
        method="GET",
        pattern="/api/memory-dumps/status",
        handler=api.status,
        name="status",
        right="see",
        group="VMs and dumps",
        what="The last trigger.",
        replies=[Reply(200, "One word for all of its jobs, and the jobs.", [answers.Status])],
    ),
    Route(
        method="GET",
        pattern="/api/memory-dumps/jobs",
        handler=api.jobs,
        name="jobs",
        right="see",
        group="Jobs",
        what="The newest 10,000 jobs, newest first.",
        replies=[Reply(200, "The jobs.", [answers.Jobs])],
    ),
    Route(
        method="GET",
        pattern="/api/memory-dumps/jobs/{job_id}",
        handler=api.job,
        name="job",
        right="see",
        group="Jobs",
        what="One job, however old.",
        replies=[Reply(200, "The job.", [answers.Job])],
        problems=["job-unknown"],
    ),
    Route(
        method="POST",
        pattern="/api/memory-dumps/jobs/{job_id}/cancel",
        handler=api.cancel,
        name="cancel",
        right="cancel",
        deed="cancel",
        group="Jobs",
        what="Ask a job to stop. Asking again, or asking one that has ended, changes nothing.",
        body=requests.EmptyBody,
        body_required=False,
        replies=[Reply(200, "The job as it is at that moment.", [answers.Job])],
        problems=["job-unknown"],
    ),
    Route(
        method="GET",
        pattern="/api/memory-dumps/records",
        handler=api.records,
        name="records",
        right="see",
        group="Records",
        what="Records that match, a page at a time.",
        query=asked.RecordsQuery,
        replies=[Reply(200, "A page.", [answers.Records])],
    ),
    Route(
        method="GET",
        pattern="/api/memory-dumps/records.csv",
        handler=download.records_csv,
        name="recordsCsv",
        right="see",
        group="Records",
        what="All records that match, as a table (RFC 4180, UTF-8, a row of names first), streamed.",
        query=asked.CsvQuery,
        replies=[Reply(200, "The table.", content_type="text/csv")],
    ),
    Route(
        method="GET",
        pattern="/api/memory-dumps/records/{dump_id}",
        handler=api.record,
        name="record",
        right="see",
        group="Records",
        what="The whole manifest of one dump.",
        replies=[Reply(200, "The manifest.", [answers.Manifest])],
        problems=["record-unknown"],
    ),
    Route(
        method="GET",
        pattern="/api/memory-dumps/stats",
        handler=api.stats,
        name="stats",
        right="see",
        group="Records",
        what="Totals over all records, or by VM or day within a range.",
        query=asked.StatsQuery,
        replies=[Reply(200, "The totals; with `by`, a row each.", [model.Stats, answers.StatsByVm, answers.StatsByDay])],
    ),
    Route(
        method="GET",
        pattern="/api/memory-dumps/activity",
        handler=api.activity,
        name="activity",
        right="see",
        group="Feed",
        what="What happened last, newest first.",
        query=requests.ActivityQuery,
        replies=[Reply(200, "Lines of the activity log.", [answers.ActivityLog])],
    ),
    *KEEPING,
    Route(
        method="GET",
        pattern="/api/audit",
        handler=audit.entries,
        name="audit",
        right="administer",
        group="Audit trail",
        what="Who did what, newest first, a page at a time. Only for those whose scope has no limits.",
        query=audit.AuditQuery,
        replies=[Reply(200, "A page.", [audit.AuditEntries])],
    ),
    Route(
        method="GET",
        pattern="/api/audit.jsonl",
        handler=audit.lines,
        name="auditLines",
        right="administer",
        group="Audit trail",
        what="All entries that match, a line of JSON each, oldest first, streamed.",
        query=audit.AuditLinesQuery,
        replies=[Reply(200, "The lines.", content_type=audit.LINES_TYPE)],
    ),
    Route(
        method="GET",
        pattern=live.PATH,
        handler=live.feed,
        name="feed",
        right="see",
        group="Feed",
        what=(
            "A websocket: first a `Snapshot`, then what changes, as JSON text messages. Each change has its `type`, a `cursor`, "
            "and a member of the name of its type: `vms`, `hypervisor`, `history`, `room`, `job`, `record`, `stats` or `activity`. "
            "A `ProgressMessage` has no cursor; nor has `Alive`, which comes after 5 seconds of silence. "
            "One that is 1000 changes behind is closed with code 4008, one whose login has ended with 4401."
        ),
        query=subscriber.FeedQuery,
        replies=[Reply(101, "The feed begins.", [messages.Snapshot, messages.ProgressMessage, messages.Alive], content_type=None)],
        problems=["upgrade-required", "origin-not-allowed", "too-many-feeds"],
        websocket=True,
    ),
    Route(
        method="GET",
        pattern=longrequest.PATH,
        handler=longrequest.changes,
        name="changes",
        right="see",
        group="Feed",
        what="The same as a long request: what the websocket would say after `since`, as soon as there is something.",
        query=longrequest.ChangesQuery,
        replies=[Reply(200, "What came, and where to go on.", [longrequest.Heard])],
        problems=["too-many-feeds"],
    ),
    Route(
        method="GET",
        pattern="/healthz",
        handler=api.healthz,
        name="health",
        right=None,
        group="Health",
        what="The process is alive and its event loop turns.",
        replies=[Reply(200, "Alive.", [answers.Health])],
    ),
    Route(
        method="GET",
        pattern="/readyz",
        handler=ready.readyz,
        name="readiness",
        right=None,
        group="Health",
        what="Whether dumps can be made now. Without a login the status code alone.",
        replies=[Reply(200, "Ready.", [ready.Readiness]), Reply(503, "Not ready.", [ready.Readiness])],
    ),
    Route(
        method="GET",
        pattern="/api/openapi.json",
        handler=reference.openapi_json,
        name="openapi",
        right=None,
        group="About",
        what="This description, OpenAPI 3.1.",
        replies=[Reply(200, "The description.", [dict])],
    ),
    Route(
        method="GET",
        pattern=REFERENCE,
        handler=reference.page,
        name="reference",
        right=None,
        group="About",
        what="This description, to read.",
        replies=[Reply(200, "A page.", content_type=_HTML)],
    ),
    *PAGES,
)


def add_to(app: web.Application) -> None:
    """Put the table into ``app``, and what it says of itself."""
    rights: dict[tuple[str, str], Right | None] = {}
    deeds: dict[tuple[str, str], Deed | None] = {}
    for route in ROUTES:
        if route.method == "GET" and not route.websocket:
            added = app.router.add_get(route.pattern, route.handler, allow_head=True)
        else:
            added = app.router.add_route(route.method, route.pattern, route.handler)
        rights[guard.route_of(route.method, added)] = route.right
        deeds[guard.route_of(route.method, added)] = route.deed
    app[keys.RIGHTS] = rights
    app[keys.DEEDS] = deeds
    app[keys.OPENAPI] = openapi.document(ROUTES)
