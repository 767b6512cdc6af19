"""The service's process: its port, its log, its event loop, its end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys

import structlog

from app import __version__
from app.application import create_app
from app.config import Settings
from app.foundation import Foundation, first_lines, lay_foundation, url_of
from app.log import open_log
from app.web.connection import listen, runner_of
from app.web.tls import Certificate

log = structlog.get_logger()

_SWITCH_SEC = 0.001
GRACE_SEC = 5.0
"""How long requests that are being answered may take when the service ends."""


class CannotListen(Exception):
    """The address is not ours or is taken; ``str()`` says it in a line."""


def serve_until_ended(settings: Settings) -> None:
    """Until SIGTERM, SIGINT or SIGHUP. The port is taken first: without it nothing else is touched. Raises ``CannotListen``,
    ``ConfigError``, ``StateError``."""
    certificate = Certificate.of(settings)
    try:
        listening = _listen(settings.host, settings.port)
    except OSError as error:
        reason = error.strerror or str(error)
        raise CannotListen(f"MEMDUMP_HOST={settings.host}, MEMDUMP_PORT={settings.port}: cannot listen there: {reason}.") from error
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
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup(1)
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
