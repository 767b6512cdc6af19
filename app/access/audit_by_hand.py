"""The audit trail from a command line: is it whole, and all of it as JSON lines. Beside a service or without one. Blocks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from app.access.audit import SCHEMA, append, entries_in, head_of, note, of_dump
from app.access.chain import Finding, Witness, is_hash, line_of, look_over, read_head
from app.config import Settings
from app.errors import StateError, StateMissing
from app.evidence import manifests
from app.log import FILE_NAME, HEAD_EVENT
from app.model import Manifest
from app.state import State
from app.statefile import run_script

T = TypeVar("T")


def verify_by_hand(settings: Settings) -> tuple[list[str], bool]:
    """Look over the whole trail, and compare it with the heads in the program's log and in the manifests: what to tell, and whether
    all is well. Raises ``StateError``."""
    logged, sealed = list(log_witnesses(settings.log_dir)), list(manifest_witnesses(settings.dump_dir))
    witnesses = [*logged, *sealed]
    found: Finding = _reading(settings, lambda connection: look_over(entries_in(connection), witnesses))
    compared = (
        f"Compared with {_count(len(logged), 'head')} in the logs in {settings.log_dir}, and with "
        f"{_count(len(sealed), 'head')} in the manifests in {settings.dump_dir}."
    )
    if found.first_wrong is not None:
        before = [f"Up to entry {found.first_wrong - 1} it holds."] if found.first_wrong > 1 else []
        return [f"The audit trail is NOT whole. {found.message}", *before, compared], False
    return [f"The audit trail is whole: {_count(found.head.number, 'entry', 'entries')}, head {found.head}.", compared], True


def export_by_hand(settings: Settings, write: Callable[[str], object]) -> None:
    """Every entry as a line of JSON, oldest first. Raises ``StateError``."""

    def work(connection: sqlite3.Connection) -> None:
        for entry in entries_in(connection):
            write(f"{line_of(entry)}\n")

    _reading(settings, work)


def telling_of(manifest: Manifest) -> Callable[[sqlite3.Connection], None]:
    """Writes, within the transaction that is open, that somebody made this dump by hand."""
    noted = replace(note("dump", manifest.dom, result="sealed"), details=of_dump(manifest))

    def work(connection: sqlite3.Connection) -> None:
        run_script(connection, SCHEMA)  # there may have been no service yet
        append(connection, noted)

    return work


def tell_found(connection: sqlite3.Connection, manifest: Manifest) -> None:
    """Write, within the transaction that is open, that this dump, unknown here so far, was sealed: by whom its manifest says."""
    run_script(connection, SCHEMA)  # there may have been no service yet
    append(connection, replace(note("dump", manifest.dom, result="sealed", who=manifest.operator), details=of_dump(manifest)))


def head_by_hand(settings: Settings) -> str | None:
    """The head of the trail for a manifest; None where there is no trail, or it cannot be read."""
    try:
        head = _reading(settings, head_of)
    except StateError:
        return None
    return head.hash if head.number else None


def log_witnesses(log_dir: Path) -> Iterator[Witness]:
    """The heads that the program's log tells of, the rotated files included. What cannot be read tells nothing."""
    for file in sorted(log_dir.glob(f"{FILE_NAME}*")):
        with contextlib.suppress(OSError), file.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if f'"{HEAD_EVENT}"' in line and (witness := _told_in(line, file)) is not None:
                    yield witness


def manifest_witnesses(dump_dir: Path) -> Iterator[Witness]:
    """The heads that the manifests tell of. One that is damaged, or older than the audit trail, tells nothing."""
    for path, manifest in manifests(dump_dir):
        if isinstance(manifest, Manifest) and manifest.audit_head is not None and is_hash(manifest.audit_head):
            yield Witness(manifest.audit_head, f"the manifest {path}")


def _told_in(line: str, file: Path) -> Witness | None:
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict) or said.get("event") != HEAD_EVENT or not isinstance(said.get("head"), str):
        return None
    head = read_head(said["head"])
    return Witness(head.hash, f"the log {file}", head.number) if head is not None and head.number else None


def _reading(settings: Settings, work: Callable[[sqlite3.Connection], T]) -> T:
    if not settings.state_file.is_file():
        raise StateMissing(str(settings.state_dir))
    state = State.open(settings.state_file, SCHEMA)
    try:
        return asyncio.run(_read(state, work))
    finally:
        state.close()


async def _read(state: State, work: Callable[[sqlite3.Connection], T]) -> T:
    return await state.read(work, slow=True)


def _count(number: int, one: str, more: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else more or f'{one}s'}"
