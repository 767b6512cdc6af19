"""Addresses and bodies that are meant to go wrong: refused, and nothing but that is told."""

from __future__ import annotations

import pytest

from tests.contract.speech import JOBS, RECORDS, TRIGGER
from tests.contract.test_raw import Client, problem
from tests.service import Service

ABOVE = ["..", "../..", "%2e%2e", "....//....//"]
"""What these lead to may be an address of its own."""

TRICKS = [
    *ABOVE, "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "..%2f..%2fetc%2fpasswd", "..%5c..%5c", "%252e%252e%252f", "%00",
    "x%00.manifest.json", "%0d%0aSet-Cookie:%20a=b", "/etc/passwd", "%2fetc%2fpasswd", "a" * 4000, "%F0%9F%92%A9" * 200,
    "'%20OR%201=1--", "%3Cscript%3E", "%7Bdump_id%7D", "*", "%25", "-1", "1e999",
]  # fmt: skip


@pytest.mark.parametrize("trick", TRICKS, ids=lambda trick: trick[:30])
@pytest.mark.parametrize("let_in", [True, False])
def test_an_id_that_is_a_trick_names_nothing(service: Service, trick: str, let_in: bool) -> None:
    heads = "{heads}" if let_in else f"Host: 127.0.0.1:{service.port}\r\nConnection: close\r\n"
    refused = (400, 404, 405) if let_in else (303, 400, 401, 404, 405)
    for method, path in (
        ("GET", f"{RECORDS}/{trick}"),
        ("GET", f"{JOBS}/{trick}"),
        ("POST", f"{JOBS}/{trick}/cancel"),
        ("GET", f"/memory-dumps/{trick}"),
        ("GET", f"/static/{trick}"),
        ("GET", f"/static/x/{trick}"),
        ("GET", f"/{trick}"),
    ):
        client = Client(service)
        client.say(f"{method} {path} HTTP/1.1\r\n{heads}Content-Length: 0\r\n\r\n")
        status, headers, body = client.heard()
        assert status in refused or (trick in ABOVE and status < 500), path
        assert "Set-Cookie" not in headers
        assert b"root:" not in body
        assert b"Traceback" not in body
        assert headers.get("Content-Type", "").startswith("application/") or b"<script>" not in body


def test_more_headers_than_anybody_needs_are_refused(service: Service) -> None:
    client = Client(service)
    client.say(f"GET {RECORDS} HTTP/1.1\r\n{{heads}}" + "".join(f"X-{number}: x\r\n" for number in range(200)) + "\r\n")
    assert problem(client)["code"] == "request-malformed"


def test_a_body_without_an_end_is_answered_and_the_connection_ends(service: Service) -> None:
    client, part = Client(service), "10000\r\n" + " " * 0x10000 + "\r\n"
    client.say(f"POST {TRIGGER} HTTP/1.1\r\n{{heads}}Transfer-Encoding: chunked\r\n\r\n" + part * 16)
    assert client.connection.recv(12) == b"HTTP/1.1 413"

    def say_for_ever() -> None:
        while True:  # the test's time limit ends it, if the service does not
            client.say(part)

    with client.connection, pytest.raises(OSError, match=r"Broken pipe|reset"):
        say_for_ever()


def test_the_body_of_who_is_not_let_in_is_not_read(service: Service) -> None:
    client = Client(service)
    client.say(f"POST {TRIGGER} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: 1000000000000\r\n\r\nx")
    document = problem(client)
    assert (document["status"], document["code"]) == (401, "login-required")
