"""The JSON lines between a capture process and the service: one object a line, told apart by ``event``.

Shapes are those of the contract's section 3; ``fifo`` and ``warning`` are additions. Imports neither libvirt nor any
codec, for the service reads these lines and must not carry the capture's libraries.
"""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from app.errors import MemoryDumpsError
from app.model import Manifest, Phase, Way, rfc3339


class LineError(MemoryDumpsError):
    """A line is not one of ours."""

    code = "line-malformed"


class _Line(msgspec.Struct, frozen=True, kw_only=True, tag_field="event"):
    vm: str


class PhaseLine(_Line, frozen=True, kw_only=True, omit_defaults=True, tag="phase"):
    """The VM's capture entered ``phase`` at ``ts`` (RFC 3339). In ``capturing``, ``mode`` is the way that is tried first."""

    dom: str
    phase: Phase
    ts: str
    mode: Way | None = None


class ProgressLine(_Line, frozen=True, kw_only=True, tag="progress"):
    """At most ten a second. ``bytes_total`` is 0 while unknown, ``eta_sec`` null. ``iteration`` counts how often a live
    capture has gone through the guest's memory, from 1; 0 where that means nothing. ``mode`` is the way in use, which is
    another after ``auto`` fell back; null while none is chosen."""

    phase: Phase
    bytes_done: int
    bytes_total: int
    rate_bytes_per_sec: float
    eta_sec: float | None
    guest_paused: bool
    iteration: int = 0
    mode: Way | None = None


class FifoLine(_Line, frozen=True, kw_only=True, tag="fifo"):
    """The capture's FIFO stands in ``directory``, which is the capture's own; whoever outlives it drops it."""

    directory: str


class WarningLine(_Line, frozen=True, kw_only=True, tag="warning"):
    """Something to be told that does not end the capture."""

    code: str
    message: str


class SealedLine(_Line, frozen=True, kw_only=True, tag="sealed"):
    """The dump exists; this is its manifest."""

    manifest: Manifest


class FailedLine(_Line, frozen=True, kw_only=True, omit_defaults=True, tag="failed"):
    """No dump came of it. ``guest``: the end of ``message``, if that is what was seen of the guest."""

    code: str
    message: str
    guest: str = ""


Line = PhaseLine | ProgressLine | FifoLine | WarningLine | SealedLine | FailedLine

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)


def phase_line(vm: str, dom: str, phase: Phase, mode: Way | None = None) -> PhaseLine:
    """A ``PhaseLine`` of this moment."""
    return PhaseLine(vm=vm, dom=dom, phase=phase, ts=rfc3339(datetime.now(UTC)), mode=mode)


def encode(line: Line) -> bytes:
    """The line as JSON, with its newline."""
    return _encoder.encode(line) + b"\n"


def decode(text: bytes) -> Line:
    """The line in ``text``. Raises ``LineError``."""
    try:
        return _decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise LineError(f"The capture process said something that is not understood: {error}") from error
