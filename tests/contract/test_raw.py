"""Contract, section 7, for whoever does not speak HTTP: every answer is a problem document with a code and the headers."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from app.web.envelope import SECURITY_HEADERS
from tests.contract.speech import RECORDS, TRIGGER, assert_problem
from tests.service import Service
from tests.thorough import thorough

GET = f"GET {RECORDS} HTTP/1.1\r\n"
POST = f"POST {TRIGGER} HTTP/1.1\r\n"
SECRET = "memory_dumps_session=very-secret"


class Client:
    """A connection on which anything may be said."""

    def __init__(self, service: Service) -> None:
        self.heads = f"Host: 127.0.0.1:{service.port}\r\nAuthorization: Bearer {service.token}\r\nConnection: close\r\n"
        self.connection = socket.create_connection(("127.0.0.1", service.port), timeout=20)

    def say(self, text: str) -> None:
        self.connection.sendall(text.replace("{heads}", self.heads).encode("latin-1"))

    def heard(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the one answer that ends the connection."""
        said = bytearray()
        with self.connection:
            while part := self.connection.recv(1 << 16):
                said += part
        head, _, body = bytes(said).partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        return int(first.split()[1]), dict(line.split(": ", 1) for line in lines), body


def problem(client: Client) -> dict[str, Any]:
    """The problem document that ends the connection."""
    status, headers, body = client.heard()
    assert headers["Content-Type"] == "application/problem+json"
    assert headers["Server"] == "memory-dumps"
    assert headers["Cache-Control"] == "no-store"
    assert SECURITY_HEADERS.items() <= headers.items()
    document: dict[str, Any] = json.loads(body)
    assert_problem(document, status)
    return document


@pytest.mark.parametrize(
    "said",
    [
        "nonsense\r\n\r\n",
        "\x16\x03\x01\x00\xa5\x01\x00\x00",  # the begin of TLS
        "FOO / HTTP/1.1\r\n{heads}\r\n",
        "GET / HTTP/9.9\r\n{heads}\r\n",
        f"GET {RECORDS}/\xff HTTP/1.1\r\n{{heads}}\r\n",
        f"GET {RECORDS}?q=\xff HTTP/1.1\r\n{{heads}}\r\n",
        "GET http://[::1/ HTTP/1.1\r\n{heads}\r\n",
        "GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
        GET + "Host: 127.0.0.1\r\n{heads}\r\n",
        GET + "{heads}Cookie: " + SECRET + "\x01\r\n\r\n",
        GET + "{heads}Name with space: x\r\n\r\n",
        POST + "{heads}Content-Length: two\r\n\r\n{}",
        POST + "{heads}Content-Length: -2\r\n\r\n{}",
        POST + "{heads}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        POST + "{heads}Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
    ],
)
def test_what_is_no_http_is_answered_with_a_problem(service: Service, said: str) -> None:
    client = Client(service)
    client.say(said)
    document = problem(client)
    assert (document["status"], document["code"]) == (400, "request-malformed")
    assert SECRET not in document["detail"]
    assert SECRET not in service.log_text()


@pytest.mark.parametrize(
    "said", [GET + "{heads}Cookie: " + "a" * 9000 + "\r\n\r\n", f"GET /{'a' * 33_000} HTTP/1.1\r\n{{heads}}\r\n"]
)
def test_a_line_that_is_too_long_is_told_so(service: Service, said: str) -> None:
    client = Client(service)
    client.say(said)
    document = problem(client)
    assert (document["status"], document["code"]) == (400, "request-malformed")
    assert "too long" in document["detail"]
    assert "aaaa" not in document["detail"]


@pytest.mark.parametrize("path", [TRIGGER, "/nowhere", "/static/main.js"])
def test_an_expectation_that_nobody_meets_is_refused(service: Service, path: str) -> None:
    client = Client(service)
    client.say(f"POST {path} HTTP/1.1\r\n{{heads}}Expect: wonders\r\nContent-Length: 2\r\n\r\n{{}}")
    document = problem(client)
    assert (document["status"], document["code"]) == (417, "expectation-failed")


def test_the_one_expectation_that_there_is_is_met(service: Service) -> None:
    client = Client(service)
    client.say(POST + "{heads}Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert client.connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.say("{}")
    assert problem(client)["code"] == "request-invalid"


def test_a_client_that_goes_in_the_middle_of_a_request_is_no_failure_of_the_service(service: Service) -> None:
    with Client(service).connection as connection:
        connection.sendall(
            f"{POST}Host: 127.0.0.1\r\nAuthorization: Bearer {service.token}\r\nExpect: 100-continue\r\n"
            "Content-Length: 100\r\n\r\n".encode()
        )
        assert connection.recv(1000).startswith(b"HTTP/1.1 100")
        connection.sendall(b"{")
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1000) == b""
    client = Client(service)
    client.say(GET + "{heads}\r\n")
    assert client.heard()[0] == 200
    assert "request_failed" not in service.log_text()


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "identity", "nonsense"])
def test_a_body_that_says_it_is_encoded_is_refused(service: Service, encoding: str) -> None:
    client = Client(service)
    client.say(POST + f"{{heads}}Content-Encoding: {encoding}\r\nContent-Length: 2\r\n\r\n{{}}")
    document = problem(client)
    assert (document["status"], document["code"]) == (415, "media-type-unsupported")


