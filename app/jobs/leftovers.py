"""What a dead capture process leaves behind: its FIFO, its partial files, and perhaps a dump that nobody heard of.

Blocking; nothing here touches what belongs to a capture that lives, for that holds locks on both.
"""

from __future__ import annotations

from pathlib import Path

from app.evidence import finish_partials, manifests
from app.fifo import FOLDER_PREFIX, drop_abandoned_fifos, rendezvous
from app.model import Manifest


def drop_fifos(uri: str, dump_dir: Path) -> tuple[Path, ...]:
    """Drop every FIFO of a dead capture, so that libvirt never waits for its reader; their folders."""
    return tuple(drop_abandoned_fifos(rendezvous(uri, dump_dir)))


def dump_of(fifo_folder: Path) -> str:
    """The ``dump_id`` of the capture whose FIFO stands in that folder: its name says it."""
    return fifo_folder.name.removeprefix(FOLDER_PREFIX)


def sealed_after_all(dump_dir: Path, dump_id: str | None) -> Manifest | None:
    """Finish and tidy partial files; the manifest of ``dump_id`` if that dump exists now. Raises ``OSError``."""
    finish_partials(dump_dir)
    if dump_id is None:
        return None
    return next((found for _, found in manifests(dump_dir) if isinstance(found, Manifest) and found.dump_id == dump_id), None)
