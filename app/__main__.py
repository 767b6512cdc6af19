"""``python -m app`` serves; ``login-url`` prints a fresh login URL; ``records rebuild`` makes the index from the manifests;
``audit verify`` says whether the audit trail is whole, ``audit export`` prints it.

The environment alone configures.
"""

from __future__ import annotations

from app.ownpython import hand_over

hand_over()

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
from collections.abc import Sequence

import structlog

from app import __version__
from app.access.by_hand import access_by_hand
from app.application import Foundation, create_app, first_lines, lay_foundation, make_login_url, open_beside, url_of
from app.config import Settings
from app.errors import AccessError, ConfigError, RequestError, StateError
from app.log import open_log
from app.web.connection import listen, runner_of
from app.web.tls import Certificate

log = structlog.get_logger()

USAGE = "usage: python -m app [login-url | account … | token … | records rebuild [--deliver] | audit verify | audit export]"
EXIT_FAILED = 1
EXIT_USAGE = 2
_SWITCH_SEC = 0.001
GRACE_SEC = 5.0
"""How long requests that are being answered may take when the service ends."""


def main(arguments: Sequence[str]) -> int:
    """Run what ``arguments`` ask for; the exit code. What a person can mend is one line on standard error."""
    try:
        settings = Settings.from_environment(os.environ)
        if not arguments:
            return serve(settings)
        if list(arguments) == ["login-url"]:
            print(make_login_url(settings))
            return 0
        if list(arguments[:2]) == ["records", "rebuild"] and list(arguments[2:]) in ([], ["--deliver"]):
            return rebuild(settings, deliver=len(arguments) > 2)
        if arguments[0] in ("account", "token"):
            print(*access_by_hand(arguments, lambda: open_beside(settings)), sep="\n")
            return 0
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


def rebuild(settings: Settings, *, deliver: bool) -> int:
    """Refill the index and, with ``deliver``, the shared history. Beside a service, too, which tells what is new."""
    from app.records.by_hand import rebuild_by_hand

    try:
        told, well = rebuild_by_hand(settings, deliver=deliver)
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
    """Serve until SIGTERM or SIGINT. The port is taken first: without it nothing else is touched."""
    certificate = Certificate.of(settings)
    try:
        listening = _listen(settings.host, settings.port)
    except OSError as error:
        reason = error.strerror or str(error)
        return _complain(f"MEMDUMP_HOST={settings.host}, MEMDUMP_PORT={settings.port}: cannot listen there: {reason}.", EXIT_FAILED)
    with listening:
        written = open_log(settings.log_dir)
        try:
            foundation = lay_foundation(settings)
            try:
                asyncio.run(_serve(foundation, listening, certificate))
            finally:
                foundation.close()
        finally:
            written.close()
    return 0


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket; of a name with several addresses, the first that can be had. Raises ``OSError``."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(128)
        listening.setblocking(False)
    except OSError:
        listening.close()
        raise
    return listening


def _give_the_loop_its_turn() -> None:
    """However much other threads compute (a table of all records, say).

    Python lets a thread compute for 5 ms before another has its turn, and the loop has to wait for its own after every system
    call. And what is there by now stays: for the garbage collector to look through all of it, again and again, stopped
    everything for 30 ms each time.
    """
    sys.setswitchinterval(_SWITCH_SEC)
    gc.collect()
    gc.freeze()


async def _serve(foundation: Foundation, listening: socket.socket, certificate: Certificate | None) -> None:
    ended, loop = asyncio.Event(), asyncio.get_running_loop()

    def end(*_signal: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended already
            loop.call_soon_threadsafe(ended.set)

    # Not the loop's own handlers: they go with the loop, and a second signal would then kill what is being written out.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    runner = runner_of(create_app(foundation), shutdown_sec=GRACE_SEC)
    try:
        await runner.setup()
        _give_the_loop_its_turn()
        server = await listen(runner, listening, certificate.context if certificate is not None else None)
        for line in first_lines(foundation, url_of(foundation.settings, listening.getsockname()[1])):
            print(line, flush=True)
        log.info("service_started", version=__version__, pid=os.getpid())
        await ended.wait()
        log.info("service_ends")
        server.close()
    finally:
        await runner.cleanup()
    log.info("service_ended")


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a thread that hangs in libvirt must not keep the process
