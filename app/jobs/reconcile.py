"""After a crash: what a service that died left behind is finished, tidied or told, before the new one takes requests.

In this order: capture processes that outlived it (by pid *and* start time) are ended, so that nobody writes any more;
FIFOs are dropped, before anything asks libvirt, which may be waiting for one; seals that were cut short are finished,
other partial files removed; manifests without a record get one; jobs without an end become ``interrupted``. A guest
that still stands is resumed as soon as libvirt answers (``standing.Watch``).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime

from app.access.audit import append, sealed_note
from app.config import Settings
from app.jobs.journal import Journal, Survivor, activity_now
from app.jobs.process import start_of
from app.jobs.promises import drop_dead_fifos, finish_seals
from app.model import DumpRecord, Fault, Job, Manifest, Phase
from app.records.index import RecordIndex
from app.records.rebuild import refill
from app.state import State

_ENDS_SEC = 5.0


async def reconcile(settings: Settings, journal: Journal, state: State, index: RecordIndex) -> frozenset[str]:
    """Do all of that; the names of the manifests that were there. Raises ``StateError``; what else goes wrong is told in the
    activity log."""
    survivors = await journal.survivors()
    for survivor in survivors:
        if await asyncio.to_thread(_end, survivor):
            await journal.tell(activity_now("warning", "capture-process-ended", _ENDED.format(survivor.pid), job=survivor.job))
    await drop_dead_fifos(settings, journal)
    await _finish(settings, journal)
    names = await rebuild(settings, journal, state)
    dumps = {survivor.job.job_id: survivor.dump_id for survivor in survivors}
    for job in await journal.unfinished():
        dump_id = job.dump_id or dumps.get(job.job_id)
        await _end_job(journal, job, await index.get(dump_id) if dump_id else None)
    return names


_ENDED = "A capture process that outlived the service was ended (process {})."


def _end(survivor: Survivor) -> bool:
    """End the process, kindly, then not. Whether there was one. Blocks for at most ten seconds."""
    try:
        descriptor = os.pidfd_open(survivor.pid)
    except ProcessLookupError:
        return False
    try:
        if start_of(survivor.pid) != survivor.started:  # the pid is somebody else's by now
            return False
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, number)
            if select.select([descriptor], [], [], _ENDS_SEC)[0]:
                break
        return True
    finally:
        os.close(descriptor)


async def _finish(settings: Settings, journal: Journal) -> None:
    try:
        kept = await finish_seals(settings, journal)
    except OSError as error:
        await journal.tell(activity_now("error", "dump-dir-unusable", f"DUMP_DIR cannot be read: {error}."))
        return
    for partial, reason in kept:
        await journal.tell(activity_now("warning", "partial-kept", f"A partial file was left as it is, for {reason}: {partial}."))


async def rebuild(settings: Settings, journal: Journal, state: State) -> frozenset[str]:
    """Give every manifest in ``DUMP_DIR`` that has no record one; the names of all that are there."""
    try:
        refilled = await refill(state, settings.dump_dir, queue=settings.influx_url is not None, also=_tell_sealed)
    except OSError:  # told already, where partial files were looked for
        return frozenset()
    for error in refilled.damaged:
        await journal.tell(activity_now("error", error.code, f"{error}. The dump beside it has no record."))
    if refilled.added:
        dumps = "dump" if refilled.added == 1 else "dumps"
        text = f"{refilled.added} {dumps} in {settings.dump_dir} had no record and got one."
        await journal.tell(activity_now("info", "records-rebuilt", text))
    return refilled.names


def _tell_sealed(connection: sqlite3.Connection, manifest: Manifest) -> None:
    append(connection, sealed_note(manifest))


async def _end_job(journal: Journal, job: Job, sealed: DumpRecord | None) -> None:
    """Write the end of a job that the service died under; ``sealed`` is its dump, if that exists."""
    if sealed is not None and job.phase is Phase.RECORDING:
        await journal.save(job.step(Phase.COMPLETED, datetime.now(UTC)))
        return
    if sealed is not None:
        message = f"The service died, but the dump was sealed before: {sealed.dump_path}."
        job = replace(job, dump_id=sealed.dump_id, guest_pause_ms=sealed.guest_pause_ms)
    else:
        message = "The service died before this dump was sealed. Nothing of it was kept. Ask for the dump again."
    ended = job.step(Phase.INTERRUPTED, datetime.now(UTC), error=Fault("interrupted", message))
    await journal.save(ended)
    await journal.tell(activity_now("warning", "interrupted", f"{job.dom}: {message}", job=ended))
