"""What InfluxDB and the proxies before it say, and what is made of it."""

import pytest

from app.config import Settings
from app.errors import (
    ConfigError,
    HistoryError,
    HistoryFailed,
    HistoryRefused,
    HistoryTooWide,
    HistoryUnreachable,
    HistoryWrongUrl,
)
from app.records.answers import Address, one_line

ADDRESS = Address.of("http://influx.example.org:8181", "vmstats")


@pytest.mark.parametrize(
    "text",
    [
        "Error while planning query: Error during planning: table 'public.iox.mem_dumps' not found",
        "database not found: vmstats",
        "Database 'vmstats' not found",
        "Database 'it's' not found",
    ],
)
def test_what_is_not_there_yet_is_no_error(text: str) -> None:
    assert ADDRESS.of_query(text, unavailable=False) is None


@pytest.mark.parametrize(
    ("text", "unavailable", "kind"),
    [
        ("Error while planning query: External error: Query would exceed file limit of 432 parquet files.", False, HistoryTooWide),
        ("Error while planning query: Error during planning: table 'public.iox.others' not found", False, HistoryFailed),
        ("No field named mem_dumps", False, HistoryFailed),
        ("Trying to connect an http1.x server", True, HistoryWrongUrl),
        ("Received http2 header with status: 404", False, HistoryWrongUrl),
        ("Received http2 header with status: 502", True, HistoryUnreachable),
        ("Socket closed", True, HistoryUnreachable),
    ],
)
def test_other_words_are_told_apart(text: str, unavailable: bool, kind: type[HistoryError]) -> None:
    assert type(ADDRESS.of_query(text, unavailable=unavailable)) is kind


@pytest.mark.parametrize("version", ["3.0.0", "3.11.5", "v3.2", "4.0.0", "10.1", "3.0.0-beta"])
def test_versions_from_3_on_are_taken(version: str) -> None:
    ADDRESS.check_version(version)


@pytest.mark.parametrize("version", [None, "", "2.7.1", "v2.7.1", "1.8.10", "0.9"])
def test_older_ones_and_what_is_no_influxdb_are_not(version: str | None) -> None:
    with pytest.raises(HistoryWrongUrl):
        ADDRESS.check_version(version)


@pytest.mark.parametrize(
    ("text", "short"),
    [
        (
            "Flight returned unavailable error, with message: Socket closed. gRPC client debug context: UNAVAILABLE:x",
            "Socket closed",
        ),
        (
            "HTTPConnection(host='127.0.0.1', port=1): Failed: [Errno 111] Connection refused",
            "Failed: [Errno 111] Connection refused",
        ),
        ("Unauthenticated. Detail: Unauthenticated. Client context: IOError: Server never sent a data message", "Unauthenticated"),
        ("two\n  lines.", "two lines"),
    ],
)
def test_only_what_helps_a_person_is_passed_on(text: str, short: str) -> None:
    assert one_line(text) == short


def test_long_words_are_cut() -> None:
    assert len(one_line("x" * 10_000)) < 400


WITHOUT_TOKEN = Address.of("http://influx.example.org:8181", "vmstats", with_token=False)


@pytest.mark.parametrize(
    ("address", "status", "words", "kind", "told"),
    [
        (ADDRESS, 401, "the request was not authenticated", HistoryRefused, "refuses the token"),
        (WITHOUT_TOKEN, 401, "the request was not authenticated", HistoryRefused, "INFLUX_TOKEN is not set"),
        (ADDRESS, 403, "forbidden: no write access", HistoryRefused, "does not let it use the database 'vmstats'"),
        (ADDRESS, 400, "Authorization header was malformed", HistoryRefused, "refuses the token"),
        (ADDRESS, 400, "invalid database name", HistoryFailed, "correct INFLUX_DB"),
        (ADDRESS, 400, "no", HistoryFailed, "status 400: no."),
        (ADDRESS, 404, "database not found: vmstats", HistoryFailed, "Make the database 'vmstats' there"),
        (ADDRESS, 404, "and a web page instead of words", HistoryWrongUrl, "address for writing"),
        (ADDRESS, 422, "too many databases", HistoryFailed, "make room there"),
        (ADDRESS, 429, "slow down", HistoryFailed, "tried again"),
        (ADDRESS, 500, "Internal Server Error", HistoryFailed, "Its own log"),
        (ADDRESS, 503, "Service Unavailable", HistoryUnreachable, "Check that it runs"),
        (ADDRESS, 0, "wrong version number", HistoryWrongUrl, "TLS"),
    ],
)
def test_each_refusal_says_what_it_is_and_what_to_do(
    address: Address, status: int, words: str, kind: type[HistoryError], told: str
) -> None:
    error = address.of_status(status, words)
    assert type(error) is kind
    assert told in str(error)
    assert words in str(error)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("influx.example.org:8181", "it has no scheme; write http://influx.example.org:8181 or https://"),
        ("http:influx", "two slashes"),
        ("grpc://influx:8181", "its scheme is 'grpc'"),
        ("http://", "names no host"),
        ("http://influx:0", "not a number from 1 to 65535"),
        ("http://influx:port", "not a number from 1 to 65535"),
        ("http://[::1", "IPv6"),
        ("http://influx:8181/api/v3", "a path, /api/v3; leave it out"),
        ("http://influx:8181?db=x", "leave it out"),
        ("http://me:se/cret@influx:8181", "INFLUX_TOKEN"),
    ],
)
def test_what_is_wrong_with_a_url_is_said_in_plain_words(url: str, told: str) -> None:
    with pytest.raises(HistoryWrongUrl) as wrong:
        Address.of(url, "vmstats")
    assert told in str(wrong.value)


@pytest.mark.parametrize(
    "url", ["http://me:secret@influx:8181", "me:secret@influx", "http://me:se/secret@influx", "http://influx/?token=secret"]
)
def test_no_secret_of_a_url_is_repeated(url: str) -> None:
    with pytest.raises(HistoryWrongUrl) as wrong:
        Address.of(url, "vmstats")
    assert "secret" not in str(wrong.value)
    for name in ("INFLUX_URL", "MEMDUMP_PUBLIC_URL"):
        with pytest.raises(ConfigError) as refused:
            Settings.from_environment({name: url.replace("http:", "ftp:")})
        assert "secret" not in str(refused.value)


@pytest.mark.parametrize(("url", "port"), [("http://influx", 80), ("https://influx", 443)])
def test_a_port_that_was_only_assumed_is_said_where_nothing_answers(url: str, port: int) -> None:
    address = Address.of(url, "vmstats")
    for error in (address.unreachable("refused"), address.no_answer(1), address.wrong("it is no InfluxDB")):
        assert f"it is the scheme's, {port}; InfluxDB's own is 8181" in str(error)
    assert "scheme's" not in str(ADDRESS.unreachable("refused"))


def test_a_web_page_is_not_repeated() -> None:
    assert "<" not in one_line("  <!doctype html><html>Not found</html>")
