"""Which records a request asks for: its query string, and what it means to the index."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from app.errors import RequestError
from app.model import is_timestamp, rfc3339
from app.records.search import Filters, Order, Position
from app.web.requests import Query

_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.([0-9]{1,9}))?(?:Z|[+-][0-9]{2}:[0-9]{2})")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MICROSECOND_DIGITS = 6

_From = Annotated[str, Meta(description="From this on: a date (its midnight, UTC) or an RFC 3339 time.")]
_To = Annotated[str, Meta(description="Before this: a date (its midnight, UTC) or an RFC 3339 time.")]


class RangeQuery(Query, frozen=True, kw_only=True):
    """A stretch of time."""

    since: _From | None = msgspec.field(name="from", default=None)
    until: _To | None = msgspec.field(name="to", default=None)

    def bounds(self) -> tuple[str | None, str | None]:
        """Both ends as manifests write times. Raises ``RequestError``."""
        since = None if self.since is None else _moment("from", self.since)
        until = None if self.until is None else _moment("to", self.until)
        if since is not None and until is not None and until < since:
            raise RequestError(f"to={self.until!r} is before from={self.since!r}.", place="to")
        return since, until


class StatsQuery(RangeQuery, frozen=True, kw_only=True):
    """Totals of what."""

    by: Annotated[Literal["vm", "day"], Meta(description="One row each; left out: totals over all records.")] | None = None

    def bounds(self) -> tuple[str | None, str | None]:
        for name, value in (("from", self.since), ("to", self.until)):
            if value is not None and self.by is None:
                raise RequestError(f"{name!r} goes with by=vm or by=day only.", place=name)
        return super().bounds()


class CsvQuery(RangeQuery, frozen=True, kw_only=True):
    """Which records, and in which order."""

    q: (
        Annotated[str, Meta(description="A part of name, vmid, uuid, hash or path; ASCII in any case, otherwise literal.")] | None
    ) = None
    date: (
        Annotated[str, Meta(description="One day, UTC. Instead of `from` and `to`.", extra_json_schema={"format": "date"})] | None
    ) = None
    dom: Annotated[str, Meta(description="The VM's name, exactly.")] | None = None
    vmid: Annotated[str, Meta(description="The VM's vmid, exactly; empty: records that have none.")] | None = None
    order: Annotated[Order, Meta(description="Newest or oldest first.")] = "desc"

    def filters(self) -> Filters:
        """What the index looks for. Raises ``RequestError``."""
        since, until = self.bounds() if self.date is None else self._day(self.date)
        return Filters(q=self.q or None, since=since, until=until, dom=self.dom, vmid=self.vmid)

    def _day(self, text: str) -> tuple[str, str | None]:
        for name, value in (("from", self.since), ("to", self.until)):
            if value is not None:
                raise RequestError(f"Give either 'date' or {name!r}, not both.", place="date")
        if not _DAY.fullmatch(text):
            raise RequestError(f"date={text!r} is not a date such as 2026-11-23.", place="date")
        begin = _midnight("date", text)
        try:
            return rfc3339(begin), rfc3339(begin + timedelta(days=1))
        except OverflowError:  # the last day that there is
            return rfc3339(begin), None


class RecordsQuery(CsvQuery, frozen=True, kw_only=True):
    """Which page of which records."""

    limit: Annotated[int, Meta(ge=1, le=10_000)] = 1000
    offset: Annotated[int, Meta(ge=0, le=10**12, description="How many to skip.", extra_json_schema={"default": 0})] | None = None
    cursor: Annotated[str, Meta(description="`next_cursor` of the page before. Instead of `offset`.")] | None = None

    def page(self) -> PageWanted:
        """What the index is asked for. Raises ``RequestError``."""
        filters = self.filters()
        if self.cursor is None:
            return PageWanted(filters, self.offset or 0, None)
        if self.offset is not None:
            raise RequestError("Give either 'cursor' or 'offset', not both.", place="cursor")
        return PageWanted(filters, 0, position_of(self.cursor, self.order))


@dataclass(frozen=True, slots=True)
class PageWanted:
    """A page: of these, so many skipped, or just behind that one."""

    filters: Filters
    offset: int
    after: Position | None


def cursor_of(position: Position, order: Order) -> str:
    """Where the next page begins, as one word that may stand in an address."""
    text = msgspec.json.encode((order, position.timestamp, position.dump_id))
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def position_of(cursor: str, order: Order) -> Position:
    """The place that ``cursor_of`` wrote down. Raises ``RequestError``, also for one that it would have written otherwise."""
    try:
        text = base64.b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        its_order, timestamp, dump_id = msgspec.json.decode(text, type=tuple[Order, str, str])
    except (ValueError, binascii.Error, msgspec.DecodeError, RecursionError):
        raise _no_cursor() from None
    position = Position(timestamp, dump_id)
    if not (is_timestamp(timestamp) and dump_id and cursor_of(position, its_order) == cursor):
        raise _no_cursor()
    if its_order != order:
        raise RequestError(f"cursor belongs to order={its_order}, not to order={order}.", place="cursor")
    return position


def _no_cursor() -> RequestError:
    return RequestError("cursor is none that this service gave: take next_cursor as it is.", place="cursor")


def _moment(name: str, text: str) -> str:
    if _DAY.fullmatch(text):
        return rfc3339(_midnight(name, text))
    found = _TIME.fullmatch(text.upper())
    if found is None:
        hint = " (a + in an address has to be written %2B)" if re.search(r" [0-9]{2}:[0-9]{2}\Z", text) else ""
        raise RequestError(
            f"{name}={text!r} is neither a date such as 2026-11-23 nor a time such as 2026-11-23T10:30:00Z{hint}.", place=name
        )
    try:
        # Records have six digits: one that is before a moment between two microseconds is before the later of them.
        between = timedelta(microseconds=1 if (found[1] or "")[_MICROSECOND_DIGITS:].strip("0") else 0)
        return rfc3339(datetime.fromisoformat(text.upper()) + between)
    except (ValueError, OverflowError):
        raise _no_such(name, text) from None


def _midnight(name: str, text: str) -> datetime:
    try:
        return datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC)
    except ValueError:
        raise _no_such(name, text) from None


def _no_such(name: str, text: str) -> RequestError:
    return RequestError(f"{name}={text!r} is not in the calendar.", place=name)
