"""``MEMDUMP_TLS_CERT`` and ``MEMDUMP_TLS_KEY``: https without a proxy, and what browsers keep of it."""

from __future__ import annotations

import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
from aiohttp import WSServerHandshakeError

from tests.certificates import NAME, Pair, make_pair
from tests.contract.conftest import VMS
from tests.contract.speech import FEED, RECORDS
from tests.contract.test_login import listening_port
from tests.nodes import node
from tests.service import Service, run_app, running_service, service_environment

HSTS = "Strict-Transport-Security"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, pair: Pair) -> Iterator[Service]:
    """A service that speaks TLS, under its loopback address alone."""
    folder = tmp_path_factory.mktemp("service")
    with running_service(folder, LIBVIRT_URI=node(folder / "node.xml", VMS), **pair.settings) as started:
        yield started


@pytest.fixture
async def client(service: Service, pair: Pair) -> AsyncIterator[aiohttp.ClientSession]:
    """Somebody who trusts the certificate."""
    connector = aiohttp.TCPConnector(ssl=pair.trusting)
    async with aiohttp.ClientSession(service.url, connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield session


async def test_the_service_is_reached_by_https_and_its_cookie_and_feed_go_that_way_alone(
    service: Service, client: aiohttp.ClientSession
) -> None:
    assert service.url.startswith("https://127.0.0.1:")
    assert service.login_url.startswith(f"{service.url}/login?code=")
    form = {"code": parse_qs(urlsplit(service.login_url).query)["code"][0]}
    for origin, status in ((service.url.replace("https", "http"), 403), (service.url, 303)):
        async with client.post("/login", data=form, headers={"Origin": origin}, allow_redirects=False) as answer:
            assert answer.status == status
    flags = {part.strip().lower() for part in answer.headers["Set-Cookie"].split(";")}
    assert {"secure", "httponly", "samesite=strict"} <= flags
    cookie = {"Cookie": answer.headers["Set-Cookie"].partition(";")[0]}
    async with client.ws_connect(FEED, headers={**cookie, "Origin": service.url}) as feed:
        assert (await feed.receive_json(timeout=20))["type"] == "snapshot"
    with pytest.raises(WSServerHandshakeError):
        await client.ws_connect(FEED, headers={**cookie, "Origin": service.url.replace("https", "http")})


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")  # which is what the test is about
async def test_what_is_no_tls_or_too_old_a_one_gets_no_answer_and_disturbs_nobody(
    service: Service, client: aiohttp.ClientSession
) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert b"HTTP" not in connection.recv(1000)  # an alert of TLS at the most
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection, pytest.raises(ssl.SSLError):
        old.wrap_socket(connection)
    async with client.get("/healthz") as answer:
        assert answer.status == 200
    assert "Traceback" not in service.stderr_text()


async def test_loopback_names_are_not_remembered_as_https_alone(client: aiohttp.ClientSession) -> None:
    async with client.get("/healthz") as answer:
        assert HSTS not in answer.headers


@pytest.mark.parametrize("by_proxy", [True, False])
async def test_a_public_name_is_https_alone_in_every_answer(tmp_path: Path, pair: Pair, by_proxy: bool) -> None:
    settings = {} if by_proxy else pair.settings
    with running_service(tmp_path, MEMDUMP_PUBLIC_URL=f"https://{NAME}:8443", **settings) as service:
        assert service.login_url.startswith(f"https://{NAME}:8443/login")
        address = f"{'http' if by_proxy else 'https'}://127.0.0.1:{listening_port(service)}"
        async with aiohttp.ClientSession(address, connector=aiohttp.TCPConnector(ssl=pair.trusting)) as session:
            for path in ("/healthz", "/memory-dumps", "/login", "/static/x/main.js", RECORDS, "/nowhere"):
                for host, kept in ((f"{NAME}:8443", "max-age=31536000"), ("localhost", None)):
                    async with session.get(path, headers={"Host": host}, allow_redirects=False) as answer:
                        assert answer.headers.get(HSTS) == kept
            headers = {**service.headers, "Host": f"{NAME}:8443"}
            async with session.ws_connect(FEED, headers=headers) as feed:
                assert feed._response.headers[HSTS] == "max-age=31536000"


def shown_certificate(service: Service) -> bytes:
    """What a new connection is shown."""
    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as plain, blind.wrap_socket(plain) as connection:
        return connection.getpeercert(binary_form=True) or b""


def test_a_renewed_certificate_is_shown_without_a_restart_and_half_a_one_is_not(tmp_path: Path) -> None:
    used, renewed = make_pair(tmp_path / "used"), make_pair(tmp_path / "renewed")
    old, new = (ssl.PEM_cert_to_DER_cert(pair.cert.read_text()) for pair in (used, renewed))
    with running_service(tmp_path / "service", **used.settings) as service:
        assert shown_certificate(service) == old
        shutil.copy(renewed.cert, used.cert)
        assert shown_certificate(service) == old
        used.key.unlink()
        assert shown_certificate(service) == old
        shutil.copy(renewed.key, used.key)
        assert shown_certificate(service) == new


@pytest.mark.parametrize("case", ["no key", "no certificate", "missing", "no PEM", "of another", "a password"])
def test_a_certificate_that_cannot_be_used_ends_the_start_with_one_line(tmp_path: Path, pair: Pair, case: str) -> None:
    settings = dict(pair.settings)
    if case == "no key":
        del settings["MEMDUMP_TLS_KEY"]
    elif case == "no certificate":
        del settings["MEMDUMP_TLS_CERT"]
    elif case == "missing":
        settings["MEMDUMP_TLS_KEY"] = str(tmp_path / "nowhere.pem")
    elif case == "no PEM":
        settings["MEMDUMP_TLS_CERT"] = __file__
    elif case == "of another":
        settings["MEMDUMP_TLS_KEY"] = str(make_pair(tmp_path / "other").key)
    else:
        settings = make_pair(tmp_path / "locked", password="secret").settings
    ended = run_app(environment=service_environment(tmp_path, **settings))
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert "MEMDUMP_TLS_" in ended.stderr
    assert ("password" in ended.stderr) is (case == "a password")
    assert not (tmp_path / "state").exists()