@pytest.mark.parametrize("accept", ["text/html", "image/png;q=0.1", "nonsense", ""])
def test_an_answer_is_json_whatever_is_accepted(service: Service, accept: str) -> None:
    client = Client(service)
    client.say(GET + f"{{heads}}Accept: {accept}\r\n\r\n")
    status, headers, _ = client.heard()
    assert (status, headers["Content-Type"]) == (200, "application/json")


@pytest.mark.parametrize(
    ("path", "query", "place"),
    [
        (RECORDS, "q=%FF", "q"),
        (RECORDS, "limit=5&dom=a%C3", "dom"),
        (RECORDS, "q=%ED%A0%80", "q"),
        (RECORDS, "%FF=1", "\\xff"),
        (f"{RECORDS}.csv", "q=%FF", "q"),
        ("/api/memory-dumps/activity", "limit=%FF", "limit"),
        ("/api/memory-dumps/ws", "since=%FF", "since"),
        ("/readyz", "x=%FF", "x"),
    ],
)
def test_a_parameter_that_is_not_utf_8_is_named(service: Service, path: str, query: str, place: str) -> None:
    client = Client(service)
    client.say(f"GET {path}?{query} HTTP/1.1\r\n{{heads}}\r\n")
    document = problem(client)
    assert (document["status"], document["code"], document["place"]) == (400, "request-invalid", place)


@pytest.mark.parametrize("path", ["/login?code=%FF", "/memory-dumps?%C3", "/?a=%FF", "/static/main.js?v=%FF", "/api/docs?x=%FF"])
def test_a_person_gets_a_page_that_says_so(service: Service, path: str) -> None:
    client = Client(service)
    client.say(f"GET {path} HTTP/1.1\r\n{{heads}}\r\n")
    status, headers, body = client.heard()
    assert (status, headers["Content-Type"]) == (400, "text/html; charset=utf-8")
    assert b"not UTF-8" in body


@pytest.mark.parametrize("path", [f"{RECORDS}/%FF", "/static/%FF", "/api/%FF?q=%FF", "/%C3"])
def test_nothing_is_at_an_address_that_is_not_utf_8(service: Service, path: str) -> None:
    client = Client(service)
    client.say(f"GET {path} HTTP/1.1\r\n{{heads}}\r\n")
    assert client.heard()[0] == 404


@pytest.mark.parametrize(
    ("path", "status"),
    [(f"{RECORDS}/%FF", 401), (f"{RECORDS}?q=%FF", 401), ("/api/%FF", 401), ("/%C3?a=%FF", 303), ("/static/%FF", 404)],
)
def test_without_a_login_such_an_address_is_as_any_other(service: Service, path: str, status: int) -> None:
    client = Client(service)
    client.say(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{service.port}\r\nConnection: close\r\n\r\n")
    assert client.heard()[0] == status


CHARSETS = ["nonsense", "utf-16", "latin-1", "undefined", "punycode", "utf-7", "unicode_escape", "idna", "hex", "utf_8_sig"]


@pytest.mark.parametrize("charset", CHARSETS)
def test_a_form_that_says_to_be_anything_but_utf_8_is_not_read(service: Service, charset: str) -> None:
    client, form = Client(service), "code=+2AA-&name=\xff&label=\\ud800&x=--"
    kind = f"Content-Type: application/x-www-form-urlencoded; charset={charset}\r\nContent-Length: {len(form)}\r\n"
    client.say(f"POST /login HTTP/1.1\r\n{{heads}}{kind}\r\n{form}")
    status, _, body = client.heard()
    assert (status, b"it is not UTF-8" in body) == (400, True)


@pytest.mark.parametrize("kind", ["", "; charset=utf-8", "; charset=UTF8", '; charset="utf-8"', "; charset="])
def test_a_form_that_is_not_utf_8_is_not_read_whatever_it_says(service: Service, kind: str) -> None:
    client = Client(service)
    form = f"Content-Type: application/x-www-form-urlencoded{kind}\r\nContent-Length: 6\r\nConnection: close\r\n\r\ncode=\xff"
    client.say(f"POST /login HTTP/1.1\r\nHost: 127.0.0.1:{service.port}\r\n{form}")
    assert client.heard()[0] == 400


@pytest.mark.parametrize("charset", CHARSETS)
def test_json_is_utf_8_whatever_is_said_of_it(service: Service, charset: str) -> None:
    for path, body in ((TRIGGER, '{"vm_ids":["+2AA-"]}'), ("/api/accounts", '{"name":"+2AA-","role":"viewer"}')):
        client = Client(service)
        kind = f"Content-Type: application/json; charset={charset}\r\nContent-Length: {len(body)}\r\n"
        client.say(f"POST {path} HTTP/1.1\r\n{{heads}}{kind}\r\n{body}")
        assert problem(client)["code"] in ("vm-unknown", "request-invalid")


@thorough
def test_a_body_that_does_not_come_in_time_is_not_waited_for_even_where_no_login_is_needed(service: Service) -> None:
    client = Client(service)
    form = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n\r\ncode=x"
    client.say(f"POST /login HTTP/1.1\r\nHost: 127.0.0.1:{service.port}\r\n{form}")
    status, headers, body = client.heard()  # though it asked for the connection to stay
    assert (status, headers["Connection"]) == (408, "close")
    assert b"did not come within" in body
