"""The audit trail as a service uses it: told on whatever happens, and a tail that is cut off is told, too."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from app.access import SCHEMA
from app.access.audit import note
from app.access.trail import AuditTrail
from app.state import State
from tests.unit.test_access import watching


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with contextlib.closing(State.open(tmp_path / "memory-dumps.sqlite3", SCHEMA)) as state:
        yield state


async def test_the_trail_is_told_on_though_a_look_at_it_broke(state: State) -> None:
    trail, read, looked_again = AuditTrail(state), state.read, asyncio.Event()
    await trail.open()
    looks: list[object] = []

    async def breaks(*asked: object, **how: object) -> object:
        looks.append(asked)
        if len(looks) == 1:
            raise ValueError("nobody thought of this")
        looked_again.set()
        return await read(*asked, **how)  # type: ignore[arg-type]

    state.read = breaks  # type: ignore[assignment, method-assign]
    async with watching(trail.watch()):
        await looked_again.wait()


@pytest.mark.parametrize("forged", ["DELETE FROM audit WHERE number > 1", "UPDATE audit SET hash = 'x' WHERE number = 3"])
async def test_a_tail_that_is_cut_off_beside_the_service_is_told(state: State, forged: str) -> None:
    trail = AuditTrail(state)
    await trail.open()
    for name in ("a", "b", "c"):
        await trail.write(note("dump", name))
    await trail.close()  # told

    def forge(connection: sqlite3.Connection) -> None:
        for trigger in ("audit_is_not_changed", "audit_is_not_shortened"):
            connection.execute(f"DROP TRIGGER {trigger}")
        connection.execute(forged)

    await state.run(forge)
    with structlog.testing.capture_logs() as told:
        await trail.close()
        await trail.write(note("dump", "d"))
        await trail.close()
        await trail.close()
    assert [(line["event"], line["log_level"]) for line in told] == [("audit_trail_cut", "error"), ("audit", "info")]
