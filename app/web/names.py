"""What this service is called: the Hosts and Origins that a request may carry."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Self
from urllib.parse import urlsplit

from app.environment import is_loopback

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class OwnNames:
    """The Hosts and Origins that are this service: loopback names, and those of ``MEMDUMP_PUBLIC_URL``."""

    hosts: frozenset[str]
    origins: frozenset[str]
    tls: bool = False

    @classmethod
    def of(cls, public_urls: Iterable[str], *, tls: bool = False) -> Self:
        """The names that ``public_urls`` (http or https, checked by ``Settings``) add. ``tls``: the service itself speaks it."""
        hosts: set[str] = set()
        origins: set[str] = set()
        for url in public_urls:
            parts = urlsplit(url)
            name = _bracketed(parts.hostname or "")
            default = _DEFAULT_PORTS[parts.scheme]
            port = parts.port or default
            hosts.add(f"{name}:{port}")
            origins.add(f"{parts.scheme}://{name}" if port == default else f"{parts.scheme}://{name}:{port}")
            if port == default:
                hosts.add(name)
        return cls(frozenset(hosts), frozenset(origins), tls)

    def knows_host(self, host: str) -> bool:
        """Whether a request with this Host header is meant for us. Any port will do on loopback: it may be forwarded."""
        return host.lower() in self.hosts or _is_loopback_host(host)

    def knows_origin(self, origin: str, host: str) -> bool:
        """Whether ``origin`` is our own page: a public URL's, or the loopback address that was asked itself.

        Another port of the same loopback name is somebody else: the browser sends it our cookie all the same.
        """
        scheme = "https" if self.tls else "http"
        return origin in self.origins or (_is_loopback_host(host) and origin == f"{scheme}://{host.lower()}")

    def insists_on_https(self, host: str) -> bool:
        """Whether people reach us under this name by https alone: what their browser keeps may insist on it.

        Not so a loopback name: browsers keep that for the name, whatever the port, and other programs have theirs there.
        """
        return host.lower() in self.hosts and f"https://{host.lower().removesuffix(':443')}" in self.origins


def _bracketed(name: str) -> str:
    return f"[{name}]" if ":" in name else name


@lru_cache(maxsize=64)  # every request has one, and nearly all of them the same
def _is_loopback_host(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    return name is not None and is_loopback(name) and "@" not in host
