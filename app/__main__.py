"""``python -m app`` serves; ``login-url`` prints a fresh login URL; ``records rebuild`` makes the index from the manifests;
``audit verify`` says whether the audit trail is whole, ``audit export`` prints it.

The environment alone configures.
"""

from __future__ import annotations

from app.ownpython import hand_over

hand_over()

import os
import sys
from collections.abc import Sequence

from app.config import Settings
from app.errors import AccessError, ConfigError, RequestError, StateError

USAGE = "usage: python -m app [login-url | account … | token … | records rebuild [--deliver] | audit verify | audit export]"
EXIT_FAILED = 1
EXIT_USAGE = 2


def main(arguments: Sequence[str]) -> int:
    """Run what ``arguments`` ask for; the exit code. What a person can mend is one line on standard error."""
    try:
        settings = Settings.from_environment(os.environ)
        if not arguments:
            return serve(settings)
        if list(arguments) == ["login-url"]:
            return login_url(settings)
        if list(arguments[:2]) == ["records", "rebuild"] and list(arguments[2:]) in ([], ["--deliver"]):
            return rebuild(settings, deliver=len(arguments) > 2)
        if arguments[0] in ("account", "token"):
            return access(settings, arguments)
        if arguments[0] == "audit" and list(arguments[1:]) in (["verify"], ["export"]):
            return audit(settings, arguments[1])
    except ConfigError as error:
        return _complain(str(error), EXIT_USAGE)
    except (AccessError, RequestError, StateError) as error:
        return _complain(str(error), EXIT_FAILED)
    return _complain(USAGE, EXIT_USAGE)


def _complain(line: str, code: int) -> int:
    print(line, file=sys.stderr)
    return code


# Each command imports what it needs by itself: none waits for what only the service has.


def login_url(settings: Settings) -> int:
    """Print a fresh login URL. Beside a service, too."""
    from app.foundation import make_login_url

    print(make_login_url(settings))
    return 0


def access(settings: Settings, arguments: Sequence[str]) -> int:
    """Show or change accounts and tokens. Beside a service, too."""
    from app.access.by_hand import access_by_hand
    from app.foundation import open_beside

    print(*access_by_hand(arguments, lambda: open_beside(settings)), sep="\n")
    return 0


def rebuild(settings: Settings, *, deliver: bool) -> int:
    """Refill the index and, with ``deliver``, the shared history. Beside a service, too, which tells what is new."""
    from app.access.audit_by_hand import tell_found
    from app.records.by_hand import rebuild_by_hand

    try:
        told, well = rebuild_by_hand(settings, deliver=deliver, also=tell_found)
    except OSError as error:
        return _complain(f"DUMP_DIR={settings.dump_dir} cannot be read: {error.strerror or error}.", EXIT_FAILED)
    print(*told, sep="\n")
    return 0 if well else EXIT_FAILED


def audit(settings: Settings, what: str) -> int:
    """Say whether the audit trail is whole, or print it. Beside a service, too."""
    from app.access.audit_by_hand import export_by_hand, verify_by_hand

    if what == "verify":
        told, well = verify_by_hand(settings)
        print(*told, sep="\n")
        return 0 if well else EXIT_FAILED
    try:
        export_by_hand(settings, sys.stdout.write)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    return 0


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT."""
    from app.serving import CannotListen, serve_until_ended

    try:
        serve_until_ended(settings)
    except CannotListen as error:
        return _complain(str(error), EXIT_FAILED)
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a thread that hangs in libvirt must not keep the process
