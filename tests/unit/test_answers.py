"""What InfluxDB and the proxies before it say, and what is made of it."""

import pytest

from app.errors import HistoryError, HistoryFailed, HistoryTooWide, HistoryUnreachable, HistoryWrongUrl
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
