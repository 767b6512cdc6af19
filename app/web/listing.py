"""The list of records as its page's address asks for it, and as the page shows it.

``static/address.js`` reads and writes the same addresses; a test compares them. Whatever in an address cannot be understood is
said in words, and the rest of it counts: people share these addresses, shorten them and write them by hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, get_args
from urllib.parse import urlencode

import msgspec
from msgspec import Meta

from app.errors import RequestError
from app.records.search import Filters, Order
from app.web import requests
from app.web.answers import Record
from app.web.asked import CsvQuery, RangeQuery, cursor_of
from app.web.sight import Sight
from app.web.view import NEWEST_RECORDS, Snapshot

Limit = Literal["25", "50", "100", "250"]
LIMITS = get_args(Limit)

_SHOWN_CHARACTERS = 60
_SHOWN_PROBLEMS = 5


class ListQuery(RangeQuery, frozen=True, kw_only=True):
    """Which records, and how they are shown."""

    q: Annotated[str, Meta(description="As for `/api/memory-dumps/records`; so are `date`, `from` and `to`.")] | None = None
    date: Annotated[str, Meta(description="One day, UTC.")] | None = None
    vm: Annotated[str, Meta(description="A VM's name, exactly.")] | None = None
    order: Annotated[Order, Meta(description="Newest or oldest first.")] = "desc"
    page: Annotated[int, Meta(ge=1, le=10**9)] = 1
    limit: Annotated[Limit, Meta(description="Records on a page.")] = "50"
    sizes: Annotated[Literal["original", "stored"], Meta(description="Which size of a dump is shown.")] = "original"

    def filters(self) -> Filters:
        """What the index looks for. Raises ``RequestError``."""
        return CsvQuery(q=self.q, date=self.date, since=self.since, until=self.until, dom=self.vm).filters()

    @property
    def filtered(self) -> bool:
        return any((self.q, self.date, self.since, self.until, self.vm))

    @property
    def is_newest(self) -> bool:
        """Whether the live feed's snapshot holds just these."""
        return not self.filtered and self.order == "desc" and self.page == 1 and int(self.limit) <= NEWEST_RECORDS

    def address(self, path: str = "/memory-dumps", **changed: str | int | None) -> str:
        """Where the list is, ``changed`` in these; then it begins on its first page, if no other is named."""
        view = msgspec.structs.replace(self, **({"page": 1, **changed} if changed else {}))
        given = ((field.encode_name, getattr(view, field.name), field.default) for field in _FIELDS)
        query = urlencode([(name, value) for name, value, default in given if value not in (None, "", default)])
        return f"{path}?{query}" if query else path

    @property
    def csv(self) -> str:
        """Where all that match are, as a table for spreadsheets."""
        names = {"q": self.q, "date": self.date, "from": self.since, "to": self.until, "dom": self.vm}
        query = urlencode({name: text for name, text in names.items() if text} | ({"order": "asc"} if self.order == "asc" else {}))
        return "/api/memory-dumps/records.csv" + (f"?{query}" if query else "")


_FIELDS = sorted(msgspec.structs.fields(ListQuery), key=lambda field: field.encode_name in ("order", "page", "limit", "sizes"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A page of the list, and the cursor of what comes after it. ``problems`` are sentences about what in its address was not
    understood."""

    view: ListQuery
    records: Sequence[Record]
    count: int
    next: str | None
    problems: Sequence[str]

    @property
    def pages(self) -> int:
        return pages_of(self.count, int(self.view.limit))

    @property
    def dom(self) -> str | None:
        """The one VM whose records are shown."""
        return self.view.vm


async def listing_of(given: Mapping[str, str], sight: Sight, snapshot: Snapshot) -> Listing:
    """What an address with this query string shows. A page behind the last one is the last one."""
    view, problems = understood(given)
    if view.is_newest:
        newest = snapshot.message
        return Listing(
            view=view, records=newest.records[: int(view.limit)], count=newest.stats.total_dumps, next=None, problems=problems
        )
    limit, wanted = int(view.limit), view.filters()
    found = await sight.page(wanted, limit=limit, order=view.order, offset=(view.page - 1) * limit)
    if view.page > pages_of(found.count, limit):
        last = pages_of(found.count, limit)
        problems = [*problems, f"There is no page {view.page}: this is page {last}, the last one."]
        view = msgspec.structs.replace(view, page=last)
        found = await sight.page(wanted, limit=limit, order=view.order, offset=(view.page - 1) * limit)
    records = [msgspec.json.decode(record, type=Record) for record in found.records]
    after = cursor_of(found.next, view.order) if found.next is not None else None
    return Listing(view=view, records=records, count=found.count, next=after, problems=problems)


def understood(given: Mapping[str, str]) -> tuple[ListQuery, list[str]]:
    """What is asked for, and a sentence for each thing that cannot be."""
    good = ListQuery()
    problems: list[str] = []
    seen: set[str] = set()
    for name, text in given.items():
        if name in seen:
            problems.append(f"{_short(name)} is given twice; the first one counts.")
        elif text or name not in _NAMES:  # an empty field of a form asks for nothing
            try:
                good = _with(good, name, text)
            except RequestError as error:
                problems.append(_sentence(name, text, error))
        seen.add(name)
    if len(problems) > _SHOWN_PROBLEMS:
        problems[_SHOWN_PROBLEMS - 1 :] = [f"{len(problems) - _SHOWN_PROBLEMS + 1} more things in this address are left out."]
    return good, problems


_NAMES = {field.encode_name: field.name for field in _FIELDS}


def _with(view: ListQuery, name: str, text: str) -> ListQuery:
    """``view`` with one more parameter. Raises ``RequestError`` if that is none, or does not go with the others."""
    query = requests.query({name: text}, ListQuery)
    changed = msgspec.structs.replace(view, **{_NAMES[name]: getattr(query, _NAMES[name])})
    changed.filters()
    return changed


def _sentence(name: str, text: str, error: RequestError) -> str:
    if name not in _NAMES:
        return f"{_short(name)} is nothing that this page knows; it is left out."
    if len(text) > _SHOWN_CHARACTERS:
        return f"{name}={_short(text)} cannot be understood. It is left out."
    known = f"{name}={text!r} is not one of {', '.join(LIMITS)}." if name == "limit" else str(error)
    return f"{known} It is left out."


def _short(text: str) -> str:
    return f"“{text[:_SHOWN_CHARACTERS]}{'…' if len(text) > _SHOWN_CHARACTERS else ''}”"


def pages_of(count: int, limit: int) -> int:
    """How many pages there are; the first one is there even if it is empty."""
    return max(1, -(-count // limit))
