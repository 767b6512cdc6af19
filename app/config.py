"""Settings: the environment, parsed once, frozen. A name or value that makes no sense ends the start with one line."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import urlsplit

from app.errors import ConfigError
from app.model import ALGORITHMS, MODES, Algorithm, Mode

AuthMode = Literal["token", "none"]
AUTH_MODES: tuple[AuthMode, ...] = ("token", "none")

Word = TypeVar("Word", bound=str)

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
        "MEMDUMP_AUTH",
        "MEMDUMP_NAV",
    }
)
"""Every ``MEMDUMP_*`` name that means something. ``docs/operations.md`` describes each; a test compares."""

_NAV_EXAMPLE = '[{"name": "Backups", "url": "https://backups.example.org"}]'
_MOST_ENTRIES = 20
_LONGEST_NAME = 60
_OWN_PATH = re.compile(r"/(?![/\\])")

_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


@dataclass(frozen=True, slots=True)
class NavEntry:
    """An entry of the navigation bar that leads to another page or site."""

    name: str
    url: str


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
    max_concurrent_dumps: int
    dump_timeout_sec: float
    mode: Mode
    max_pause_ms: int
    fallback_pause_ms: int
    spool_memory_bytes: int | None
    compression: Algorithm
    auth: AuthMode
    nav: tuple[NavEntry, ...]

    @property
    def state_file(self) -> Path:
        """The one SQLite file: jobs, outbox, index of records, sessions and tokens."""
        return self.state_dir / "memory-dumps.sqlite3"

    @classmethod
    def from_environment(cls, env: Mapping[str, str]) -> Settings:
        """Parse ``env``. Raises ``ConfigError`` for the first name or value that is wrong."""
        unknown = sorted(name for name in env if name.startswith("MEMDUMP_") and name not in KNOWN_NAMES)
        if unknown:
            raise ConfigError(f"{unknown[0]} is not a setting of this version. Remove it, or check its spelling.")
        read = _Reader(env)
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
            max_concurrent_dumps=read.whole("MEMDUMP_MAX_CONCURRENT_DUMPS", 2, low=1, high=64),
            dump_timeout_sec=read.seconds("MEMDUMP_DUMP_TIMEOUT_SEC", 300.0),
            mode=read.choice("MEMDUMP_MODE", "auto", MODES),
            max_pause_ms=read.whole("MEMDUMP_MAX_PAUSE_MS", 300, low=1, high=MOST_PAUSE_MS),
            fallback_pause_ms=read.whole("MEMDUMP_FALLBACK_PAUSE_MS", 10_000, low=0, high=86_400_000),
            spool_memory_bytes=read.size("MEMDUMP_SPOOL_MEMORY"),
            compression=read.choice("MEMDUMP_COMPRESSION", "gzip", ALGORITHMS),
            auth=read.choice("MEMDUMP_AUTH", "token", AUTH_MODES),
            nav=read.entries("MEMDUMP_NAV"),
        )
        if settings.auth == "none" and not is_loopback(settings.host):
            raise ConfigError(
                f"MEMDUMP_AUTH=none is only for loopback addresses, and MEMDUMP_HOST is {settings.host}. "
                "Use MEMDUMP_AUTH=token, or listen on 127.0.0.1."
            )
        return settings


def is_loopback(host: str) -> bool:
    """Whether ``host`` can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def parse_size(text: str) -> int:
    """Bytes from ``512M``, ``2GiB``, ``1048576``. Raises ``ValueError``."""
    found = re.fullmatch(r"([0-9]+)\s*([kmgt]?)(?:i?b)?", text.strip().lower())
    if not found:
        raise ValueError(f"{text!r} is not a size such as 512M or 2G")
    return int(found[1]) * _UNITS[found[2]]


