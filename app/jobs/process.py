"""One capture process: ``scripts/memdump.py`` with an argument list, never a shell; its lines; its end.

The child ends itself when its standard input closes, so it never outlives the service by more than a moment. It has a
session of its own: a Ctrl-C at the service's terminal reaches the service alone, which then ends its children.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import structlog

from app.config import Settings
from app.lines import Line, LineError, decode
from app.model import Job

log = structlog.get_logger()

SCRIPT = Path(__file__).resolve().parent.parent.parent / "scripts" / "memdump.py"

_LONGEST_LINE_BYTES = 16 << 20  # a manifest with the XML of a very large domain
_NOT_FOR_THE_CHILD = frozenset({"INFLUX_TOKEN", "INFLUX_URL", "INFLUX_DB", "MEMDUMP_OIDC_CLIENT_SECRET"})


def arguments(job: Job, settings: Settings, audit_head: str) -> list[str]:
    """The command line for one job. What people wrote goes in ``--name=value``, so that it can be no option of its own."""
    wish = job.wish
    words = [
        sys.executable,
        str(SCRIPT),
        "--json",
        "--no-record",
        f"--uri={settings.libvirt_uri}",
        f"--dump-dir={settings.dump_dir}",
        f"--timeout-sec={settings.dump_timeout_sec:g}",
        f"--mode={wish.mode}",
        f"--compression={wish.compression}",
        f"--operator={wish.operator}",
        f"--audit-head={audit_head}",
    ]
    if wish.max_pause_ms is not None:
        words.append(f"--max-pause-ms={wish.max_pause_ms}")
    if wish.reason is not None:
        words.append(f"--reason={wish.reason}")
    if wish.case is not None:
        words.append(f"--case={wish.case}")
    return [*words, "--", job.uuid]


def start_of(pid: int) -> int | None:
    """When a process started, in clock ticks since boot (field 22 of ``/proc/PID/stat``, proc(5)); None if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *fields = text.rpartition(")")[2].split()
    return None if state == "Z" else int(fields[18])


class CaptureProcess:
    """A started capture process."""

    def __init__(self, process: asyncio.subprocess.Process, job_id: str) -> None:
        """Use ``start``."""
        self.pid = process.pid
        self.started = start_of(process.pid) or 0
        self._process = process
        self._complaints = asyncio.create_task(self._log_complaints(job_id))

    @classmethod
    async def start(cls, job: Job, settings: Settings, audit_head: str) -> CaptureProcess:
        """Start the capture for ``job``; ``audit_head`` goes into its manifest. Raises ``OSError``."""
        environment = {name: value for name, value in os.environ.items() if name not in _NOT_FOR_THE_CHILD}
        process = await asyncio.create_subprocess_exec(
            *arguments(job, settings, audit_head),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=_LONGEST_LINE_BYTES,
            env=environment,
            start_new_session=True,
        )
        return cls(process, job.job_id)

    async def lines(self) -> AsyncIterator[Line]:
        """What it says, until it has nothing more to say. What is not understood is logged and passed over."""
        output = self._process.stdout
        assert output is not None  # noqa: S101 - it was started with a pipe
        while text := await output.readline():
            try:
                yield decode(text)
            except LineError as error:
                log.warning("capture_line_malformed", pid=self.pid, message=str(error))

    async def ended(self) -> int:
        """Its exit code; negative: the signal that ended it."""
        code = await self._process.wait()
        await self._complaints
        return code

    def cancel(self) -> None:
        """Ask it to end: the guest runs on and the partial file goes."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once; what it leaves is for others to tidy."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def _log_complaints(self, job_id: str) -> None:
        """Its standard error, which is silent when all is well."""
        errors = self._process.stderr
        assert errors is not None  # noqa: S101 - it was started with a pipe
        while text := await errors.read(65536):
            log.warning("capture_complains", job_id=job_id, pid=self.pid, text=text.decode(errors="replace").rstrip())
