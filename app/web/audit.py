"""The audit trail, to look at: a page that filters it, the same for programs, and all of it as JSON lines.

Only for those whose scope is the whole: it tells of everybody.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Annotated, Self
from urllib.parse import urlencode

import msgspec
from aiohttp import web
from msgspec import Meta

from app.access.audit import DEEDS, Deed
from app.access.chain import Entry, line_of
from app.access.trail import Wanted
from app.errors import RequestError
from app.model import is_timestamp
from app.web import keys, requests
from app.web.answers import Answer, Moment
from app.web.api import as_json
from app.web.asked import RangeQuery
from app.web.errors import ProblemError
from app.web.streamed import streamed
from app.web.templates import render_page

PATH = "/audit"
LINES_TYPE = "application/jsonl"
_ON_A_PAGE = 50
_LONGEST_NUMBER = 15


class AuditLinesQuery(RangeQuery, frozen=True, kw_only=True):
    """Which entries."""

    who: Annotated[str, Meta(description="Whose, exactly.")] | None = None
    deed: Annotated[Deed, Meta(description="What was done, or refused.")] | None = None

    def wanted(self) -> Wanted:
        """What the trail is asked for. Raises ``RequestError``."""
        since, until = self.bounds()
        return Wanted(who=self.who, deed=self.deed, since=since, until=until)


class AuditQuery(AuditLinesQuery, frozen=True, kw_only=True):
    """Which page of which entries."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    cursor: Annotated[str, Meta(description="`next_cursor` of the page before.")] | None = None

    def before(self) -> int | None:
        """The number that all on this page are below. Raises ``RequestError``."""
        return _number(self.cursor)


class AuditPageQuery(AuditLinesQuery, frozen=True, kw_only=True):
    """What the page shows."""

    cursor: Annotated[str, Meta(description="Entries before that number.")] | None = None

    def before(self) -> int | None:
        """As for ``AuditQuery``."""
        return _number(self.cursor)


class AuditEntry(Answer, frozen=True, kw_only=True):
    """One entry. Its hash is the SHA-256 of the other members: names sorted, no space, UTF-8."""

    number: int
    at: Moment
    who: Annotated[str, Meta(description="Name of the account; `unknown` where nobody is logged in.")]
    via: Annotated[str, Meta(description="What showed who it is: `token`, `session`, `proxy`, `oidc`, `command-line`, `service` …")]
    origin: Annotated[str, Meta(description="From which address.")] = msgspec.field(name="from")
    deed: Deed
    subject: Annotated[str, Meta(description="On what: a VM, an account, an address of this service.")] = msgspec.field(name="on")
    result: Annotated[str, Meta(description="`done`, `scheduled`, `sealed` …, or the code that it was refused with.")]
    details: dict[str, str | int | bool | None]
    previous: Annotated[str, Meta(description="Hash of the entry before; 64 zeros for the first.")]
    hash: str

    @classmethod
    def of(cls, entry: Entry) -> Self:
        return cls(**{name: getattr(entry, name) for name in cls.__struct_fields__})


class AuditEntries(Answer, frozen=True, kw_only=True):
    """Entries, newest first."""

    entries: tuple[AuditEntry, ...]
    next_cursor: Annotated[str | None, Meta(description="Where the next page begins; null on the last one.")]
    head: Annotated[str, Meta(description="Of the whole trail, filtered or not: number of its last entry, a colon, its hash.")]


async def entries(request: web.Request) -> web.StreamResponse:
    """``GET /api/audit``."""
    _check_scope(request)
    query = requests.query(request.query, AuditQuery)
    found, more = await _found(request, query.wanted(), query.limit, query.before())
    head = await request.app[keys.AUDIT].head()
    shown = tuple(AuditEntry.of(entry) for entry in found)
    return as_json(AuditEntries(entries=shown, next_cursor=str(found[-1].number) if more else None, head=str(head)))


async def lines(request: web.Request) -> web.StreamResponse:
    """``GET /api/audit.jsonl``, streamed, oldest first."""
    _check_scope(request)
    query = requests.query(request.query, AuditLinesQuery)
    return await streamed(request, _lines(request, query.wanted()), LINES_TYPE, "audit.jsonl")


async def page(request: web.Request) -> web.StreamResponse:
    """``GET /audit``: a form and a table, without a script."""
    _check_scope(request)
    query, problem = _understood(request.query)
    found, more = await _found(request, query.wanted(), _ON_A_PAGE, query.before())
    context = {
        "page": "audit",
        "query": query,
        "problem": problem,
        "filtered": any((query.who, query.deed, query.since, query.until)),
        "entries": found,
        "deeds": DEEDS,
        "is_time": is_timestamp,
        "head": await request.app[keys.AUDIT].head(),
        "newest": _address(query, PATH) if query.cursor else None,
        "older": _address(query, PATH, cursor=str(found[-1].number)) if more else None,
        "export": _address(query, "/api/audit.jsonl"),
    }
    return render_page(request, "audit.html", context)


def _check_scope(request: web.Request) -> None:
    """Raises ``ProblemError`` for an administrator of a part: the trail tells of the rest, too."""
    if not request[keys.IDENTITY].scope.whole:
        raise ProblemError("not-allowed", "The audit trail tells of everybody: it is for administrators whose scope has no limits.")


async def _found(request: web.Request, wanted: Wanted, limit: int, before: int | None) -> tuple[Sequence[Entry], bool]:
    """The entries, and whether there are more before them."""
    found = await request.app[keys.AUDIT].newest(wanted, limit=limit + 1, before=before)
    return found[:limit], len(found) > limit


async def _lines(request: web.Request, wanted: Wanted) -> AsyncGenerator[bytes]:
    async for chunk in request.app[keys.AUDIT].chunks(wanted):
        yield "".join(f"{line_of(entry)}\n" for entry in chunk).encode()


def _understood(given: Mapping[str, str]) -> tuple[AuditPageQuery, str | None]:
    """What is asked for, an empty field of the form being nothing; or all, and why."""
    try:
        query = requests.query({name: text for name, text in given.items() if text}, AuditPageQuery)
        query.wanted(), query.before()
    except RequestError as error:
        return AuditPageQuery(), f"{error} All entries are shown."
    return query, None


def _number(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= _LONGEST_NUMBER and int(cursor) > 0):
        raise RequestError("cursor is none that this service gave: take next_cursor as it is.", place="cursor")
    return int(cursor)


def _address(query: AuditPageQuery, path: str, *, cursor: str | None = None) -> str:
    given = {"who": query.who, "deed": query.deed, "from": query.since, "to": query.until, "cursor": cursor}
    text = urlencode({name: value for name, value in given.items() if value})
    return f"{path}?{text}" if text else path
