"""Logs: one JSON line an event, to a rotated file and to standard error. Secrets never.

Anything may call ``structlog.get_logger()``; what libraries say through ``logging`` comes the same way. Lines are
handed to a thread of their own, so that a slow disk never holds up the event loop; should that thread fall far behind,
lines are dropped and the number of lost ones is logged rather than memory filled.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import queue
import re
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, TextIO

import structlog
from structlog.stdlib import ProcessorFormatter

from app.errors import ConfigError

HEAD_EVENT = "audit"
"""The event that tells of an entry of the audit trail; ``head`` in it is the chain's. The last one stands at the head of each new
file, too: what is logged after it, and anybody can have much logged, does not push it out."""

FILE_NAME = "memdump_to_influx.log"
FILE_BYTES = 10 * 2**20
FILES_KEPT = 5
_QUEUE_LINES = 10_000

_SECRET_KEYS = frozenset(
    {"token", "influx_token", "api_token", "cookie", "session", "authorization", "password", "login_url", "login_code"}
)
_SECRET_TEXT = re.compile(
    r"(?P<token>mdt_)[A-Za-z0-9_-]{8,}|(?P<query>(?:[?&](?:code|token)|\bmemory_dumps_session)=)[^&\s\"';>]+"
    r"|(?P<bearer>\bBearer )[^\s\"',]+"
)
REDACTED = "[redacted]"

Event = MutableMapping[str, Any]


class Log:
    """Logging, switched on; ``close`` writes out what is waiting and gives the file back."""

    def __init__(self, listener: logging.handlers.QueueListener, handler: logging.Handler) -> None:
        self._listener = listener
        self._handler = handler

    def close(self) -> None:
        """Write everything out and stop the thread. Blocks until the disk has it. A second call does nothing."""
        root = logging.getLogger()
        if self._handler not in root.handlers:
            return
        root.removeHandler(self._handler)
        self._listener.stop()
        for sink in self._listener.handlers:
            sink.close()


def open_log(log_dir: Path, stderr: TextIO | None = None) -> Log:
    """Send every event to ``log_dir`` and to ``stderr``. Raises ``ConfigError`` when the folder cannot be written."""
    terminal = stderr if stderr is not None else sys.stderr
    on_screen, on_disk = logging.StreamHandler(terminal), _open_file(log_dir)
    as_json = _formatter(readable=False)
    on_disk.setFormatter(as_json)
    on_screen.setFormatter(_formatter(readable=True) if terminal.isatty() else as_json)
    lines: queue.Queue[logging.LogRecord] = queue.Queue(_QUEUE_LINES)
    handler = _HandOver(lines)
    listener = _Writer(lines, on_disk, on_screen)
    # What aiohttp cannot parse it logs as an error with a traceback and the offending text, which may be a whole cookie:
    # anybody could fill the log with it.
    logging.getLogger("aiohttp.server").addFilter(_not_parsed)
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    root.addHandler(handler)
    structlog.configure(
        processors=[*_common_processors(), ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    listener.start()
    return Log(listener, handler)


def _not_parsed(record: logging.LogRecord) -> bool:
    """Let a request that is no HTTP through as one line without its text."""
    error = record.exc_info[1] if record.exc_info else None
    if error is not None and type(error).__module__ in ("aiohttp.http_exceptions", "aiohttp.web_protocol"):
        record.levelno, record.levelname = logging.INFO, "INFO"
        record.msg, record.args, record.exc_info = "request_not_parsed: %s", (type(error).__name__,), None
    return True


class _OwnFile(logging.handlers.RotatingFileHandler):
    """A rotated file that its owner alone may read: it names VMs, people and cases."""

    _head: str | None = None

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        if isinstance(record.msg, dict) and record.msg.get("event") == HEAD_EVENT:
            self._head = self.format(record)

    def doRollover(self) -> None:  # noqa: N802 - the base class calls it so
        super().doRollover()
        if self._head is not None and self.stream is not None:
            self.stream.write(self._head + self.terminator)

    def _open(self) -> Any:
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        return os.fdopen(descriptor, self.mode, encoding=self.encoding)


def _open_file(log_dir: Path) -> _OwnFile:
    try:
        log_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        return _OwnFile(log_dir / FILE_NAME, maxBytes=FILE_BYTES, backupCount=FILES_KEPT, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"MEMDUMP_LOG_DIR={str(log_dir)!r} cannot be written: {error.strerror}.") from error


class _HandOver(logging.handlers.QueueHandler):
    """Gives records to the writing thread as they are; never waits for it."""

    lost = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Unlike the base class, leave rendering to the writing thread."""
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            if self.lost:
                self.queue.put_nowait(_lines_lost(self.lost))
                self.lost = 0
            self.queue.put_nowait(record)
        except queue.Full:
            self.lost += 1


class _Writer(logging.handlers.QueueListener):
    """The writing thread."""

    def __init__(self, lines: queue.Queue[Any], *sinks: logging.Handler) -> None:
        super().__init__(lines, *sinks)
        self.lines = lines

    def enqueue_sentinel(self) -> None:
        """Wait for room for the word that ends the thread (None), unlike the base class: a full queue must not keep the
        service from ending."""
        self.lines.put(None)


def _lines_lost(count: int) -> logging.LogRecord:
    return logging.LogRecord("app.log", logging.WARNING, __file__, 0, "log_lines_lost: %d", (count,), None)


def _common_processors() -> list[structlog.typing.Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="%Y-%m-%dT%H:%M:%S.%fZ", utc=True, key="ts"),
    ]


class _RenderedOnce(ProcessorFormatter):
    """The file asks for a line when it looks whether there is room for it, and again to write it; then the terminal does. That is
    on the writing thread alone, one line after the other."""

    _record: logging.LogRecord | None = None
    _line = ""

    def format(self, record: logging.LogRecord) -> str:
        if record is not self._record:
            self._line, self._record = super().format(record), record
        return self._line


def _formatter(*, readable: bool) -> ProcessorFormatter:
    render: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(timestamp_key="ts") if readable else structlog.processors.JSONRenderer(default=str)
    )
    return _RenderedOnce(
        foreign_pre_chain=[*_common_processors(), structlog.stdlib.add_logger_name],
        processors=[
            ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            structlog.processors.StackInfoRenderer(),
            redact,
            _in_reading_order,
            render,
        ],
    )


def redact(_logger: object, _method: str, event: Event) -> Event:
    """Take secrets out, by the name of the key and by the look of the text: tokens, codes in URLs, Bearer headers."""
    return {key: REDACTED if key in _SECRET_KEYS and value else _without_secrets(value) for key, value in event.items()}


def _without_secrets(value: Any) -> Any:
    if isinstance(value, str):
        return _SECRET_TEXT.sub(lambda found: f"{found['token'] or found['query'] or found['bearer']}{REDACTED}", value)
    if isinstance(value, dict):
        return redact(None, "", value)
    if isinstance(value, (list, tuple)):
        return [_without_secrets(part) for part in value]
    return value


def _in_reading_order(_logger: object, _method: str, event: Event) -> Event:
    first = {key: event.pop(key) for key in ("ts", "level", "event") if key in event}
    return {**first, **event}