class _Reader:
    """One environment; each method parses one kind of value and names the setting when it cannot."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env

    def text(self, name: str, default: str) -> str:
        return self._env.get(name, "").strip() or default

    def folder(self, name: str, default: str) -> Path:
        return Path(self.text(name, default)).expanduser().absolute()

    def choice(self, name: str, default: Word, allowed: tuple[Word, ...]) -> Word:
        value = self.text(name, default).lower()
        for word in allowed:
            if word == value:
                return word
        raise ConfigError(f"{name}={value!r} is not one of {', '.join(allowed)}.")

    def whole(self, name: str, default: int, *, low: int, high: int) -> int:
        text = self.text(name, str(default))
        if not re.fullmatch(r"[0-9]{1,12}", text) or not low <= int(text) <= high:
            raise ConfigError(f"{name}={text!r} is not a whole number from {low} to {high}.")
        return int(text)

    def seconds(self, name: str, default: float) -> float:
        text = self.text(name, str(default))
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", text):
            raise ConfigError(f"{name}={text!r} is not a number of seconds (0: no limit).")
        return float(text)

    def size(self, name: str) -> int | None:
        text = self._env.get(name, "").strip()
        if not text:
            return None
        try:
            return parse_size(text)
        except ValueError as error:
            raise ConfigError(f"{name}: {error}.") from None

    def url(self, name: str) -> str | None:
        found = self.urls(name)
        if len(found) > 1:
            raise ConfigError(f"{name} takes one URL, and there are {len(found)}.")
        return found[0] if found else None

    def urls(self, name: str) -> tuple[str, ...]:
        """URLs apart by commas or spaces, without a slash at the end."""
        found = tuple(part.rstrip("/") for part in re.split(r"[\s,]+", self._env.get(name, "")) if part)
        for url in found:
            _check_url(name, url)
        return found

    def entries(self, name: str) -> tuple[NavEntry, ...]:
        """A JSON list of names and addresses."""
        text = self._env.get(name, "").strip()
        if not text:
            return ()
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, list):
            raise ConfigError(f"{name} is not a JSON list such as {_NAV_EXAMPLE}.")
        if len(found) > _MOST_ENTRIES:
            raise ConfigError(f"{name} has {len(found)} entries, and may have {_MOST_ENTRIES}.")
        return tuple(_entry(name, number, entry) for number, entry in enumerate(found, 1))


def _entry(name: str, number: int, entry: object) -> NavEntry:
    if not isinstance(entry, dict) or entry.keys() != {"name", "url"}:
        raise ConfigError(f"{name}: entry {number} is not a name and a url, such as in {_NAV_EXAMPLE}.")
    label, url = entry["name"], entry["url"]
    if not isinstance(label, str) or not label.strip() or not label.isprintable() or len(label) > _LONGEST_NAME:
        raise ConfigError(f"{name}: the name of entry {number} has to be a text of 1 to {_LONGEST_NAME} characters.")
    if not isinstance(url, str) or not url.isprintable() or " " in url or (url_fault(url) and not _OWN_PATH.match(url)):
        raise ConfigError(f"{name}: url={url!r} of entry {number} is neither an http or https URL nor a path that begins with /.")
    return NavEntry(label.strip(), url)


def url_fault(url: str) -> str | None:
    """What keeps ``url`` from being the address of a server, in plain words; None if nothing does."""
    scheme, slashes, _ = url.partition("://")
    if not slashes:
        if url.lower().startswith(("http:", "https:")):
            return "two slashes have to stand behind its scheme"
        return f"it has no scheme; write http://{without_secrets(url)} or https://{without_secrets(url)}"
    if scheme.lower() not in ("http", "https"):
        return f"its scheme is {scheme!r}, and has to be http or https"
    try:
        parts = urlsplit(url)
    except ValueError:
        return "square brackets belong around an IPv6 address alone, as in http://[::1]:8181"
    try:
        port_fits = parts.port is None or parts.port > 0
    except ValueError:
        port_fits = False
    if not port_fits:
        return "its port is not a number from 1 to 65535"
    return None if parts.hostname else "it names no host"


def without_secrets(url: str) -> str:
    """``url`` as it may be shown: without what stands before an ``@`` and behind a ``?``."""
    return re.sub(r"\?.*", "?…", re.sub(r"^(\w+://)?.*@", r"\1…@", url, flags=re.DOTALL), flags=re.DOTALL)


def _check_url(name: str, url: str) -> None:
    fault = url_fault(url)
    if fault is not None:
        example = "http://influx.example.org:8181" if name == "INFLUX_URL" else "https://dumps.example.org"
        raise ConfigError(f"{name}={without_secrets(url)!r} is not a URL such as {example}: {fault}.")
