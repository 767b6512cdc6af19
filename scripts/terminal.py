"""What ``memdump.py`` shows a person: a progress bar on a terminal, else a line a phase; the result either way."""

from __future__ import annotations

import shlex
import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from app.lines import FailedLine, FifoLine, Line, PhaseLine, ProgressLine, SealedLine, WarningLine
from app.model import Manifest

_UNPACK = {"gzip": "zcat", "zstd": "zstdcat", "lz4": "lz4cat", "none": "cat"}


class Terminal:
    """Shows lines; the progress bar goes to standard error, results to standard output."""

    def __init__(self) -> None:
        self._out = Console(highlight=False, soft_wrap=True)
        self._errors = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=16),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[rate]}", markup=False),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[guest]}", markup=False),
            console=self._errors,
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        self._task: TaskID | None = None
        self._name = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def tell(self, line: Line) -> None:
        """Show one line."""
        match line:
            case PhaseLine():
                self._phase(line)
            case ProgressLine() if self._task is not None:
                guest = "guest stands still" if line.guest_paused else "guest runs"
                if line.iteration > 1:
                    guest = f"pass {line.iteration}, {guest}"
                rate = f"{_size(int(line.rate_bytes_per_sec))}/s"
                self._bar.update(self._task, completed=line.bytes_done, total=line.bytes_total or None, guest=guest, rate=rate)
            case WarningLine():
                self._errors.print(f"{line.vm}: {line.message}", markup=False)
            case SealedLine():
                self._end()
                self._sealed(line.manifest)
            case FailedLine():
                self._end()
                self._errors.print(f"{line.vm}: {line.message} ({line.code})", markup=False)
            case ProgressLine() | FifoLine():
                pass

    def _phase(self, line: PhaseLine) -> None:
        self._name = line.dom
        text = f"{line.dom}: {line.phase}"
        if self._bar.disable:
            self._errors.print(text, markup=False)
        elif self._task is None:
            self._bar.start()
            self._task = self._bar.add_task(text, total=None, guest="", rate="")
        else:
            self._bar.update(self._task, description=text)

    def _end(self) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)
            self._bar.stop()  # results go to another stream: nothing of the bar may stand between them
            self._task = None

    def _sealed(self, manifest: Manifest) -> None:
        unpack = _UNPACK[manifest.compression.algorithm]
        for text in (
            manifest.dump_path,
            f"  image   {_size(manifest.raw_size_bytes)}, SHA-256 {manifest.sha256}",
            f"  stored  {_size(manifest.gzip_size_bytes)} ({manifest.compression.algorithm}), SHA-256 {manifest.stored_sha256}",
            f"  {manifest.mode:7} {manifest.dom} {_stood(manifest)}; {manifest.duration_sec:.2f} s in all",
            f"  check   {unpack} {shlex.quote(manifest.dump_path)} | sha256sum",
        ):
            self._out.print(text, markup=False)


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.2f} GiB" if size_bytes >= 2**30 else f"{size_bytes / 2**20:.1f} MiB"


def _stood(manifest: Manifest) -> str:
    if manifest.mode == "plain":
        return "was captured as its driver could"
    return f"stood still for {manifest.guest_pause_ms:.0f} ms"
