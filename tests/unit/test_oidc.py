"""A provider that lies, or somebody between it and us: whatever it says that does not hold makes nobody."""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

from app.config import Oidc
from app.errors import TooManyLogins
from app.web.oidc import MOST_AT_ONCE, Provider
from app.web.vouching import Attempt, NotVouchedFor, ProviderUnreachable

CLIENT, SECRET = "memory-dumps", "a-secret-of-32-bytes-and-not-less"
ATTEMPT = Attempt("of this browser")
KEY, OTHER = RSAKey.generate_key(2048, {"kid": "one"}), RSAKey.generate_key(2048, {"kid": "one"})
BACK = "http://127.0.0.1:8000/login/oidc/back"


class Liar:
    """A provider all of whose words a test may change."""

    def __init__(self) -> None:
        self.claims: dict[str, Any] = {}
        self.metadata: dict[str, Any] = {}
        self.told: dict[str, Any] = {"sub": "1", "groups": ["soc"]}
        self.key: RSAKey | OctKey = KEY
        self.header: dict[str, Any] = {"alg": "RS256", "kid": "one"}
        self.token: object = None
        self.issuer = ""
        self.asked = 0
        self.exchanging: asyncio.Queue[None] = asyncio.Queue()
        self.answers = asyncio.Event()
        self.answers.set()

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/.well-known/openid-configuration", self._metadata)
        app.router.add_post("/token", self._token)
        app.router.add_get("/keys", self._keys)
        app.router.add_get("/me", self._me)
        return app

    async def _keys(self, _request: web.Request) -> web.Response:
        return web.json_response({"keys": [KEY.as_dict(private=False)]})

    async def _me(self, _request: web.Request) -> web.Response:
        return web.json_response(self.told)

    async def _metadata(self, _request: web.Request) -> web.Response:
        self.asked += 1
        known = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/auth",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            "userinfo_endpoint": f"{self.issuer}/me",
            "id_token_signing_alg_values_supported": ["RS256", "HS256", "none"],
        }
        return web.json_response({**known, **self.metadata})

    async def _token(self, request: web.Request) -> web.Response:
        form = await request.post()
        assert form["code_verifier"] == ATTEMPT.verifier
        assert form["redirect_uri"] == BACK
        self.exchanging.put_nowait(None)
        await self.answers.wait()
        now = int(time.time())
        claims = {
            "iss": self.issuer, "sub": "1", "aud": CLIENT, "exp": now + 300, "iat": now, "nonce": ATTEMPT.nonce,
            "preferred_username": "anna", "groups": ["soc"], **self.claims,
        }  # fmt: skip
        claims = {name: value for name, value in claims.items() if value is not None}
        token = self.token or jwt.encode(self.header, claims, self.key, algorithms=["RS256", "HS256", "none"])
        return web.json_response({"access_token": "x", "token_type": "Bearer", "expires_in": 300, "id_token": token})


@pytest.fixture
async def liar() -> AsyncIterator[Liar]:
    """One that speaks the truth until a test changes it."""
    liar = Liar()
    server = TestServer(liar.app())
    await server.start_server()
    liar.issuer = str(server.make_url("")).rstrip("/")
    yield liar
    await server.close()


def provider_of(liar: Liar, monotonic: Callable[[], float] = time.monotonic, **changed: Any) -> Provider:
    settings = {"client_id": CLIENT, "client_secret": SECRET, "scope": "openid profile", "groups_claim": "groups", **changed}
    return Provider(Oidc(issuer=liar.issuer, **settings), monotonic)


async def test_who_is_vouched_for_has_the_providers_name_and_groups(liar: Liar) -> None:
    person = await provider_of(liar).person(ATTEMPT, "code", BACK)
    assert (person.name, person.sub, list(person.groups)) == ("anna", "1", ["soc"])


@pytest.mark.parametrize(
    "claims",
    [
        {"nonce": None}, {"nonce": "another"}, {"aud": "another"}, {"aud": [CLIENT, "another"]}, {"aud": None}, {"azp": "another"},
        {"iss": "https://evil.example"}, {"iss": None}, {"exp": 1}, {"exp": None}, {"iat": 4_000_000_000}, {"sub": None},
        {"at_hash": "wrong"}, {"preferred_username": "an\x00na"}, {"preferred_username": " "}, {"preferred_username": ["anna"]},
        {"preferred_username": "a" * 256}, {"sub": "1\n"}, {"sub": 7}, {"sub": "1" * 256},
    ],
    ids=str,
)  # fmt: skip
async def test_an_id_token_that_does_not_hold_makes_nobody(liar: Liar, claims: dict[str, Any]) -> None:
    liar.claims = claims
    with pytest.raises(NotVouchedFor):
        await provider_of(liar).person(ATTEMPT, "code", BACK)


def by_the_public_key(liar: Liar) -> str:
    """A token whose HMAC has the provider's public key, which everybody knows, as its secret. Libraries refuse to make one."""
    now = int(time.time())
    claims = {"iss": liar.issuer, "sub": "1", "aud": CLIENT, "exp": now + 300, "iat": now, "nonce": ATTEMPT.nonce}
    parts = [{"alg": "HS256", "kid": "one"}, {**claims, "preferred_username": "anna", "groups": ["soc"]}]
    signed = b".".join(urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts)
    mac = hmac.digest(KEY.as_pem(private=False), signed, "sha256")
    return f"{signed.decode()}.{urlsafe_b64encode(mac).rstrip(b'=').decode()}"


