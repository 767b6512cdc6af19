"""Settings: the environment, parsed once, frozen. A name or value that makes no sense ends the start with one line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from app.environment import GROUP_ROLES_EXAMPLE, GroupRoles, NavEntry, Network, Reader, is_loopback, url_is_safe
from app.errors import ConfigError
from app.model import ALGORITHMS, MODES, Algorithm, Mode

AuthMode = Literal["token", "proxy", "oidc", "none"]
AUTH_MODES: tuple[AuthMode, ...] = ("token", "proxy", "oidc", "none")

MOST_PAUSE_MS = 2_000_000
"""What QEMU takes for ``downtime-limit`` at the most (its ``MAX_MIGRATE_DOWNTIME``)."""

MAX_WAITING = 1000
"""Dumps that may wait for a place in the pool, beyond those that run."""

KNOWN_NAMES = frozenset(
    {
        "MEMDUMP_LOG_DIR",
        "MEMDUMP_STATE_DIR",
        "MEMDUMP_HOST",
        "MEMDUMP_PORT",
        "MEMDUMP_PUBLIC_URL",
        "MEMDUMP_MAX_CONCURRENT_DUMPS",
        "MEMDUMP_DUMP_TIMEOUT_SEC",
        "MEMDUMP_MODE",
        "MEMDUMP_MAX_PAUSE_MS",
        "MEMDUMP_FALLBACK_PAUSE_MS",
        "MEMDUMP_SPOOL_MEMORY",
        "MEMDUMP_COMPRESSION",
        "MEMDUMP_TLS_CERT",
        "MEMDUMP_TLS_KEY",
        "MEMDUMP_AUTH",
        "MEMDUMP_OIDC_ISSUER",
        "MEMDUMP_OIDC_CLIENT_ID",
        "MEMDUMP_OIDC_CLIENT_SECRET",
        "MEMDUMP_OIDC_SCOPE",
        "MEMDUMP_OIDC_GROUPS_CLAIM",
        "MEMDUMP_TRUSTED_PROXIES",
        "MEMDUMP_GROUP_ROLES",
        "MEMDUMP_NAV",
    }
)
"""Every ``MEMDUMP_*`` name that means something. ``docs/operations.md`` describes each; a test compares."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Oidc:
    """The provider that people log in at. Empty where none does."""

    issuer: str
    client_id: str
    client_secret: str | None = field(repr=False)
    scope: str
    groups_claim: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the environment says. Folders are absolute; ``dump_timeout_sec`` 0 means no limit."""

    libvirt_uri: str
    dump_dir: Path
    log_dir: Path
    state_dir: Path
    influx_url: str | None
    influx_db: str
    influx_token: str | None
    host: str
    port: int
    public_urls: tuple[str, ...]
    tls_cert: Path | None
    tls_key: Path | None
    max_concurrent_dumps: int
    dump_timeout_sec: float
    mode: Mode
    max_pause_ms: int
    fallback_pause_ms: int
    spool_memory_bytes: int | None
    compression: Algorithm
    auth: AuthMode
    trusted_proxies: tuple[Network, ...]
    group_roles: GroupRoles
    oidc: Oidc
    nav: tuple[NavEntry, ...]

    @property
    def state_file(self) -> Path:
        """The one SQLite file: jobs, outbox, index of records, sessions and tokens."""
        return self.state_dir / "memory-dumps.sqlite3"

    @property
    def tls(self) -> bool:
        """Whether the service speaks TLS itself."""
        return self.tls_cert is not None

    @classmethod
    def from_environment(cls, env: Mapping[str, str]) -> Settings:
        """Parse ``env``. Raises ``ConfigError`` for the first name or value that is wrong."""
        unknown = sorted(name for name in env if name.startswith("MEMDUMP_") and name not in KNOWN_NAMES)
        if unknown:
            raise ConfigError(f"{unknown[0]} is not a setting of this version. Remove it, or check its spelling.")
        read = Reader(env)
        settings = cls(
            libvirt_uri=read.text("LIBVIRT_URI", "qemu:///system"),
            dump_dir=read.folder("DUMP_DIR", "var/dumps"),
            log_dir=read.folder("MEMDUMP_LOG_DIR", "var/log"),
            state_dir=read.folder("MEMDUMP_STATE_DIR", "var/state"),
            influx_url=read.url("INFLUX_URL"),
            influx_db=read.text("INFLUX_DB", "vmstats"),
            influx_token=env.get("INFLUX_TOKEN") or None,
            host=read.text("MEMDUMP_HOST", "127.0.0.1"),
            port=read.whole("MEMDUMP_PORT", 8000, low=0, high=65535),
            public_urls=read.urls("MEMDUMP_PUBLIC_URL"),
            tls_cert=read.file("MEMDUMP_TLS_CERT"),
            tls_key=read.file("MEMDUMP_TLS_KEY"),
            max_concurrent_dumps=read.whole("MEMDUMP_MAX_CONCURRENT_DUMPS", 2, low=1, high=64),
            dump_timeout_sec=read.seconds("MEMDUMP_DUMP_TIMEOUT_SEC", 300.0),
            mode=read.choice("MEMDUMP_MODE", "auto", MODES),
            max_pause_ms=read.whole("MEMDUMP_MAX_PAUSE_MS", 300, low=1, high=MOST_PAUSE_MS),
            fallback_pause_ms=read.whole("MEMDUMP_FALLBACK_PAUSE_MS", 10_000, low=0, high=86_400_000),
            spool_memory_bytes=read.size("MEMDUMP_SPOOL_MEMORY"),
            compression=read.choice("MEMDUMP_COMPRESSION", "gzip", ALGORITHMS),
            auth=read.choice("MEMDUMP_AUTH", "token", AUTH_MODES),
            trusted_proxies=read.networks("MEMDUMP_TRUSTED_PROXIES"),
            group_roles=read.roles("MEMDUMP_GROUP_ROLES"),
            oidc=Oidc(
                issuer=read.text("MEMDUMP_OIDC_ISSUER", ""),
                client_id=read.text("MEMDUMP_OIDC_CLIENT_ID", ""),
                client_secret=read.text("MEMDUMP_OIDC_CLIENT_SECRET", "") or None,
                scope=read.text("MEMDUMP_OIDC_SCOPE", "openid profile email"),
                groups_claim=read.text("MEMDUMP_OIDC_GROUPS_CLAIM", "groups"),
            ),
            nav=read.entries("MEMDUMP_NAV"),
        )
        if (settings.tls_cert is None) is not (settings.tls_key is None):
            raise ConfigError("MEMDUMP_TLS_CERT and MEMDUMP_TLS_KEY belong together: set both, or neither.")
        _check_login(settings)
        return settings


def _check_login(settings: Settings) -> None:
    """Raises ``ConfigError`` where who comes in would not be what the settings seem to say."""
    if settings.auth == "none" and not is_loopback(settings.host):
        raise ConfigError(
            f"MEMDUMP_AUTH=none is only for loopback addresses, and MEMDUMP_HOST is {settings.host}. "
            "Use MEMDUMP_AUTH=token, or listen on 127.0.0.1."
        )
    others = [url for url in settings.public_urls if not is_loopback(urlsplit(url).hostname or "")]
    if settings.auth == "none" and others:
        raise ConfigError(
            f"MEMDUMP_AUTH=none is only for loopback addresses, and MEMDUMP_PUBLIC_URL is {others[0]}. "
            "Use MEMDUMP_AUTH=token, or proxy where a proxy knows who is asking."
        )
    if settings.auth == "proxy" and not settings.trusted_proxies:
        raise ConfigError("MEMDUMP_AUTH=proxy needs MEMDUMP_TRUSTED_PROXIES: the addresses of the proxy, such as 127.0.0.1.")
    if settings.auth == "oidc" and not (url_is_safe(settings.oidc.issuer) and settings.oidc.client_id):
        raise ConfigError(
            "MEMDUMP_AUTH=oidc needs MEMDUMP_OIDC_ISSUER, an https URL such as https://login.example.org, "
            "and MEMDUMP_OIDC_CLIENT_ID."
        )
    if settings.auth == "oidc" and "openid" not in settings.oidc.scope.split():
        raise ConfigError("MEMDUMP_OIDC_SCOPE has to have openid among its words.")
    if settings.auth in ("proxy", "oidc") and not settings.group_roles:
        raise ConfigError(
            f"MEMDUMP_AUTH={settings.auth} needs MEMDUMP_GROUP_ROLES: what each group may do, such as {GROUP_ROLES_EXAMPLE}."
        )
    if settings.auth == "proxy" and any("," in group for group, _ in settings.group_roles):
        raise ConfigError(
            "MEMDUMP_GROUP_ROLES: commas stand between groups in X-Forwarded-Groups, and cannot be in a group's name."
        )
