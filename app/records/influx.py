"""The shared history: measurement ``mem_dumps`` in InfluxDB 3, written and read through its official client.

Only this module knows that client, which with Arrow is 200 MB to install and a second to import: import this only when
``INFLUX_URL`` is set, and not in the event loop's thread. Writing is HTTP, reading is Arrow Flight (gRPC), both at one
port. InfluxDB is append-only here: a point that is sent again is the same point.

The client's traps, each kept out here: a URL without a port becomes port 443; an empty token makes a header that is
refused; after an outage gRPC waits minutes unless told otherwise; a web server that answers everything with 200 looks
like a successful write; ``logging.debug`` in it installs a handler in a program that has none.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any, TypeVar

import pyarrow
import urllib3
from influxdb_client_3 import InfluxDBClient3
from influxdb_client_3.exceptions.exceptions import InfluxDB3ClientError, InfluxDBError, InfluxDBPartialWriteError
from pyarrow import flight
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    LocationValueError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
)

from app.errors import HistoryError, HistoryFailed, HistoryTypeConflict
from app.records.answers import TOKEN_REFUSED, Address, one_line
from app.records.point import MEASUREMENT, Point, line_of

MOST_POINTS = 100
"""Points in one request: InfluxDB names at most so many that it refuses."""

_MOST_BYTES = 4 * 2**20
_THREADS = 2  # one delivers while one pulls
_GRACE_SEC = 1.0  # a thread whose time is over needs a moment to see it
_WITHOUT = "none"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INT64 = 2**63
_WINDOW = f'SELECT * FROM "{MEASUREMENT}" WHERE time >= $since AND time < $until ORDER BY time'  # noqa: S608  # a constant
_GRPC = (
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1000),  # the default is two minutes
    ("grpc.enable_http_proxy", 0),  # the writing half knows no proxy variables either
)

T = TypeVar("T")


class History:
    """One database of one InfluxDB. Every method ends within about ``timeout_sec``, and raises ``HistoryError``.

    The constructor connects to nothing; it raises ``HistoryWrongUrl`` and ``HistoryRefused`` for what can never work.
    """

    def __init__(self, url: str, database: str, token: str | None, *, timeout_sec: float = 10.0) -> None:
        self._timeout_sec = timeout_sec
        self._address = Address.of(url, database, with_token=bool((token or "").strip()))
        _keep_logging_as_it_is()
        try:
            self._client = InfluxDBClient3(
                host=self._address.url,
                database=database,
                token=self._usable(token),
                auth_scheme="Bearer",
                connection_pool_maxsize=_THREADS,
                flight_client_options={"generic_options": list(_GRPC)},
            )
        except pyarrow.ArrowException as error:
            raise self._address.wrong(_words(error)) from error
        self._client.rest_client.timeout = urllib3.Timeout(total=timeout_sec)  # of what has none of its own; else for ever
        self._met = self._closing = False
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="history")
        self._running: set[Future[Any]] = set()

    async def write(self, points: Sequence[Point]) -> None:
        """Add ``points``, durably. Those that were there already stay as they are.

        Raises ``HistoryTypeConflict`` when some are refused for ever; all others are written then. After any other error
        some may be written: send them all again.
        """
        await self._in_pool(lambda: self.write_now(points))

    async def window(self, since_ns: int, until_ns: int, *, limit: int) -> list[dict[str, object]]:
        """The first ``limit`` rows from ``since_ns`` to before ``until_ns``, by time; ``time`` is an int of nanoseconds.

        Where the database or its table is not there yet, there are none. Raises ``HistoryTooWide`` when that much time has
        too many files.
        """
        return await self._in_pool(lambda: self.window_now(since_ns, until_ns, limit=limit))

    async def close(self) -> None:
        """Wait for what is under way, no longer than it may take anyway, and leave no thread and no connection."""
        self._closing = True
        running = [asyncio.wrap_future(future) for future in list(self._running)]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._timeout_sec + _GRACE_SEC):
                await asyncio.gather(*running, return_exceptions=True)
        self._end()

    def write_now(self, points: Sequence[Point]) -> None:
        """``write`` for a program without an event loop; blocks."""
        until = time.monotonic() + self._timeout_sec
        refused: dict[int, str] = {}
        try:
            self._meet()
            for first, lines in _batches([line_of(point) for point in points]):
                refused |= self._send(first, lines, until)
        except (InfluxDB3ClientError, HTTPError) as error:
            self._met = False
            raise self._http_error(error) from error
        if refused:
            raise HistoryTypeConflict(refused)

    def window_now(self, since_ns: int, until_ns: int, *, limit: int) -> list[dict[str, object]]:
        """``window`` for a program without an event loop; blocks."""
        until = time.monotonic() + self._timeout_sec
        try:
            self._meet()
        except (InfluxDB3ClientError, HTTPError) as error:
            self._met = False
            raise self._http_error(error) from error
        try:
            found = self._client.query(
                f"{_WINDOW} LIMIT {limit:d}",
                query_parameters={"since": _rfc3339(since_ns), "until": _rfc3339(until_ns)},
                timeout=self._left_sec(until),
            )
        except (InfluxDB3ClientError, pyarrow.ArrowException) as error:
            failed = self._query_error(error)
            if failed is None:
                return []
            self._met = False
            raise failed from error
        return _rows(found)

    def close_now(self) -> None:
        """``close`` for a program without an event loop; blocks."""
        self._closing = True
        wait(list(self._running), timeout=self._timeout_sec + _GRACE_SEC)
        self._end()

    async def _in_pool(self, work: Callable[[], T]) -> T:
        future = self._pool.submit(self._unless_closing, work)
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        try:
            # The client bounds each wait for the network; this bounds what it does not: a slow name server, an answer
            # that comes a byte at a time.
            # (Not wait_for: Python 3.11's loses a cancellation that comes just when the result does.)
            async with asyncio.timeout(self._timeout_sec):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            raise self._no_answer() from None

    def _unless_closing(self, work: Callable[[], T]) -> T:
        if self._closing:
            raise HistoryFailed("The connection to InfluxDB is being closed.")
        return work()

    def _end(self) -> None:
        self._pool.shutdown(wait=all(future.done() for future in list(self._running)))
        self._client.close()

    def _meet(self) -> None:
        """At first, and after each failure, see that what answers is InfluxDB 3: another server may say 200 to any write."""
        if self._met:
            return
        try:
            version = self._client.get_server_version()
        except InfluxDBError as error:
            status = _status(error)
            known = (*TOKEN_REFUSED, HTTPStatus.BAD_REQUEST, HTTPStatus.TOO_MANY_REQUESTS)
            if status in known or status == 0 or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                raise
            raise self._address.wrong(f"it answers /ping with status {status}") from error
        self._address.check_version(version)
        self._met = True

    def _send(self, first: int, lines: Sequence[str], until: float) -> dict[int, str]:
        """Write ``lines``; why those are refused that are, by their place, which for the first line is ``first``."""
        try:
            self._client.write(
                "\n".join(lines).encode(), use_v2_api=False, _request_timeout=max(1, int(self._left_sec(until) * 1000))
            )
        except InfluxDBPartialWriteError as error:
            refused = {line.line_number - 1: line.error_message for line in error.line_errors}
            if all(0 <= place < len(lines) for place in refused):
                return {first + place: one_line(why) for place, why in refused.items()}
            why = _words(error)
        except InfluxDBError as error:
            why = _words(error)
            if _status(error) != HTTPStatus.BAD_REQUEST or "line protocol" not in why:
                raise
        else:
            return {}
        # It does not say which: each alone tells.
        if len(lines) == 1:
            return {first: why}
        alone = (self._send(first + place, [line], until) for place, line in enumerate(lines))
        return {place: why for refused in alone for place, why in refused.items()}

    def _left_sec(self, until: float) -> float:
        left_sec = until - time.monotonic()
        if left_sec <= 0:
            raise self._no_answer()
        return left_sec

    # --- errors ---------------------------------------------------------------------------------------------------

    def _no_answer(self) -> HistoryError:
        return self._address.no_answer(self._timeout_sec)

    def _http_error(self, error: Exception) -> HistoryError:
        if isinstance(error, InfluxDBError):
            return self._address.of_status(_status(error), _words(error))
        # Without retries urllib3 raises the cause itself. Its classes overlap: the narrower come first.
        if isinstance(error, NameResolutionError):
            return self._address.no_such_host()
        if isinstance(error, LocationValueError):
            return self._address.wrong(_words(error))
        if isinstance(error, NewConnectionError | ProtocolError):
            return self._address.unreachable(_words(error))
        if isinstance(error, ConnectTimeoutError | ReadTimeoutError):
            return self._no_answer()
        return HistoryFailed(f"Talking to InfluxDB at {self._address.url} failed: {_words(error)}.")

    def _query_error(self, error: Exception) -> HistoryError | None:
        """What a failed query means; None where there is only nothing to read yet."""
        cause = error.__context__ or error  # the client wraps Arrow's error into one of its own
        if isinstance(cause, flight.FlightUnauthenticatedError | flight.FlightUnauthorizedError):
            return self._address.refused(_words(cause), known=isinstance(cause, flight.FlightUnauthorizedError))
        if isinstance(cause, flight.FlightTimedOutError):
            return self._no_answer()
        return self._address.of_query(_words(cause), unavailable=isinstance(cause, flight.FlightUnavailableError))

    def _usable(self, token: str | None) -> str:
        """The token as it can stand in a header. The client wants one even where the server asks for none."""
        text = (token or "").strip() or _WITHOUT
        if not (text.isascii() and text.isprintable()):
            raise self._address.refused("it has characters that no token has")
        return text


def _keep_logging_as_it_is() -> None:
    """``logging.debug``, which the client calls, gives a program without handlers one that prints everything."""
    root = logging.getLogger()
    if not root.handlers and logging.lastResort is not None:
        root.addHandler(logging.lastResort)


def _batches(lines: Sequence[str]) -> Iterator[tuple[int, Sequence[str]]]:
    """``lines`` in pieces that one request takes, each with the place of its first."""
    first, size_bytes = 0, 0
    for place, line in enumerate(lines):
        line_bytes = len(line.encode()) + 1
        if place > first and (place - first >= MOST_POINTS or size_bytes + line_bytes > _MOST_BYTES):
            yield first, lines[first:place]
            first, size_bytes = place, 0
        size_bytes += line_bytes
    if lines:
        yield first, lines[first:]


def _rfc3339(nanoseconds: int) -> str:
    """A time as InfluxDB compares it exactly, all nine digits."""
    seconds, rest = divmod(min(max(nanoseconds, -_INT64), _INT64 - 1), 10**9)
    return f"{_EPOCH + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def _rows(table: pyarrow.Table) -> list[dict[str, object]]:
    """Times as whole numbers: a ``datetime`` has no nanoseconds."""
    times = table.column("time").cast(pyarrow.timestamp("ns")).cast(pyarrow.int64())
    rows: list[dict[str, object]] = table.set_column(table.column_names.index("time"), "time", times).to_pylist()
    return rows


def _status(error: InfluxDBError) -> int:
    """The HTTP status; 0 where TLS failed before there was any."""
    return error.response.status if error.response is not None else 0


def _words(error: BaseException) -> str:
    message = getattr(error, "reason", None) if isinstance(error, InfluxDBError) and error.response is None else None
    message = message or getattr(error, "message", None) or error
    return one_line(message.decode(errors="replace") if isinstance(message, bytes) else str(message))
