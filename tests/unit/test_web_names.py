"""Which Hosts and Origins are this service."""

from __future__ import annotations

import pytest

from app.web.names import OwnNames

PUBLIC = OwnNames.of(("https://dumps.example.org", "http://[2001:db8::7]:8080"))


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8000",
        "127.0.0.1",
        "localhost:9000",
        "LOCALHOST",
        "[::1]:8000",
        "dumps.example.org",
        "Dumps.Example.Org:443",
        "[2001:db8::7]:8080",
    ],
)
def test_loopback_names_and_public_urls_are_our_hosts(host: str) -> None:
    assert PUBLIC.knows_host(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "example.org",
        "dumps.example.org:80",
        "dumps.example.org.evil.test",
        "evil.test:8000",
        "127.0.0.1.evil.test",
        "localhost.evil.test",
        "evil.test@localhost",
        "localhost:8000@evil.test",
        "0.0.0.0:8000",
        "[2001:db8::7]",
        "[::1",
        "192.0.2.1",
    ],
)
def test_other_hosts_are_not(host: str) -> None:
    assert not PUBLIC.knows_host(host)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://127.0.0.1:8000", "127.0.0.1:8000"),
        ("http://localhost", "localhost"),
        ("https://dumps.example.org", "dumps.example.org"),
        ("https://dumps.example.org", "127.0.0.1:8000"),
        ("http://[2001:db8::7]:8080", "[2001:db8::7]:8080"),
    ],
)
def test_the_page_that_was_asked_and_public_urls_are_our_origins(origin: str, host: str) -> None:
    assert PUBLIC.knows_origin(origin, host)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("null", "127.0.0.1:8000"),
        ("http://localhost:3000", "localhost:8000"),
        ("http://localhost:8000", "127.0.0.1:8000"),
        ("https://localhost:8000", "localhost:8000"),
        ("http://dumps.example.org", "dumps.example.org"),
        ("http://localhost:8000", "dumps.example.org"),
        ("https://dumps.example.org.evil.test", "dumps.example.org"),
        ("http://evil.test", "evil.test"),
        ("", "localhost"),
    ],
)
def test_other_origins_are_not(origin: str, host: str) -> None:
    assert not PUBLIC.knows_origin(origin, host)


def test_without_public_urls_only_loopback_is_known() -> None:
    names = OwnNames.of(())
    assert names.knows_host("localhost:8000")
    assert not names.knows_host("dumps.example.org")


def test_loopback_is_https_where_the_service_speaks_tls_itself() -> None:
    names = OwnNames.of((), tls=True)
    assert names.knows_origin("https://127.0.0.1:8000", "127.0.0.1:8000")
    assert not names.knows_origin("http://127.0.0.1:8000", "127.0.0.1:8000")


@pytest.mark.parametrize(
    ("host", "insists"),
    [
        ("dumps.example.org", True),
        ("Dumps.example.org:443", True),
        ("[2001:db8::7]:8080", False),
        ("127.0.0.1:8000", False),
        ("", False),
    ],
)
def test_browsers_keep_https_for_public_names_that_are_reached_by_it(host: str, insists: bool) -> None:
    assert PUBLIC.insists_on_https(host) is insists
