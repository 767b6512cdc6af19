"""The folder of the dumps, as the start finds it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import structlog

from app.errors import DumpDirUnusable
from app.jobs.journal import activity_now
from app.model import Activity

log = structlog.get_logger()

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def make_dump_dir(dump_dir: Path) -> Activity | None:
    """Make it, for this user alone, at a first start. What is to be told if it cannot be used; the service starts all the same.

    One that is there keeps its mode: several services may share it by a group. That others may look into it is logged.
    """
    try:
        dump_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = stat.S_IMODE(dump_dir.stat().st_mode)
        why = None if os.access(dump_dir, os.W_OK | os.X_OK) else "this user may not write there"
    except OSError as error:
        why = error.strerror or str(error)
    if why is None:
        if mode & _OTHERS:
            log.warning("dump_dir_open_to_others", dump_dir=str(dump_dir), mode=f"{mode:04o}", hint=f"chmod 0700 {dump_dir}")
        return None
    message = f"Dumps cannot be written to {dump_dir}: {why}. Make the folder, make it writable, or set DUMP_DIR."
    return activity_now("error", DumpDirUnusable.code, message)
