"""What a libvirt URI says about the host on which its libvirtd runs, and how ``ssh`` gets there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

_CONNECT_SEC = 15
_TRANSPORTS = ("ssh", "libssh", "libssh2")
_HERE = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True, kw_only=True)
class SshHost:
    """How to reach a host by ``ssh``, as libvirt would; ``socket`` is libvirtd's there, if the URI names one."""

    host: str
    user: str = ""
    port: str = ""
    program: str = "ssh"
    options: tuple[str, ...] = ()
    socket: str = ""

    def command(self, remote: str) -> list[str]:
        """The argument list that runs ``remote`` there. Nobody is asked anything, and a dead connection is noticed."""
        options = {
            "BatchMode": "yes",
            "ClearAllForwardings": "yes",
            "ConnectTimeout": str(_CONNECT_SEC),
            "ControlPath": "none",  # a connection of its own, which ends with the process
            "LogLevel": "ERROR",
            "ServerAliveCountMax": "3",
            "ServerAliveInterval": "5",
        }
        words = [self.program, "-T", "-a", "-x", "-e", "none"]
        words += [f"-o{name}={value}" for name, value in options.items()]
        words += self.options
        if self.port:
            words += ["-p", self.port]
        if self.user:
            words += ["-l", self.user]
        return [*words, "--", self.host, remote]


def ssh_host(uri: str) -> SshHost | None:
    """The host behind a ``qemu+ssh://`` URI; None if it is none. What the parameters mean: libvirt.org/uri.html.

    >>> ssh_host("qemu+ssh://admin@kvm-07:2222/system?keyfile=/etc/key").command("true")[-9:]
    ['-i', '/etc/key', '-p', '2222', '-l', 'admin', '--', 'kvm-07', 'true']
    """
    split = urlsplit(uri)
    if split.scheme.partition("+")[2] not in _TRANSPORTS:
        return None
    user, host, port = _authority(split.netloc)
    given = _parameters(split.query)
    options: list[str] = []
    if "known_hosts" in given:
        options.append(f"-oUserKnownHostsFile={given['known_hosts']}")
    if given.get("no_verify", "0") != "0" or given.get("known_hosts_verify") == "ignore":
        options.append("-oStrictHostKeyChecking=no")
    if "keyfile" in given:
        options += ["-i", given["keyfile"]]
    return SshHost(
        host=host or "localhost",
        user=user,
        port=port,
        program=given.get("command", "ssh"),
        options=tuple(options),
        socket=given.get("socket", ""),
    )


def elsewhere(uri: str) -> str | None:
    """The name of another host on which libvirtd runs, reached by TLS, TCP or a program of the user's; None if it is here."""
    split = urlsplit(uri)
    host = _authority(split.netloc)[1]
    return None if host.lower() in ("", *_HERE) or split.scheme.startswith("test") else host


def _authority(netloc: str) -> tuple[str, str, str]:
    """User, host and port. (``urlsplit`` would make the host lower case, and ssh's configuration may not like that.)"""
    user, _, rest = netloc.rpartition("@")
    found = re.fullmatch(r"(?:\[([^\]]*)\]|([^:]*))(?::(\d*))?", rest)
    host, port = (found[1] or found[2] or "", found[3] or "") if found else (rest, "")
    return unquote(user), host, port


def _parameters(query: str) -> dict[str, str]:
    """As libvirt reads them: a ``+`` is a plus."""
    pairs = (part.partition("=") for part in re.split("[&;]", query) if part)
    return {unquote(name): unquote(value) for name, _, value in pairs}
