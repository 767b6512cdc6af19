"""A real service process for tests: started as a person would start it, spoken to from the outside alone."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = (sys.executable, "-m", "app")
START_SEC = 30.0
STOP_SEC = 30.0
_PREFIXES = ("MEMDUMP_", "INFLUX_")
_OWN_NAMES = ("LIBVIRT_URI", "DUMP_DIR")


@dataclass(kw_only=True)
class Service:
    """A service that runs, or ran. ``token`` is that of the first start on its state directory."""

    folder: Path
    environment: Mapping[str, str]
    program: Sequence[str]
    process: subprocess.Popen[str]
    url: str = ""
    login_url: str = ""
    token: str = ""
    printed: list[str] = field(default_factory=list)

    @property
    def dump_dir(self) -> Path:
        return Path(self.environment["DUMP_DIR"])

    @property
    def log_dir(self) -> Path:
        return Path(self.environment["MEMDUMP_LOG_DIR"])

    @property
    def state_dir(self) -> Path:
        return Path(self.environment["MEMDUMP_STATE_DIR"])

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0

    @property
    def headers(self) -> dict[str, str]:
        """What a program sends to be let in."""
        return {"Authorization": f"Bearer {self.token}"}

    def log_text(self) -> str:
        """The log as it is on disk now."""
        file = self.log_dir / "memdump_to_influx.log"
        return file.read_text() if file.exists() else ""

    def stderr_text(self) -> str:
        """Everything that the process, in all its runs, said on its standard error."""
        return (self.folder / "stderr").read_text()

    def fresh_login_url(self) -> str:
        """One more login URL, made by the command line and aimed at this service's port."""
        made = run_app("login-url", environment=self.environment)
        if made.returncode != 0:
            raise AssertionError(f"python -m app login-url: {made.stderr}")
        return re.sub(r"//[^/]+/", f"//{urlsplit(self.url).netloc}/", made.stdout.strip())

    def stop(self) -> int:
        """SIGTERM, and the exit code. Nothing happens if it has ended already."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self._ended()

    def kill(self) -> int:
        """SIGKILL: the crash that nothing can prepare for."""
        self.process.kill()
        return self._ended()

    def restart(self, **changed: str) -> None:
        """Start again (on the same port, with ``changed`` settings) after ``stop`` or ``kill``; the token stays."""
        self.environment = {**self.environment, "MEMDUMP_PORT": str(self.port), **changed}
        self.process = _start(self.program, self.environment, self.folder)
        self._wait_until_it_serves()

    def _ended(self) -> int:
        try:
            return self.process.wait(STOP_SEC)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"The service did not end within {STOP_SEC:g} s: {self.stderr_text()[-3000:]}") from None
        finally:
            if self.process.stdout is not None:
                self.process.stdout.close()

    def _wait_until_it_serves(self) -> None:
        self.printed = []
        for line in _lines_of(self.process):
            self.printed.append(line)
            if found := re.search(r"mdt_\S+", line):
                self.token = found[0]
            if found := re.search(r"https?://\S+/login\?code=\S+", line):
                self.login_url = found[0]
            if found := re.search(r"serves at (https?://\S+)", line):
                self.url = found[1]
            if line.startswith("Ready"):
                return
        code = self._ended()
        raise AssertionError(f"The service ended with {code} at its start: {self.stderr_text()[-3000:]}")


@contextlib.contextmanager
def running_service(folder: Path, *, program: Sequence[str] = PROGRAM, **settings: str) -> Iterator[Service]:
    """A service with its folders below ``folder``, on libvirt's test driver unless ``settings`` say otherwise.

    ``settings`` are environment names (``MEMDUMP_MODE="paused"``). Ends with the block, whatever happened in it.
    """
    environment = service_environment(folder, **settings)
    folder.mkdir(parents=True, exist_ok=True)
    service = Service(folder=folder, environment=environment, program=program, process=_start(program, environment, folder))
    try:
        service._wait_until_it_serves()
        yield service
    finally:
        service.stop()


def service_environment(folder: Path, **settings: str) -> dict[str, str]:
    """This process's environment without settings of its own, and folders below ``folder``."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_PREFIXES) and name not in _OWN_NAMES}
    return {
        **inherited,
        "LIBVIRT_URI": "test:///default",
        "DUMP_DIR": str(folder / "dumps"),
        "MEMDUMP_LOG_DIR": str(folder / "log"),
        "MEMDUMP_STATE_DIR": str(folder / "state"),
        "MEMDUMP_PORT": "0",
        "SSL_CERT_FILE": os.devnull,  # to read the system's list of authorities, whom no test asks, is a tenth of a start
        **settings,
    }


def run_app(*arguments: str, environment: Mapping[str, str], given: str = "") -> subprocess.CompletedProcess[str]:
    """``python -m app`` with ``arguments``, and ``given`` on its standard input, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "app", *arguments],
        cwd=ROOT,
        env=dict(environment),
        input=given,
        capture_output=True,
        text=True,
        timeout=START_SEC,
    )


def _start(program: Sequence[str], environment: Mapping[str, str], folder: Path) -> subprocess.Popen[str]:
    with (folder / "stderr").open("a") as stderr:
        return subprocess.Popen(
            program,
            cwd=ROOT,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            bufsize=1,
        )


def _lines_of(process: subprocess.Popen[str]) -> Iterator[str]:
    """Lines as they are printed, until the process closes its output. Raises ``AssertionError`` when it takes too long."""
    output: IO[str] | None = process.stdout
    if output is None:
        raise AssertionError("the process was started without a pipe")
    descriptor, deadline, rest = output.fileno(), time.monotonic() + START_SEC, b""
    while True:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            process.kill()
            raise AssertionError(f"The service did not say that it is ready within {START_SEC:g} s")
        chunk = os.read(descriptor, 65536)
        if not chunk:
            return
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line.decode() for line in lines)
