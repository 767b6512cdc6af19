"""What the answers of InfluxDB 3 mean, and whether a URL can be one of it. Pure: statuses and texts in, errors out.

The texts are those of InfluxDB 3 Core (``influxdb3_server``, ``influxdb3_write``) and of gRPC.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

from app.environment import url_fault, without_secrets
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
_ABOUT_TOKEN, _ABOUT_DATABASE = "authorization header", "database"
_LOGIN_IN_URL = "a name or password stands in it; the token goes into INFLUX_TOKEN"
_BEFORE_3 = re.compile(r"v?[012]\.")


@dataclass(frozen=True, slots=True)
class Address:
    """One database of one server, as its errors name it. ``url`` has its port, which may be ``assumed``. ``with_token``:
    whether there is one to send."""

    url: str
    database: str
    assumed: bool = False
    with_token: bool = True

    @classmethod
    def of(cls, url: str, database: str, *, with_token: bool = True) -> Address:
        """Raises ``HistoryWrongUrl`` for what is no URL of a server: scheme, host, and a port if it is not the scheme's."""
        fault = _LOGIN_IN_URL if "@" in url else url_fault(url) or _too_much(url)
        if fault is not None:
            raise HistoryWrongUrl(without_secrets(url), fault)
        parts = urlsplit(url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        return cls(f"{parts.scheme}://{host}:{port}", database, parts.port is None, with_token)

    def check_version(self, version: str | None) -> None:
        """Raises ``HistoryWrongUrl`` unless ``version`` is one of an InfluxDB from 3 on."""
        if not version:
            raise self.wrong("a web server answers, but it is not InfluxDB")
        if _BEFORE_3.match(version):
            raise self.wrong(f"it is InfluxDB {one_line(version)}")

    def wrong(self, cause: str) -> HistoryError:
        return HistoryWrongUrl(self.url, self._with_port(cause))

    def unreachable(self, cause: str) -> HistoryError:
        return HistoryUnreachable(self.url, self._with_port(cause))

    def refused(self, words: str, *, known: bool = False) -> HistoryError:
        return HistoryRefused(self.url, self.database, words, known=known, given=self.with_token)

    def no_answer(self, timeout_sec: float) -> HistoryError:
        return self.unreachable(f"no answer within {timeout_sec:g} s")

    def no_such_host(self) -> HistoryError:
        return self.unreachable(f"there is no host {urlsplit(self.url).hostname}, or its name cannot be looked up")

    def of_status(self, status: int, words: str) -> HistoryError:
        """What an answer over HTTP means; 0 stands for TLS that did not come about."""
        if status == 0:
            return self.wrong(f"no TLS connection comes about ({words})")
        if status in TOKEN_REFUSED:
            return self.refused(f"status {status}, {words}", known=status == HTTPStatus.FORBIDDEN)
        if status in _AWAY:
            return self.unreachable(f"status {status}, {words}")
        about = words.lower()
        if status == HTTPStatus.BAD_REQUEST and _ABOUT_TOKEN in about:
            return self.refused(f"status {status}, {words}")
        if status == HTTPStatus.NOT_FOUND and _ABOUT_DATABASE not in about:
            return self.wrong(f"the address for writing is not known there (status {status}, {words})")
        return HistoryFailed(
            f"InfluxDB at {self.url} answers with status {status}: {words}. {self._advice(status, about)}".rstrip()
        )

    def of_query(self, words: str, *, unavailable: bool) -> HistoryError | None:
        """What a failed query means; None where there is only nothing to read yet."""
        if _NO_GRPC.search(words):
            return self.wrong(f"queries (gRPC over HTTP/2) do not get through to it ({words})")
        if unavailable:
            return self.unreachable(words)
        if _NOT_THERE.search(words):
            return None
        if _TOO_WIDE.search(words):
            return HistoryTooWide(words)
        return HistoryFailed(f"A query of InfluxDB at {self.url} failed: {words}.")

    def _advice(self, status: int, about: str) -> str:
        if status == HTTPStatus.NOT_FOUND:
            return f"Make the database {self.database!r} there, or correct INFLUX_DB."
        if status == HTTPStatus.BAD_REQUEST and (_ABOUT_DATABASE in about or "db name" in about):
            return f"It does not take {self.database!r} as the name of a database: correct INFLUX_DB."
        if status == HTTPStatus.UNPROCESSABLE_ENTITY:
            return "If it has as many databases, tables or columns as it takes, make room there, or set INFLUX_DB to another one."
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            return "It asks for patience: it is tried again."
        return "Its own log tells more." if status >= HTTPStatus.INTERNAL_SERVER_ERROR else ""

    def _with_port(self, cause: str) -> str:
        if not self.assumed:
            return cause
        return f"{cause}. INFLUX_URL names no port, so it is the scheme's, {urlsplit(self.url).port}; InfluxDB's own is 8181"


def _too_much(url: str) -> str | None:
    """What stands in ``url`` beside scheme, host and port, and has no place there."""
    parts = urlsplit(url)
    if parts.path.strip("/"):
        return f"behind host and port stands a path, {parts.path}; leave it out"
    if parts.query or parts.fragment:
        return "behind host and port stands more; leave it out"
    return None


def one_line(text: str) -> str:
    """The part of an error's text that a person can use, short. Of a web page that is nothing."""
    if text.lstrip().startswith("<"):
        return "and a web page instead of words"
    short = " ".join(_AFTER.sub("", _AROUND.sub("", text)).split())
    return (short if len(short) <= _WORDS_CHARS else f"{short[:_WORDS_CHARS]}…").rstrip(".")
