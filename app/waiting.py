"""Waiting for an event, and no longer than so long, in a task that may be cancelled meanwhile."""

from __future__ import annotations

import asyncio


async def happens(event: asyncio.Event, within_sec: float) -> bool:
    """Whether ``event`` is set, or will be within that time.

    Not ``asyncio.wait_for``: Python 3.11's returns as if nothing were the matter when a cancellation comes in the same moment
    as the event, and a loop that waits so goes on for ever. ``asyncio.wait`` swallows nothing.
    """
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({waiting}, timeout=max(0.0, within_sec))
    finally:
        waiting.cancel()
    return event.is_set()
