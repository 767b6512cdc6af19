"""What stands in the environment, one kind of value at a time. Whatever does not parse names its setting, on one line."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from app.errors import ConfigError
from app.rights import ROLES, Role

Word = TypeVar("Word", bound=str)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
GroupRoles = tuple[tuple[str, Role], ...]
"""Groups and what they may do. Of a person's groups the first that stands here counts; ``*`` is everybody."""

GROUP_ROLES_EXAMPLE = '{"forensics": "investigator", "*": "viewer"}'
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


class Reader:
    """One environment; each method parses one kind of value and names the setting when it cannot."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env

    def text(self, name: str, default: str) -> str:
        return self._env.get(name, "").strip() or default

    def folder(self, name: str, default: str) -> Path:
        return Path(self.text(name, default)).expanduser().absolute()

    def file(self, name: str) -> Path | None:
        text = self.text(name, "")
        return Path(text).expanduser().absolute() if text else None

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

    def networks(self, name: str) -> tuple[Network, ...]:
        """Addresses and networks apart by commas or spaces."""
        try:
            found = tuple(ipaddress.ip_network(part) for part in re.split(r"[\s,]+", self._env.get(name, "")) if part)
        except ValueError as error:
            raise ConfigError(f"{name}: {error}. Write addresses or networks, such as 127.0.0.1, 10.0.0.0/24.") from None
        if everything := [network for network in found if network.prefixlen == 0]:
            raise ConfigError(f"{name}: {everything[0]} is everybody. Write addresses or networks, such as 127.0.0.1, 10.0.0.0/24.")
        return found

    def roles(self, name: str) -> GroupRoles:
        """A JSON object of groups and roles; its order is kept."""
        text = self._env.get(name, "").strip()
        if not text:
            return ()
        try:
            found = json.loads(text, object_pairs_hook=tuple)
        except (ValueError, RecursionError):
            found = None
        if not text.startswith("{") or not found:
            raise ConfigError(f"{name} is not a JSON object such as {GROUP_ROLES_EXAMPLE}.")
        groups = [group for group, _ in found]
        if len(set(groups)) < len(groups) or not all(groups):
            raise ConfigError(f"{name}: a group has no name, or stands there twice.")
        return tuple((group, _role(name, group, role)) for group, role in found)

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


def _role(name: str, group: str, wanted: object) -> Role:
    for role in ROLES:
        if role == wanted:
            return role
    raise ConfigError(f"{name}: the role of {group!r} is not one of {', '.join(ROLES)}.")


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


def url_is_safe(url: str) -> bool:
    """Whether nobody on the way can read or change what is said to ``url``: https, or this machine."""
    if url_fault(url) is not None or without_secrets(url) != url or "#" in url:
        return False
    parts = urlsplit(url)
    return parts.scheme == "https" or is_loopback(parts.hostname or "")


def without_secrets(url: str) -> str:
    """``url`` as it may be shown: without what stands before an ``@`` and behind a ``?``."""
    return re.sub(r"\?.*", "?…", re.sub(r"^(\w+://)?.*@", r"\1…@", url, flags=re.DOTALL), flags=re.DOTALL)


def _check_url(name: str, url: str) -> None:
    fault = url_fault(url)
    if fault is not None:
        example = "http://influx.example.org:8181" if name == "INFLUX_URL" else "https://dumps.example.org"
        raise ConfigError(f"{name}={without_secrets(url)!r} is not a URL such as {example}: {fault}.")
