"""What is logged, where it ends up, and what never does."""

from __future__ import annotations

import io
import json
import logging
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from app.errors import ConfigError
from app.log import FILE_BYTES, FILE_NAME, REDACTED, Log, open_log


class Screen(io.StringIO):
    """A standard error that is a terminal, or is not."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.fixture
def screen() -> Screen:
    return Screen(terminal=False)


@pytest.fixture
def opened(tmp_path: Path, screen: Screen) -> Iterator[Log]:
    log = open_log(tmp_path / "log", screen)
    yield log
    log.close()
    structlog.reset_defaults()


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log" / FILE_NAME).read_text().splitlines()]


def test_an_event_is_one_json_line_in_the_file_and_on_stderr(tmp_path: Path, screen: Screen, opened: Log) -> None:
    structlog.get_logger().info("dump_sealed", vm="101", size_bytes=5)
    opened.close()
    (line,) = lines(tmp_path)
    assert line["event"] == "dump_sealed"
    assert line["level"] == "info"
    assert line["vm"] == "101"
    assert line["size_bytes"] == 5
    assert line["ts"].endswith("Z")
    assert len(line["ts"]) == len("2026-11-23T10:30:00.000000Z")
    assert json.loads(screen.getvalue()) == line


def test_on_a_terminal_stderr_is_for_people_and_the_file_stays_json(tmp_path: Path) -> None:
    screen = Screen(terminal=True)
    log = open_log(tmp_path / "log", screen)
    structlog.get_logger().warning("guest_resumed", dom="vm-web-01")
    log.close()
    structlog.reset_defaults()
    assert "guest_resumed" in screen.getvalue()
    assert not screen.getvalue().startswith("{")
    assert lines(tmp_path)[0]["dom"] == "vm-web-01"


def test_what_libraries_log_comes_the_same_way(tmp_path: Path, opened: Log) -> None:
    logging.getLogger("aiohttp.server").error("cannot parse %s", "that")
    opened.close()
    (line,) = lines(tmp_path)
    assert (line["event"], line["logger"], line["level"]) == ("cannot parse that", "aiohttp.server", "error")


def test_an_exception_stays_one_line(tmp_path: Path, opened: Log) -> None:
    try:
        raise ValueError("the cause")
    except ValueError as error:
        structlog.get_logger().error("request_failed", exc_info=error)
    opened.close()
    (line,) = lines(tmp_path)
    assert "ValueError: the cause" in line["exception"]


@pytest.mark.parametrize(
    ("fields", "secret"),
    [
        ({"token": "s3cret-value"}, "s3cret-value"),
        ({"cookie": "s3cret-value"}, "s3cret-value"),
        ({"headers": {"authorization": "s3cret-value"}}, "s3cret-value"),
        ({"text": "GET /login?code=s3cret-value&next=/"}, "s3cret-value"),
        ({"text": "Authorization: Bearer s3cret-value"}, "s3cret-value"),
        ({"parts": ["mdt_AbCdEfGhIjKlMnOp-_12"]}, "AbCdEfGhIjKlMnOp"),
    ],
)
def test_secrets_are_never_logged(tmp_path: Path, screen: Screen, opened: Log, fields: dict[str, Any], secret: str) -> None:
    structlog.get_logger().info("something", **fields)
    try:
        raise ValueError(str(fields))
    except ValueError:
        structlog.get_logger().exception("and_in_a_traceback_too", text=str(fields.get("text")))
    opened.close()
    first = (tmp_path / "log" / FILE_NAME).read_text().splitlines()[0]
    assert secret not in first
    assert secret not in screen.getvalue().splitlines()[0]
    assert REDACTED in first


def test_a_secret_in_a_traceback_is_taken_out(tmp_path: Path, opened: Log) -> None:
    try:
        raise ValueError("no such page: /login?code=s3cret-value")
    except ValueError:
        structlog.get_logger().exception("request_failed")
    opened.close()
    assert "s3cret-value" not in (tmp_path / "log" / FILE_NAME).read_text()


def test_an_error_code_is_no_secret(tmp_path: Path, opened: Log) -> None:
    structlog.get_logger().info("job_failed", code="vm-not-running")
    opened.close()
    assert lines(tmp_path)[0]["code"] == "vm-not-running"


def test_the_file_is_rotated_and_its_owner_alone_may_read_it(tmp_path: Path, opened: Log) -> None:
    log = structlog.get_logger()
    for _ in range(12):
        log.info("long", text="x" * (FILE_BYTES // 10))
    opened.close()
    names = sorted(path.name for path in (tmp_path / "log").iterdir())
    assert names == [FILE_NAME, f"{FILE_NAME}.1"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "log").iterdir()} == {0o600}


def test_the_last_head_of_the_audit_trail_stands_in_every_file(tmp_path: Path, opened: Log) -> None:
    log = structlog.get_logger()
    for head in ("1:aa", "2:bb"):
        log.info("audit", head=head)
    for _ in range(40):
        log.info("long", text="x" * (FILE_BYTES // 10))
    opened.close()
    for path in (tmp_path / "log").iterdir():
        first = json.loads(path.read_text().partition("\n")[0])
        assert (first["event"], first["head"]) == ("audit", "1:aa" if path.name.endswith(".4") else "2:bb"), path.name


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match=r"MEMDUMP_LOG_DIR='.*/file/log' cannot be written"):
        open_log(tmp_path / "file" / "log")


def test_lines_that_cannot_be_kept_up_with_are_counted(tmp_path: Path, opened: Log) -> None:
    handler = opened._handler
    assert isinstance(handler, logging.handlers.QueueHandler)
    handler.lost = 3  # type: ignore[attr-defined]  # as after a queue that was full three times
    structlog.get_logger().info("next")
    opened.close()
    assert [line["event"] for line in lines(tmp_path)] == ["log_lines_lost: 3", "next"]
