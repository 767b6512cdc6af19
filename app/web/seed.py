"""What the page's script begins with: the feed's first message, without what stands in the page already or nobody sees.

``static/main.js`` puts it together again: rows and lines are read from the page.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from app.model import Phase
from app.web import messages
from app.web.answers import Job, encode
from app.web.listing import Listing

_OF_A_ROW = (
    "dump_id", "timestamp", "dom", "vmid", "uuid", "mode", "guest_pause_ms", "duration_sec", "raw_size_bytes", "gzip_size_bytes",
    "sha256", "dump_path", "versions", "warnings",
)  # fmt: skip


def shown_jobs(jobs: Sequence[Job]) -> Iterator[Job]:
    """Of all, newest first, those that the page shows: what runs, and what ended badly and is the last word about its VM."""
    running = {job.uuid for job in jobs if not job.phase.final}
    seen: set[str] = set()
    for job in jobs:
        if not job.phase.final:
            yield job
        elif job.uuid not in seen | running:
            seen.add(job.uuid)
            if job.phase is not Phase.COMPLETED:
                yield job


def seed_of(snapshot: messages.Snapshot, listing: Listing) -> str:
    """As JSON that may stand in a page. Its ``vms`` and ``rows``, the latter for the records in the table, have what the page's
    lists do not tell, or only rounded; a record's way is None if it is another program's, whose points say nothing of that.
    ``list`` says of a table that is not of the newest records how many match, and where they go on.
    """
    rows = listing.records
    in_rows = {record.dump_id for record in rows}
    seed = msgspec.structs.asdict(snapshot) | {
        "vms": [(vm.id, vm.memory_bytes, vm.alarm) for vm in snapshot.vms],
        "rows": [
            (
                record.mode if record.uuid or record.versions.memory_dumps else None,
                record.duration_sec,
                record.guest_pause_ms,
                record.raw_size_bytes,
                record.gzip_size_bytes,
            )
            for record in rows
        ],
        "records": [
            {name: getattr(record, name) for name in _OF_A_ROW} for record in snapshot.records if record.dump_id not in in_rows
        ],
    }
    if not listing.view.is_newest:
        seed["list"] = {"count": listing.count, "next": listing.next}
    del seed["activity"]
    return encode(seed).decode().replace("<", "\\u003c")
