"""What ``memdump.py`` shows a person: a progress bar on a terminal, else a line a phase; the result either way."""

from __future__ import annotations

import math
import shlex
import sys
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from app.lines import FailedLine, FifoLine, Line, PhaseLine, ProgressLine, SealedLine, WarningLine
from app.model import Manifest, Phase, Way

_LARGER = ("KiB", "MiB", "GiB", "TiB")
_UNPACK = {"gzip": "zcat", "zstd": "zstdcat", "lz4": "lz4cat", "none": "cat"}


@dataclass(frozen=True, slots=True)
class Shown:
    """Progress as texts. ``total`` None: how much there is, or will be, is not known, so that no bar can be drawn."""

    what: str
    completed: int
    total: int | None
    far: str
    rate: str
    left: str
    guest: str


def shown(line: ProgressLine, dom: str) -> Shown:
    """A line of progress as a person should see it: which phase and way, how far, how fast, and how the guest is.

    A live capture's later passes leap over what was not written meanwhile: their number says more than a bar.
    """
    again = line.iteration > 1
    left = "" if line.eta_sec is None else f"{_time(line.eta_sec)} left{' in this pass' if again else ''}"
    done = size(line.bytes_done)
    return Shown(
        what=phase_text(dom, line.phase, line.mode if line.phase is Phase.CAPTURING else None),
        completed=line.bytes_done,
        total=None if again else line.bytes_total or None,
        far=f"pass {line.iteration}" if again else f"{100 * line.bytes_done // line.bytes_total} %" if line.bytes_total else done,
        rate=f"{size(line.rate_bytes_per_sec)}/s" if line.rate_bytes_per_sec else "",
        left=left,
        guest="guest stands still" if line.guest_paused else "guest runs",
    )


def phase_text(dom: str, phase: Phase, way: Way | None) -> str:
    """``vm-web-01: capturing, live``."""
    return f"{dom}: {phase}, {way}" if way else f"{dom}: {phase}"


class Terminal:
    """Shows lines; the progress bar goes to standard error, results to standard output."""

    def __init__(self) -> None:
        self._out = Console(highlight=False, soft_wrap=True)
        self._errors = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=16),
            *(TextColumn(f"{{task.fields[{name}]}}", markup=False) for name in ("far", "guest", "rate", "left")),
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
                self._progress(self._task, shown(line, self._name))
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
        text = phase_text(line.dom, line.phase, line.mode)
        if self._bar.disable:
            self._errors.print(text, markup=False)
        elif self._task is None:
            self._bar.start()
            self._task = self._bar.add_task(text, total=None, far="", guest="", rate="", left="")
        else:
            self._bar.update(self._task, description=text)

    def _progress(self, task: TaskID, now: Shown) -> None:
        self._bar.update(
            task, description=now.what, completed=now.completed, far=now.far, guest=now.guest, rate=now.rate, left=now.left
        )
        self._bar.tasks[0].total = now.total  # there is one; an update cannot take a total away

    def _end(self) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)
            self._bar.stop()  # results go to another stream: nothing of the bar may stand between them
            self._task = None

    def _sealed(self, manifest: Manifest) -> None:
        unpack = _UNPACK[manifest.compression.algorithm]
        for text in (
            manifest.dump_path,
            f"  image   {size(manifest.raw_size_bytes)}, SHA-256 {manifest.sha256}",
            f"  stored  {size(manifest.gzip_size_bytes)} ({manifest.compression.algorithm}), SHA-256 {manifest.stored_sha256}",
            f"  {manifest.mode:7} {manifest.dom} {_stood(manifest)}; {manifest.duration_sec:.2f} s in all",
            f"  check   {unpack} {shlex.quote(manifest.dump_path)} | sha256sum",
        ):
            self._out.print(text, markup=False)


def size(size_bytes: float) -> str:
    """``15 B``, ``1.5 MiB``, ``1.00 GiB``: binary units, three digits."""
    amount, unit = size_bytes, "B"
    for larger in _LARGER:
        if amount < (1024 if unit == "B" else 999.5):
            break
        amount, unit = amount / 1024, larger
    places = 0 if unit == "B" or amount >= 99.95 else 1 if amount >= 9.995 else 2
    return f"{amount:.{places}f} {unit}"


def _time(seconds: float) -> str:
    whole = math.ceil(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60}:{whole % 60:02d} min"


def _stood(manifest: Manifest) -> str:
    if manifest.mode == "plain":
        return "was captured as its driver could"
    return f"stood still for {manifest.guest_pause_ms:.0f} ms"
