"""Other people's work on a guest: a dump by virsh that takes as long as the test wants, and memdump.py by hand."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from demo import Guest, PrivateLibvirt
from tests.contract.speech import Message
from tests.faults.processes import PATIENCE_SEC, eventually
from tests.faults.scene import Scene
from tests.service import ROOT


@contextlib.contextmanager
def foreign_dump(lab: PrivateLibvirt, guest: Guest) -> Iterator[None]:
    """``virsh dump --memory-only`` into a FIFO that nobody empties, under way; it fails at the end of the block."""
    fifo, owner = lab.folder / "guests" / "foreign", lab.folder.stat()
    os.mkfifo(fifo, 0o600)
    os.chown(fifo, owner.st_uid, owner.st_gid)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    command = ["virsh", "--connect", lab.uri, "dump", "--memory-only", guest.name, str(fifo)]
    virsh = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert select.select([reader], [], [], PATIENCE_SEC)[0], "the foreign dump did not begin"
        yield
    finally:
        os.close(reader)
        fifo.unlink()
        virsh.wait(PATIENCE_SEC)


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
    return [path for folder in (scene.service.dump_dir, scene.lab.folder / "run") for path in folder.rglob(".memdump-*")]


def wait_for_fifo(scene: Scene) -> Path:
    """The folder of the FIFO of the capture that is under way, once it is there."""
    return eventually(lambda: fifo_folders(scene), "a FIFO")[0]
