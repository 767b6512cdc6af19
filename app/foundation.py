"""What stands before the event loop turns, for the service and for the command line beside it: the state directory and its file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from app import __version__
from app.access import SCHEMA as ACCESS_SCHEMA
from app.access import Access, upgrade
from app.config import Settings
from app.errors import ConfigError, StateMissing
from app.jobs.alarms import SCHEMA as ALARMS_SCHEMA
from app.jobs.journal import SCHEMA as JOURNAL_SCHEMA
from app.records.index import SCHEMA as INDEX_SCHEMA
from app.records.index import migrate
from app.records.outbox import SCHEMA as OUTBOX_SCHEMA
from app.records.pull import SCHEMA as PULL_SCHEMA
from app.state import State, StateLock, lock_state

SCHEMAS = (INDEX_SCHEMA, OUTBOX_SCHEMA, PULL_SCHEMA, JOURNAL_SCHEMA, ALARMS_SCHEMA, ACCESS_SCHEMA)


@dataclass(frozen=True, slots=True)
class Foundation:
    """The state directory, taken, and its file, open."""

    settings: Settings
    lock: StateLock
    state: State
    access: Access

    def close(self) -> None:
        """Give everything back. Blocks until SQLite has written."""
        self.access.close()
        self.state.close()
        self.lock.close()


def lay_foundation(settings: Settings) -> Foundation:
    """Take the state directory. Raises ``StateError``, above all ``StateInUse``."""
    lock = lock_state(settings.state_dir)
    try:
        state = _open_state(settings)
    except BaseException:
        lock.close()
        raise
    foundation = Foundation(settings, lock, state, Access(state, settings.auth))
    try:
        foundation.access.keep_sessions(vouching_of(settings))
    except BaseException:
        foundation.close()
        raise
    return foundation


def vouching_of(settings: Settings) -> str:
    """What decides whom a provider vouches for, and as what; nothing where none does. Of groups that have a role the first counts,
    so their order does, too."""
    if settings.auth != "oidc":
        return ""
    oidc = settings.oidc
    return json.dumps([oidc.issuer, oidc.client_id, oidc.groups_claim, settings.group_roles])


def first_lines(foundation: Foundation, url: str) -> Sequence[str]:
    """What the terminal shows at the start, once the service answers at ``url``. The only secrets that are ever shown."""
    settings, lines = foundation.settings, [f"Memory Dumps {__version__} serves at {url}"]
    if settings.auth == "none":
        lines.append("It is open to everybody on this machine (MEMDUMP_AUTH=none).")
    elif settings.auth == "oidc":
        lines.append(f"People log in at {settings.oidc.issuer} (MEMDUMP_AUTH=oidc).")
        lines.append(
            f"If that is away, an administrator, once within ten minutes: {_login_url(url, foundation.access.make_login_code())}"
        )
    elif settings.auth == "proxy":
        lines.append(f"The proxy at {', '.join(map(str, settings.trusted_proxies))} says who is asking (MEMDUMP_AUTH=proxy).")
    else:
        lines.append(f"Log in, once within ten minutes: {_login_url(url, foundation.access.make_login_code())}")
    if (token := foundation.access.first_token()) is not None:
        lines.append(f"API token, shown this once: {token}")
    return (*lines, f"Ready. Dumps go to {settings.dump_dir}; Ctrl-C ends the service.")


def make_login_url(settings: Settings) -> str:
    """A fresh login URL, for the command line; the service may run or not. Raises ``StateError``, ``ConfigError``.

    No state file is made: a code in one that no service reads opens nothing.
    """
    if settings.auth == "proxy":
        raise ConfigError("MEMDUMP_AUTH=proxy: the proxy says who is asking, and a login URL would open nothing.")
    state = open_beside(settings)
    try:
        return _login_url(url_of(settings, settings.port), Access(state, settings.auth).make_login_code())
    finally:
        state.close()


def open_beside(settings: Settings) -> State:
    """The state file for the command line; the service may run or not. Raises ``StateError``, ``StateMissing`` where no service
    ever ran."""
    if not settings.state_file.is_file():
        raise StateMissing(str(settings.state_dir))
    return _open_state(settings)


def _open_state(settings: Settings) -> State:
    state = State.open(settings.state_file, *SCHEMAS, migrate=migrate)
    try:
        state.run_now(upgrade)
    except BaseException:
        state.close()
        raise
    return state


def url_of(settings: Settings, port: int) -> str:
    """The URL that people use: the first of ``MEMDUMP_PUBLIC_URL``, else the address that is listened on."""
    if settings.public_urls:
        return settings.public_urls[0]
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host  # noqa: S104 - compared, not bound
    scheme = "https" if settings.tls else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _login_url(url: str, code: str) -> str:
    return f"{url}/login?code={code}"
