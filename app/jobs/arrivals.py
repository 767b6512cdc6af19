"""Manifests that arrive in ``DUMP_DIR`` by themselves: the command line with another state directory or ``--no-record``,
another host on the same disk, a person who copies dumps. Each gets its record within a second or two.

The folder's time of change is looked at every second, which works on every file system; only if it moved are names read.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

import structlog

from app.errors import StateError
from app.evidence import ManifestDamaged, read_manifest
from app.jobs.journal import Journal, activity_now
from app.jobs.recorder import Recorder
from app.records.rebuild import manifest_names

log = structlog.get_logger()

_LOOK_EVERY_SEC = 1.0
_SETTLED_SEC = 3.0
"""A folder that changed so recently may change again without its time showing it, and a copied file may still grow."""

_MAKER_RECORDS_WITHIN_SEC = 1.0
"""Whoever made a dump records it at once; only what is older has been left for us."""


class Arrivals:
    """Watches ``dump_dir``, where the manifests ``names`` are known already."""

    def __init__(self, dump_dir: Path, names: frozenset[str], recorder: Recorder, journal: Journal) -> None:
        self._dump_dir = dump_dir
        self._known = set(names)
        self._recorder = recorder
        self._journal = journal
        self._settled_ns = 0
        self._damaged: dict[str, tuple[int, ...]] = {}  # what was not whole, as it was then

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.look()
            except OSError as error:  # each dump tells what is wrong with the folder
                log.debug("dump_dir_unreadable", message=str(error))
            except StateError as error:
                log.error("arrival_not_recorded", code=error.code, message=str(error))
            except Exception:  # a watcher that ended would miss every later dump, without a word
                log.exception("arrivals_broke")  # the next look tries again
            await asyncio.sleep(_LOOK_EVERY_SEC)

    async def look(self) -> None:
        """Record what is new. Raises ``OSError``, ``StateError``."""
        changed_ns = await asyncio.to_thread(lambda: self._dump_dir.stat().st_mtime_ns)
        for name in await asyncio.to_thread(self._mended):
            await self._arrived(name, settled=True)
        if changed_ns == self._settled_ns:
            return
        settled = not 0 <= time.time_ns() - changed_ns < _SETTLED_SEC * 1e9
        for name in sorted(await asyncio.to_thread(manifest_names, self._dump_dir) - self._known):
            if await asyncio.to_thread(_age_sec, self._dump_dir / name) < _MAKER_RECORDS_WITHIN_SEC:
                settled = False
            else:
                await self._arrived(name, settled)
        self._settled_ns = changed_ns if settled else 0

    def _mended(self) -> list[str]:
        """Those that were not whole, have changed since, and change no more. Blocks."""
        found = []
        for name, was in self._damaged.items():
            with contextlib.suppress(OSError):  # it may have been removed
                path = self._dump_dir / name
                if _identity(path) != was and _age_sec(path) >= _SETTLED_SEC:
                    found.append(name)
        return found

    async def _arrived(self, name: str, settled: bool) -> None:
        path = self._dump_dir / name
        try:
            identity = await asyncio.to_thread(_identity, path)
            manifest = await asyncio.to_thread(read_manifest, path)
        except ManifestDamaged as error:
            if settled:
                self._known.add(name)
                self._damaged[name] = identity
                await self._journal.tell(activity_now("error", error.code, f"{error}. The dump beside it has no record."))
            return
        await self._recorder.record(manifest, unsure=True)
        self._known.add(name)
        self._damaged.pop(name, None)


def _identity(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _age_sec(path: Path) -> float:
    return abs(time.time() - path.stat().st_mtime)
