"""What room is left in ``DUMP_DIR``: looked at when a dump moves on and every now and then, told when it changed.

On a thread, and never on two: a file system whose server is gone need not answer, and must not keep anybody waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

import structlog

from app.changes import Advance, Change, Changes
from app.model import Room

log = structlog.get_logger()

_LOOK_EVERY_SEC = 15.0
_LOOK_AT_MOST_EVERY_SEC = 0.5
_ANSWERS_WITHIN_SEC = 10.0
_WORTH_TELLING = 0.001
"""Of what was free when it was told last."""


class DumpRoom:
    """Watches the file system of ``dump_dir``, and publishes ``room``."""

    def __init__(self, dump_dir: Path, changes: Changes) -> None:
        self._dump_dir = dump_dir
        self._changes = changes
        self._told: Room | None = None
        self._looking: asyncio.Future[Room] | None = None
        self._moved = asyncio.Event()
        changes.listen(self._hear)

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY_SEC):
                    await self._moved.wait()
            self._moved.clear()
            try:
                await self.look()
            except Exception:  # figures that stood still for ever would be a lie
                log.exception("dump_room_broke")  # the next look tries again
            await asyncio.sleep(_LOOK_AT_MOST_EVERY_SEC)

    async def look(self) -> None:
        """Tell how much room there is, if it is not what was told last."""
        room = await self._measured()
        if self._told is None or worth_telling(self._told, room):
            self._told = room
            self._changes.publish("room", room)

    def _hear(self, news: Change | Advance) -> None:
        """A job that begins reserves room, one that is sealed or has ended gives some back."""
        if isinstance(news, Change) and news.topic == "job":
            self._moved.set()

    async def _measured(self) -> Room:
        looking = self._looking or asyncio.ensure_future(asyncio.to_thread(room_in, self._dump_dir))
        self._looking = looking  # which stays, should it not answer: the next look waits for the same one
        done, _ = await asyncio.wait({looking}, timeout=_ANSWERS_WITHIN_SEC)
        if not done:
            return _unknown(self._dump_dir, "its file system does not answer. Look after the disk or its server.")
        self._looking = None
        return looking.result()


def room_in(folder: Path) -> Room:
    """What this user may still write in ``folder``'s file system, and how large that is. Blocks."""
    try:
        found = os.statvfs(folder)
    except OSError as error:
        return _unknown(folder, f"{error.strerror}. Make the folder, make it readable, or set DUMP_DIR.")
    if not found.f_blocks:
        return _unknown(folder, "its file system does not say.")
    return Room(
        dump_dir=str(folder), free_bytes=found.f_bavail * found.f_frsize, total_bytes=found.f_blocks * found.f_frsize, message=None
    )


def _unknown(folder: Path, why: str) -> Room:
    message = f"How much room is left in {folder} cannot be seen: {why}"
    return Room(dump_dir=str(folder), free_bytes=None, total_bytes=None, message=message)


def worth_telling(told: Room, now: Room) -> bool:
    """Whether ``now`` is news: another state, another size, or so much more or less room that it matters."""
    if told.free_bytes is None or now.free_bytes is None:
        return told != now
    moved = abs(now.free_bytes - told.free_bytes)
    return told.total_bytes != now.total_bytes or moved > told.free_bytes * _WORTH_TELLING
