"""The half of the stand-in that speaks Arrow Flight: SQL in a ticket, rows as Arrow.

Texts and codes as in InfluxDB 3 Core's ``service_grpc_flight``. pyarrow's server appends "Detail: Python exception" to
every message, which Core does not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import pyarrow as pa
from pyarrow import flight

from tests.influx.store import BadQuery, NoDatabase, Store
from tests.influx.switches import Switches

_NOT_FOUND, _UNAUTHORIZED, _FORBIDDEN, _UNAVAILABLE = 404, 401, 403, 503


class _Header(flight.ServerMiddleware):  # type: ignore[misc]
    def __init__(self, authorization: str | None) -> None:
        self.authorization = authorization


class _Headers(flight.ServerMiddlewareFactory):  # type: ignore[misc]
    def start_call(self, info: object, headers: Mapping[str, Sequence[str]]) -> _Header:
        found = [value for name, values in headers.items() if name.lower() == "authorization" for value in values]
        return _Header(found[0] if found else None)


class FlightHalf(flight.FlightServerBase):  # type: ignore[misc]
    """Listens on a port of its own on loopback as soon as it is made; ``shutdown`` ends it."""

    def __init__(self, store: Store, switches: Switches) -> None:
        super().__init__("grpc://127.0.0.1:0", middleware={"header": _Headers()})
        self._store, self._switches = store, switches

    def do_get(self, context: flight.ServerCallContext, ticket: flight.Ticket) -> flight.RecordBatchStream:
        self._switches.wait_while_slow()
        if status := self._switches.failing_status:
            raise _error(status, f"the stand-in was told to fail with {status}")
        if not self._switches.admits(context.get_middleware("header").authorization):
            raise flight.FlightUnauthenticatedError("Unauthenticated")
        try:
            asked = json.loads(ticket.ticket)
            rows = self._store.query(asked["database"], asked["sql_query"], asked.get("params") or {})
        except NoDatabase as missing:
            raise _error(_NOT_FOUND, f"Database '{missing}' not found") from None
        except BadQuery as bad:
            raise pa.ArrowInvalid(f"Error while planning query: {bad}") from None
        except (ValueError, KeyError, TypeError):
            raise pa.ArrowInvalid("Invalid ticket") from None
        return flight.RecordBatchStream(rows)


def _error(status: int, text: str) -> Exception:
    match status:
        case 404:
            return KeyError(text)
        case 401:
            return flight.FlightUnauthenticatedError(text)
        case 403:
            return flight.FlightUnauthorizedError(text)
        case 503:
            return flight.FlightUnavailableError(text)
        case _:
            return flight.FlightInternalError(text)
