"""The half of the stand-in that speaks Arrow Flight: SQL in a ticket, rows as Arrow.

Texts and codes as in ``service_grpc_flight`` of InfluxDB 3 Core. Behind every text pyarrow's server writes
"Detail: Python exception", which Core does not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import pyarrow as pa
from pyarrow import flight

from tests.influx.store import BadQuery, NoDatabase, Store
from tests.influx.switches import Switches

_ERRORS = {
    400: pa.ArrowInvalid,
    401: flight.FlightUnauthenticatedError,
    403: flight.FlightUnauthorizedError,
    404: KeyError,
    503: flight.FlightUnavailableError,
}
"""The exception that pyarrow's server turns into the gRPC code nearest to an HTTP status."""


class _Header(flight.ServerMiddleware):  # type: ignore[misc]  # pyarrow has no types
    def __init__(self, authorization: str | None) -> None:
        self.authorization = authorization


class _Headers(flight.ServerMiddlewareFactory):  # type: ignore[misc]  # pyarrow has no types
    def start_call(self, info: object, headers: Mapping[str, Sequence[str]]) -> _Header:
        found = [value for name, values in headers.items() if name.lower() == "authorization" for value in values]
        return _Header(found[0] if found else None)


class FlightHalf(flight.FlightServerBase):  # type: ignore[misc]  # pyarrow has no types
    """Listens on a port of its own on loopback as soon as it is made; ``shutdown`` ends it."""

    def __init__(self, store: Store, switches: Switches) -> None:
        super().__init__("grpc://127.0.0.1:0", middleware={"header": _Headers()})
        self._store, self._switches = store, switches

    def do_get(self, context: flight.ServerCallContext, ticket: flight.Ticket) -> flight.RecordBatchStream:
        self._switches.request_arrived()
        try:
            return flight.RecordBatchStream(self._rows(context.get_middleware("header").authorization, ticket.ticket))
        finally:
            self._switches.wait_while_slow()

    def _rows(self, authorization: str | None, ticket: bytes) -> pa.Table:
        if status := self._switches.failing_status:
            raise _ERRORS.get(status, flight.FlightInternalError)(f"the stand-in was told to fail with {status}")
        if self._switches.refusal(authorization):
            raise flight.FlightUnauthenticatedError("Unauthenticated")
        try:
            asked = json.loads(ticket)
            database, sql, parameters = str(asked["database"]), str(asked["sql_query"]), dict(asked.get("params") or {})
        except (ValueError, KeyError, TypeError) as broken:
            raise pa.ArrowInvalid(f"Invalid ticket. Error: {broken}") from None
        if asked.get("query_type", "sql") != "sql":
            raise NotImplementedError("the stand-in understands SQL alone")  # Core has InfluxQL, too; the product asks in SQL
        try:
            return self._store.query(database, sql, parameters)
        except NoDatabase as missing:
            raise flight.FlightInternalError(f"Cannot retrieve database: External error: database not found: {missing}") from None
        except BadQuery as bad:
            kind = flight.FlightInternalError if bad.internal else pa.ArrowInvalid
            raise kind(f"Error while planning query: {bad}") from None
