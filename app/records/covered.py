"""Which VMs of the index a scope covers: every question of somebody who may not know of all is asked of their records alone.

What it costs, and so how long it takes, hangs on what is in the scope, and on nothing that is out of it.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from dataclasses import dataclass

from app.scope import Scope

VMS = "json_each(?) AS covered CROSS JOIN vms ON vm = covered.value"
SPANS = "json_each(?) AS covered CROSS JOIN spans ON vm = covered.value"
RECORDS = "json_each(?) AS covered CROSS JOIN records INDEXED BY records_by_vm ON vm = covered.value"
"""Their rows; the value that goes with each is ``Covered.numbers``."""

_MOST_SCOPES = 256


@dataclass(frozen=True, slots=True)
class Covered:
    """Rows of ``vms``: their numbers, also as the JSON that SQL takes."""

    vms: frozenset[int]
    numbers: str


class CoveredVms:
    """What each scope covers, kept from question to question, from whichever thread it is asked.

    Rows of ``vms`` are only added, and what a scope looks at in them never changes: so only new ones are looked at. One that the
    asking transaction does not see yet does no harm, for neither does that see any record of it.
    """

    def __init__(self) -> None:
        self._known: dict[Scope, tuple[int, Covered]] = {}
        self._lock = threading.Lock()

    def of(self, connection: sqlite3.Connection, scope: Scope) -> Covered | None:
        """None for the whole: then nothing needs to be limited."""
        if scope.whole:
            return None
        with self._lock:
            seen, covered = self._known.pop(scope, (0, Covered(frozenset(), "[]")))
        rows = connection.execute("SELECT vm, hypervisor, dom, one_group FROM vms WHERE vm > ?", (seen,)).fetchall()
        new = [vm for vm, hypervisor, dom, group in rows if scope.covers(hypervisor, dom, group or None)]
        if new:
            vms = covered.vms | frozenset(new)
            covered = Covered(vms, json.dumps(sorted(vms)))
        seen = max((row[0] for row in rows), default=seen)
        with self._lock:
            self._known[scope] = (seen, covered)
            while len(self._known) > _MOST_SCOPES:
                del self._known[next(iter(self._known))]
        return covered


def narrowed(connection: sqlite3.Connection, covered: Covered, dom: str | None, vmid: str | None) -> Covered:
    """Those of this name and vmid alone."""
    if dom is None and vmid is None:
        return covered
    question = f"SELECT vm FROM {VMS} WHERE (? IS NULL OR dom = ?) AND (? IS NULL OR vmid = ?)"
    rows = connection.execute(question, (covered.numbers, dom, dom, vmid, vmid)).fetchall()
    vms = frozenset(vm for (vm,) in rows)
    return Covered(vms, json.dumps(sorted(vms)))
