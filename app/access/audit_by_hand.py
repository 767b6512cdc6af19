"""The audit trail from a command line: is it whole, and all of it as JSON lines. Beside a service or without one. Blocks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from app.access.audit import SCHEMA, entries_in
from app.access.chain import Finding, Witness, line_of, look_over, read_head
from app.access.trail import LOG_EVENT
from app.config import Settings
from app.errors import StateMissing
from app.log import FILE_NAME
from app.state import State

T = TypeVar("T")


def verify_by_hand(settings: Settings) -> tuple[list[str], bool]:
    """Look over the whole trail, and compare it with the heads in the program's log: what to tell, and whether
    all is well. Raises ``StateError``."""
    witnesses = list(log_witnesses(settings.log_dir))
    found: Finding = _reading(settings, lambda connection: look_over(entries_in(connection), witnesses))
    compared = f"Compared with {_count(len(witnesses), 'head')} in the logs in {settings.log_dir}."
    if found.first_wrong is not None:
        whole = f"Up to entry {found.head.number} the chain holds." if found.head.number else "No entry before it can be trusted."
        return [f"The audit trail is NOT whole. {found.message}", whole, compared], False
    return [f"The audit trail is whole: {_count(found.head.number, 'entry', 'entries')}, head {found.head}.", compared], True


def export_by_hand(settings: Settings, write: Callable[[str], object]) -> None:
    """Every entry as a line of JSON, oldest first. Raises ``StateError``."""

    def work(connection: sqlite3.Connection) -> None:
        for entry in entries_in(connection):
            write(f"{line_of(entry)}\n")

    _reading(settings, work)


def log_witnesses(log_dir: Path) -> Iterator[Witness]:
    """The heads that the program's log tells of, the rotated files included. What cannot be read tells nothing."""
    for file in sorted(log_dir.glob(f"{FILE_NAME}*")):
        with contextlib.suppress(OSError), file.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if f'"{LOG_EVENT}"' in line and (witness := _told_in(line, file)) is not None:
                    yield witness


def _told_in(line: str, file: Path) -> Witness | None:
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict) or said.get("event") != LOG_EVENT or not isinstance(said.get("head"), str):
        return None
    head = read_head(said["head"])
    return Witness(head, f"the log {file}") if head is not None and head.number else None


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
