"""What a route is: an address, what answers there, and everything that the description of the API says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from aiohttp.typedefs import Handler

from app.access import Right
from app.access.audit import Deed
from app.web.requests import Query

Group = Literal["VMs and dumps", "Jobs", "Records", "Accounts and tokens", "Audit trail", "Feed", "Health", "About", "Pages"]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that is no problem. ``shapes`` are what its JSON may be; without one it is no JSON, or empty."""

    status: int
    what: str
    shapes: Sequence[type] = ()
    content_type: str | None = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One row. ``pattern`` names its variables in braces; a ``GET`` answers ``HEAD`` too, a websocket does not.

    ``problems`` are the codes that this route adds to those that can come from any. ``right`` is what one needs; None: only to
    be logged in; and what stands in ``guard.PUBLIC`` is for everybody. ``deed`` is what the audit trail says of it: whatever
    changes something has one.
    """

    method: Literal["GET", "POST"]
    pattern: str
    handler: Handler
    name: str
    group: Group
    what: str
    right: Right | None
    deed: Deed | None = None
    replies: Sequence[Reply]
    query: type[Query] = Query
    headers: Mapping[str, str] = field(default_factory=dict)
    body: type | None = None
    body_type: str = "application/json"
    body_required: bool = True
    problems: Sequence[str] = ()
    websocket: bool = False

    def __post_init__(self) -> None:
        """Raises ``ValueError`` for a route that would leave no trace."""
        if self.method != "GET" and self.deed is None:
            raise ValueError(f"{self.method} {self.pattern} changes something: say which deed the audit trail is to tell of")
