"""The project's own Python, for whoever started another one. Imports nothing but the standard library."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_OWN = ROOT / ".venv"


def hand_over() -> None:
    """Go on in the project's own environment if this Python has not what is needed. Leaves by ``SystemExit`` if there is none."""
    if importlib.util.find_spec("msgspec") is not None:
        return
    python = _OWN / "bin" / "python"
    if python.exists() and Path(sys.prefix) != _OWN:
        os.execv(python, [str(python), *sys.orig_argv[1:]])  # noqa: S606 - a fixed program, no shell
    sys.stderr.write(f"{sys.executable} lacks what Memory Dumps needs. In {ROOT}, make run sets it up, in .venv.\n")
    sys.exit(2)