async def test_a_signature_of_anybody_else_or_none_at_all_makes_nobody(liar: Liar) -> None:
    for key, header in (
        (OTHER, {"alg": "RS256", "kid": "one"}),
        (OTHER, {"alg": "RS256", "kid": "two"}),
        (OctKey.import_key(SECRET), {"alg": "HS256"}),
        (KEY, {"alg": "none"}),
    ):
        liar.key, liar.header = key, header
        with pytest.raises(NotVouchedFor):
            await provider_of(liar).person(ATTEMPT, "code", BACK)
    tokens: list[object] = [by_the_public_key(liar), " ", "a.b.c", 7, ["x"], "eyJhbGciOiJub25lIn0.e30."]
    for liar.token in tokens:
        with pytest.raises(NotVouchedFor):
            await provider_of(liar).person(ATTEMPT, "code", BACK)


async def test_groups_that_the_id_token_lacks_are_asked_for_and_only_of_the_same_person(liar: Liar) -> None:
    liar.claims = {"groups": None}
    assert list((await provider_of(liar).person(ATTEMPT, "code", BACK)).groups) == ["soc"]
    liar.told = {"sub": "2", "groups": ["admins"]}
    with pytest.raises(NotVouchedFor):
        await provider_of(liar).person(ATTEMPT, "code", BACK)


@pytest.mark.parametrize(
    ("claim", "claims", "groups"),
    [
        ("realm_access.roles", {"realm_access": {"roles": ["soc"]}}, ["soc"]),
        ("https://example.org/groups", {"https://example.org/groups": "soc"}, ["soc"]),
        ("groups", {"groups": ["soc", 7, None]}, ["soc"]),
        ("groups", {"groups": {"soc": True}}, []),
        ("a.b", {"a": "soc"}, []),
    ],
)
async def test_groups_stand_in_the_claim_that_the_setting_names(
    liar: Liar, claim: str, claims: dict[str, Any], groups: list[str]
) -> None:
    liar.claims = claims
    assert list((await provider_of(liar, groups_claim=claim).person(ATTEMPT, "code", BACK)).groups) == groups


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://evil.example"}, {"token_endpoint": "http://evil.example/token"}, {"jwks_uri": None},
        {"authorization_endpoint": "javascript:alert(1)"}, {"userinfo_endpoint": "http://evil.example/me"},
    ],
    ids=str,
)  # fmt: skip
async def test_a_provider_that_calls_itself_otherwise_or_leads_off_the_safe_way_is_none(
    liar: Liar, metadata: dict[str, Any]
) -> None:
    liar.metadata = metadata
    with pytest.raises(ProviderUnreachable):
        await provider_of(liar).address(ATTEMPT, BACK)
    with pytest.raises(ProviderUnreachable):
        await provider_of(liar).person(ATTEMPT, "code", BACK)


async def test_a_provider_without_the_one_endpoint_that_it_need_not_have_is_one(liar: Liar) -> None:
    liar.metadata, liar.claims = {"userinfo_endpoint": None}, {"groups": None}
    assert list((await provider_of(liar).person(ATTEMPT, "code", BACK)).groups) == []


async def test_a_provider_is_asked_once_what_it_is_however_many_log_in(liar: Liar) -> None:
    provider = provider_of(liar)
    await asyncio.gather(*(provider.address(ATTEMPT, BACK) for _ in range(20)))
    assert liar.asked == 1


async def test_a_provider_that_fails_is_let_alone_for_some_seconds(liar: Liar) -> None:
    passed = [0.0]
    provider = provider_of(liar, lambda: passed[0])
    liar.metadata = {"issuer": "https://evil.example"}
    told = await asyncio.gather(*(provider.address(ATTEMPT, BACK) for _ in range(20)), return_exceptions=True)
    assert {(type(each), str(each)) for each in told} == {(ProviderUnreachable, str(told[0]))}
    assert liar.asked == 1
    liar.metadata = {}
    passed[0] = 10.0
    assert (await provider.person(ATTEMPT, "code", BACK)).name == "anna"
    assert liar.asked == 2


async def test_only_so_many_codes_are_exchanged_at_once(liar: Liar) -> None:
    provider = provider_of(liar)
    liar.answers.clear()
    exchanges = [asyncio.create_task(provider.person(ATTEMPT, "code", BACK)) for _ in range(MOST_AT_ONCE)]
    for _ in exchanges:
        await liar.exchanging.get()
    with pytest.raises(TooManyLogins):
        await provider.person(ATTEMPT, "code", BACK)
    liar.answers.set()
    assert {person.name for person in await asyncio.gather(*exchanges)} == {"anna"}
    assert (await provider.person(ATTEMPT, "code", BACK)).name == "anna"


def test_all_that_follows_from_an_attempt_differs_and_only_its_own_state_began_it() -> None:
    other = Attempt("of another browser")
    derived = {getattr(attempt, name) for attempt in (ATTEMPT, other) for name in ("state", "nonce", "verifier")}
    assert len(derived) == 6
    assert ATTEMPT.began(ATTEMPT.state)
    assert not any(ATTEMPT.began(state) for state in (other.state, "", ATTEMPT.nonce, "\udc80"))


def test_the_clients_secret_is_not_shown() -> None:
    assert SECRET not in repr(Oidc(issuer="https://x", client_id=CLIENT, client_secret=SECRET, scope="openid", groups_claim="g"))
