"""``memdump.py`` by hand, line by line, so that it can be harmed in between."""

from __future__ import annotations

import contextlib
import json
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.contract.speech import Message
from tests.faults.processes import PATIENCE_SEC, below, eventually
from tests.faults.scene import Scene
from tests.service import ROOT


class ByHand:
    """``memdump.py --json`` started by hand: its lines as they come."""

    def __init__(self, scene: Scene, *words: str) -> None:
        command = [sys.executable, str(ROOT / "scripts/memdump.py"), "--json", *words, scene.guest.uuid]
        self.process = subprocess.Popen(
            command, env=dict(scene.service.environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )

    def close(self) -> None:
        """End it, if it has not ended, and wait."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def until(self, event: str, phase: str | None = None) -> Message:
        """The first line of that kind."""
        while True:
            line = self._line()
            if line["event"] == event and phase in (None, line.get("phase")):
                return line

    def _line(self) -> Message:
        output = self.process.stdout
        assert output is not None
        assert select.select([output], [], [], PATIENCE_SEC)[0], "memdump.py says nothing"
        text = output.readline()
        assert text, f"memdump.py ended with {self.process.wait()}"
        line: Message = json.loads(text)
        return line


@contextlib.contextmanager
def by_hand(scene: Scene, *words: str) -> Iterator[ByHand]:
    """One dump of the scene's guest by hand; ended with the block."""
    started = ByHand(scene, *words)
    try:
        yield started
    finally:
        started.close()


def fifo_folders(scene: Scene) -> list[Path]:
    """The FIFOs of captures, dead or alive."""
    return [path for path in left_by_captures(scene) if path.name.startswith(".memdump-")]


def left_by_captures(scene: Scene) -> Iterator[Path]:
    """Whatever stands where captures put something."""
    for folder in (scene.service.dump_dir, scene.lab.folder / "run"):
        yield from below(folder)


def wait_for_fifo(scene: Scene) -> Path:
    """The folder of the FIFO of the capture that is under way, once it is there."""
    return eventually(lambda: fifo_folders(scene), "a FIFO")[0]
