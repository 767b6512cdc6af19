"""What it costs a request to be asked who sends it: the same question to a service with logins, and to one that is open."""

from __future__ import annotations

import contextlib
import http.client
import time
from pathlib import Path

from benchmarks.figures import Figure, in_turn, median, spread
from tests.service import Service, running_service

_QUESTION = "/api/memory-dumps/stats"
_REQUESTS = 1000
_MORE_MS = 0.2


def of_a_request(folder: Path) -> Figure:
    """Request by request in turn, each over a connection that stays open; by an API token, as programs do."""
    with (
        running_service(folder / "closed", LIBVIRT_URI="test:///default") as closed,
        running_service(folder / "open", LIBVIRT_URI="test:///default", MEMDUMP_AUTH="none") as opened,
        _connected(closed) as to_closed,
        _connected(opened) as to_open,
    ):
        ours, without = in_turn(lambda: _ask(to_closed, closed.headers), lambda: _ask(to_open, {}), runs=_REQUESTS)
    more_ms = median(ours) - median(without)
    return Figure(
        claim="a request with an API token, against the same to a service without logins",
        ours=spread(ours, "ms"),
        baseline=spread(without, "ms"),
        ratio=f"{more_ms:+.3f} ms",
        bound=f"+{_MORE_MS} ms",
        met=more_ms <= _MORE_MS,
    )


def _connected(service: Service) -> contextlib.closing[http.client.HTTPConnection]:
    return contextlib.closing(http.client.HTTPConnection("127.0.0.1", service.port, timeout=60))


def _ask(connection: http.client.HTTPConnection, headers: dict[str, str]) -> float:
    since = time.perf_counter()
    connection.request("GET", _QUESTION, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    took_ms = (time.perf_counter() - since) * 1000
    if answer.status != 200:
        raise AssertionError(f"{_QUESTION}: {answer.status} {body!r}")
    return took_ms
