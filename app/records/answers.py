"""What the answers of InfluxDB 3 mean, and whether a URL can be one of it. Pure: statuses and texts in, errors out.

The texts are those of InfluxDB 3 Core (``influxdb3_server``, ``influxdb3_write``) and of gRPC.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

from app.errors import HistoryError, HistoryFailed, HistoryRefused, HistoryTooWide, HistoryUnreachable, HistoryWrongUrl
from app.records.point import MEASUREMENT

TOKEN_REFUSED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)

_AWAY = (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT)
_WORDS_CHARS = 300
_AROUND = re.compile(
    r"^(?:Error while executing query: )?(?:Flight returned \w+ error, with message: )?|^HTTPS?Connection\([^)]*\): "
)
_AFTER = re.compile(r"\.? (?:Detail: (?:Python exception|[A-Z][a-z]+\b)|gRPC client debug context: |Client context: ).*", re.DOTALL)
_NOT_THERE = re.compile(rf"database not found|database '.*' not found|table '[^']*\b{MEASUREMENT}' not found", re.IGNORECASE)
_TOO_WIDE = re.compile(r"exceed file limit", re.IGNORECASE)
_NO_GRPC = re.compile(r"http1\.x server|failed parsing HTTP/2|http2 header with status: [34]", re.IGNORECASE)
_BEFORE_3 = re.compile(r"v?[012]\.")


@dataclass(frozen=True, slots=True)
class Address:
    """One database of one server, as its errors name it. ``url`` has its port."""

    url: str
    database: str

    @classmethod
    def of(cls, url: str, database: str) -> Address:
        """Raises ``HistoryWrongUrl`` for what is no URL of a server: scheme, host, and a port if it is not the scheme's."""
        try:
            parts = urlsplit(url)
            port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        except (ValueError, KeyError):
            raise HistoryWrongUrl(url, "it does not begin with http:// or https://, or has a port that is none") from None
        if not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc:
            raise HistoryWrongUrl(url, "it must be scheme, host and port alone")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        return cls(f"{parts.scheme}://{host}:{port}", database)

    def check_version(self, version: str | None) -> None:
        """Raises ``HistoryWrongUrl`` unless ``version`` is one of an InfluxDB from 3 on."""
        if not version:
            raise HistoryWrongUrl(self.url, "a web server answers, but it is not InfluxDB")
        if _BEFORE_3.match(version):
            raise HistoryWrongUrl(self.url, f"it is InfluxDB {one_line(version)}")

    def no_answer(self, timeout_sec: float) -> HistoryError:
        return HistoryUnreachable(self.url, f"no answer within {timeout_sec:g} s")

    def no_such_host(self) -> HistoryError:
        return HistoryUnreachable(self.url, f"there is no host {urlsplit(self.url).hostname}, or its name cannot be looked up")

    def of_status(self, status: int, words: str) -> HistoryError:
        """What an answer over HTTP means; 0 stands for TLS that did not come about."""
        if status == 0:
            return HistoryWrongUrl(self.url, f"no TLS connection comes about ({words})")
        if status in TOKEN_REFUSED:
            return HistoryRefused(self.url, self.database, words)
        if status in _AWAY:
            return HistoryUnreachable(self.url, f"status {status}, {words}")
        return HistoryFailed(f"InfluxDB at {self.url} answers with status {status}: {words}.")

    def of_query(self, words: str, *, unavailable: bool) -> HistoryError | None:
        """What a failed query means; None where there is only nothing to read yet."""
        if _NO_GRPC.search(words):
            return HistoryWrongUrl(self.url, f"queries (gRPC over HTTP/2) do not get through to it ({words})")
        if unavailable:
            return HistoryUnreachable(self.url, words)
        if _NOT_THERE.search(words):
            return None
        if _TOO_WIDE.search(words):
            return HistoryTooWide(words)
        return HistoryFailed(f"A query of InfluxDB at {self.url} failed: {words}.")


def one_line(text: str) -> str:
    """The part of an error's text that a person can use, short."""
    short = " ".join(_AFTER.sub("", _AROUND.sub("", text)).split())
    return (short if len(short) <= _WORDS_CHARS else f"{short[:_WORDS_CHARS]}…").rstrip(".")
