"""OpenID Connect: who a provider says that somebody is (authorization code with PKCE). The only place that knows Authlib.

Loaded only where ``MEMDUMP_AUTH=oidc``: it takes half a second.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

import httpx2
from authlib.integrations.base_client.errors import OAuthError
from authlib.integrations.httpx_client import AsyncOAuth2Client
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry

from app.config import Oidc
from app.environment import url_is_safe
from app.errors import TooManyLogins
from app.web.vouching import Attempt, NotVouchedFor, Person, ProviderUnreachable

_TIMEOUT_SEC = 10.0
_KNOWN_SEC = 3600.0
_FAILED_SEC = 5.0
"""So long it is not asked again after it has failed to say what it is: whoever comes meanwhile is told at once."""

MOST_AT_ONCE = 10
"""So many codes are exchanged at once; whoever comes then is told to come again."""

_AGAIN_SEC = 5
_LEEWAY_SEC = 60
_LONGEST_NAME = 255
_SIGNED_BY_A_KEY_PAIR = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"}
)
"""Never ``none``, nor one whose key would be the client's own secret."""

_ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")
_USERINFO = "userinfo_endpoint"
"""The one that a provider need not have."""


class Provider:
    """The one of ``MEMDUMP_OIDC_ISSUER``. Methods raise ``ProviderUnreachable``, ``person`` also ``NotVouchedFor`` and
    ``TooManyLogins``."""

    def __init__(self, settings: Oidc, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._monotonic = monotonic
        self._trust = ssl.create_default_context()
        self._known: Mapping[str, Any] = {}
        self._known_until = 0.0
        self._asking = asyncio.Lock()
        self._failure = ProviderUnreachable("")
        self._failed_until = 0.0
        self._exchanging = 0

    async def address(self, attempt: Attempt, back: str) -> str:
        """Where the browser is to go, to come back to ``back``."""
        known = await self._metadata()
        async with self._client(known, back) as client:
            address, _ = client.create_authorization_url(
                known["authorization_endpoint"], state=attempt.state, nonce=attempt.nonce, code_verifier=attempt.verifier
            )
        return str(address)

    async def person(self, attempt: Attempt, code: str, back: str) -> Person:
        """Who that is, for the code that the browser brought ``back``."""
        if self._exchanging >= MOST_AT_ONCE:
            raise TooManyLogins(_AGAIN_SEC)
        self._exchanging += 1
        try:
            known = await self._metadata()
            async with self._client(known, back) as client:
                token = await client.fetch_token(
                    known["token_endpoint"], grant_type="authorization_code", code=code, code_verifier=attempt.verifier
                )
                keys = _object(await client.request("GET", known["jwks_uri"], withhold_token=True))
                claims = self._checked(known, token, keys, attempt.nonce)
                return await self._person(client, known, claims)
        except httpx2.HTTPError as error:
            raise self._unreachable(error) from None
        except (OAuthError, JoseError, KeyError, TypeError, ValueError) as error:
            raise NotVouchedFor(f"{type(error).__name__}: {error}") from None
        finally:
            self._exchanging -= 1

    def _checked(self, known: Mapping[str, Any], token: Mapping[str, Any], keys: Any, nonce: str) -> Mapping[str, Any]:
        """The claims of the ID token, once its signature and all of them that matter are what they have to be."""
        offered = known.get("id_token_signing_alg_values_supported") or ["RS256"]
        registry = JWSRegistry(algorithms=sorted(_SIGNED_BY_A_KEY_PAIR.intersection(offered)), strict_check_header=False)
        decoded = jwt.decode(token["id_token"], KeySet.import_key_set(keys), registry=registry)
        options = {
            "iss": {"essential": True, "value": self._settings.issuer},
            "aud": {"essential": True, "value": self._settings.client_id},
        }
        params = {"nonce": nonce, "client_id": self._settings.client_id, "access_token": token.get("access_token")}
        claims = CodeIDToken(decoded.claims, decoded.header, options, params)
        claims.validate(leeway=_LEEWAY_SEC)
        return dict(claims)

    async def _person(self, client: AsyncOAuth2Client, known: Mapping[str, Any], claims: Mapping[str, Any]) -> Person:
        """Groups stand in the ID token, or else are asked for."""
        groups = _claim(claims, self._settings.groups_claim)
        if groups is None and known.get(_USERINFO) is not None:
            told = _object(await client.get(known[_USERINFO]))
            if told.get("sub") != claims["sub"]:
                raise NotVouchedFor("the provider told of somebody else than who logged in")
            claims = {**told, **claims}
            groups = _claim(claims, self._settings.groups_claim)
        name = next((found for key in ("preferred_username", "email", "sub") if (found := claims.get(key))), None)
        if not _is_plain(name) or not _is_plain(claims["sub"]):
            raise NotVouchedFor("the name, or the subject, is not a printable one")
        listed = [groups] if isinstance(groups, str) else groups if isinstance(groups, list) else []
        return Person(name.strip(), claims["sub"], [group for group in listed if isinstance(group, str)])

    async def _metadata(self) -> Mapping[str, Any]:
        """What the provider says of itself; asked for once an hour, however many want to know at once."""
        async with self._asking:
            if self._monotonic() < self._known_until:
                return self._known
            if self._monotonic() < self._failed_until:
                raise ProviderUnreachable(str(self._failure))
            try:
                self._known = await self._ask()
            except ProviderUnreachable as error:
                self._failure, self._failed_until = error, self._monotonic() + _FAILED_SEC
                raise
            self._known_until = self._monotonic() + _KNOWN_SEC
            return self._known

    async def _ask(self) -> Mapping[str, Any]:
        try:
            async with httpx2.AsyncClient(timeout=_TIMEOUT_SEC, verify=self._trust) as client:
                known = _object(await client.get(f"{self._settings.issuer.rstrip('/')}/.well-known/openid-configuration"))
        except (httpx2.HTTPError, ValueError) as error:
            raise self._unreachable(error) from None
        if known.get("issuer") != self._settings.issuer:
            raise ProviderUnreachable(f"What answers there calls itself {known.get('issuer')!r}, not {self._settings.issuer!r}")
        for name in (*_ENDPOINTS, *([_USERINFO] if known.get(_USERINFO) is not None else [])):
            if not isinstance(known.get(name), str) or not url_is_safe(known[name]):
                raise ProviderUnreachable(f"Its {name} is not an https URL")
        return known

    def _client(self, known: Mapping[str, Any], back: str) -> AsyncOAuth2Client:
        settings = self._settings
        ways = known.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        way = "client_secret_basic" if "client_secret_basic" in ways else "client_secret_post"
        return AsyncOAuth2Client(
            client_id=settings.client_id,
            client_secret=settings.client_secret,
            token_endpoint_auth_method=way if settings.client_secret else "none",
            scope=settings.scope,
            redirect_uri=back,
            code_challenge_method="S256",
            timeout=_TIMEOUT_SEC,
            verify=self._trust,
        )

    def _unreachable(self, error: Exception) -> ProviderUnreachable:
        return ProviderUnreachable(str(error) or type(error).__name__)


def _object(answer: httpx2.Response) -> dict[str, Any]:
    """Raises ``httpx2.HTTPError``, ``ValueError``."""
    answer.raise_for_status()
    found = answer.json()
    if not isinstance(found, dict):
        raise ValueError("the answer is not a JSON object")
    return found


def _is_plain(text: object) -> TypeGuard[str]:
    return isinstance(text, str) and text.isprintable() and text.strip() != "" and len(text) <= _LONGEST_NAME


def _claim(claims: Mapping[str, Any], name: str) -> object:
    """A claim by its name, or by a path of names: ``realm_access.roles``."""
    if name in claims:
        return claims[name]
    found: object = claims
    for part in name.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return None
        found = found[part]
    return found
