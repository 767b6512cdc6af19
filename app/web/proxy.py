"""Proxies that are trusted: whom they say is asking (``MEMDUMP_AUTH=proxy``), and from which address.

A header is worth what the peer of the connection is worth, whoever else wrote into it on the way: so the peer's address decides,
never what stands in a header.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import lru_cache

import structlog
from aiohttp import hdrs, web

from app.access import Identity
from app.access.audit import asked_by
from app.config import Settings
from app.environment import GroupRoles
from app.rights import Role
from app.web import address
from app.web.errors import ProblemError

log = structlog.get_logger()

USER = "X-Forwarded-User"
GROUPS = "X-Forwarded-Groups"
_LONGEST_NAME = 255


class Proxies:
    """The trusted ones, and what the groups that they name may do."""

    def __init__(self, settings: Settings) -> None:
        self._trusted = settings.trusted_proxies
        self._roles = settings.group_roles
        self._ask = settings.auth == "proxy"

    def check(self, request: web.Request) -> None:
        """Refuse headers that say who is asking and come from somebody else, whatever else the request brings.

        Raises ``ProblemError``. Where no proxy is asked such a header has no meaning, and does no harm.
        """
        if self._ask and (USER in request.headers or GROUPS in request.headers) and not self._trusts(request.remote):
            log.warning("proxy_header_forged", remote=request.remote, path=address.shown(request))
            raise ProblemError(
                "proxy-not-trusted", f"{request.remote} is none of MEMDUMP_TRUSTED_PROXIES, and may not say who is asking."
            )

    def who(self, request: web.Request) -> Identity | None:
        """Whom the proxy names, after ``check``; None without its word. Raises ``ProblemError``, also for somebody without any
        role."""
        if USER not in request.headers:
            return None
        name = _name(request)
        role = role_of(_groups(request), self._roles)
        if role is None:
            asked_by(name, "proxy")
            raise ProblemError("not-allowed", f"{name} may come in, but none of their groups has a role in MEMDUMP_GROUP_ROLES.")
        return Identity(name, "proxy", role)

    def address(self, request: web.Request) -> str | None:
        """Where a request really comes from: of ``X-Forwarded-For`` the last address that no trusted proxy has.

        What stands before that one was written by whoever sent it, and may be anything.
        """
        address = request.remote
        if not self._trusts(address):
            return address
        line = ",".join(request.headers.getall(hdrs.X_FORWARDED_FOR, ()))
        for told in reversed([part.strip() for part in line.split(",")] if line else []):
            if _address(told) is None:
                break
            address = told
            if not self._trusts(told):
                break
        return address

    def _trusts(self, address: str | None) -> bool:
        found = _address(address)
        return found is not None and any(found in network for network in self._trusted)


def role_of(groups: Sequence[str], roles: GroupRoles) -> Role | None:
    """The role of somebody in these groups: of all that have one, the group that stands first in the setting.

    >>> role_of(["staff", "soc"], (("soc", "investigator"), ("*", "viewer"))), role_of([], (("soc", "viewer"),))
    ('investigator', None)
    """
    return next((role for group, role in roles if group == "*" or group in groups), None)


def _name(request: web.Request) -> str:
    """Raises ``ProblemError``."""
    name = _only(request, USER)
    if not name or not name.isprintable() or len(name) > _LONGEST_NAME:
        raise _unclear(request, USER, f"has to be one printable name of at most {_LONGEST_NAME} characters.")
    return name


def _groups(request: web.Request) -> Sequence[str]:
    """Raises ``ProblemError``."""
    return [found for group in _only(request, GROUPS).split(",") if (found := group.strip())]


def _only(request: web.Request, header: str) -> str:
    """What stands in it. Raises ``ProblemError`` for two of them: one may be the client's, which the proxy let through."""
    lines = request.headers.getall(header, [""])
    if len(lines) != 1:
        raise _unclear(request, header, "was sent more than once: the proxy has to overwrite what a client wrote.")
    return lines[0].strip()


def _unclear(request: web.Request, header: str, what: str) -> ProblemError:
    log.warning("proxy_header_unclear", remote=request.remote, header=header)
    return ProblemError("proxy-not-trusted", f"{header} {what}")


@lru_cache(maxsize=1024)  # every request is asked for its own several times
def _address(text: str | None) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """IPv4 that came over an IPv6 socket is IPv4."""
    try:
        found = ipaddress.ip_address((text or "").partition("%")[0])
    except ValueError:
        return None
    return found.ipv4_mapped or found if isinstance(found, ipaddress.IPv6Address) else found
