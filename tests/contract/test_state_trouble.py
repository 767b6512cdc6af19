"""A state file that cannot be written for a while, under a service that runs: it says so, goes on reading, and loses nothing."""

from __future__ import annotations

import contextlib
import resource
import sqlite3
from collections.abc import Callable, Iterator

import pytest

from app.config import Settings
from tests.contract.conftest import ALPHA
from tests.contract.speech import RECORDS, Api
from tests.service import Service
from tests.thorough import thorough

pytestmark = thorough

Trouble = Callable[[Service], contextlib.AbstractContextManager[None]]


@contextlib.contextmanager
def locked(service: Service) -> Iterator[None]:
    """Another process holds it."""
    file = Settings.from_environment(service.environment).state_file
    with contextlib.closing(sqlite3.connect(file, timeout=5, isolation_level=None)) as other:  # the service may be writing just now
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@contextlib.contextmanager
def full(service: Service) -> Iterator[None]:
    """Its log of changes cannot grow: for SQLite that is a disk without room."""
    file = Settings.from_environment(service.environment).state_file
    log = file.with_name(f"{file.name}-wal")
    pid, limits = service.process.pid, resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (min(log.stat().st_size, 4096), limits[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("trouble", [locked, full])
async def test_it_is_said_reading_goes_on_and_nothing_is_lost(api: Api, service: Service, trouble: Trouble) -> None:
    (before,) = await api.dump(ALPHA.uuid)
    count = (await api.get(RECORDS))["count"]
    with trouble(service):
        refused = await api.trigger(ALPHA.uuid, status=503)
        assert refused["code"] == "state-unwritable"
        assert str(service.state_dir) in refused["detail"]
        assert (await api.get(RECORDS))["count"] == count
        assert (await api.get(f"{RECORDS}/{before['dump_id']}"))["dump_id"] == before["dump_id"]
        if trouble is locked:
            async with api.session.get("/readyz") as answer:
                found = (await answer.json())["dependencies"]["state"]
                assert (answer.status, found["state"], "lock" in found["message"]) == (503, "state-unwritable", True)
    (after,) = await api.dump(ALPHA.uuid)
    assert (await api.get(RECORDS))["count"] == count + 1
    assert {record["dump_id"] for record in (await api.get(RECORDS))["records"]} >= {before["dump_id"], after["dump_id"]}
