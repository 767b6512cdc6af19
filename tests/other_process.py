"""A second Python process for tests in which another process matters."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent


class OtherProcess:
    """Python code that runs beside the test. What it prints can be read line by line; it may wait for its input's end."""

    def __init__(self, code: str, *arguments: object) -> None:
        command = [sys.executable, "-c", code, *map(str, arguments)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self.process.stdin is None or self.process.stdout is None:
            raise AssertionError("started without pipes")
        self._input, self._output = self.process.stdin, self.process.stdout

    @property
    def pid(self) -> int:
        return self.process.pid

    def line(self) -> str:
        """The next line that it prints; "" when it ended instead."""
        return self._output.readline().rstrip("\n")

    def go_on(self) -> None:
        """Close its input, for which it may be waiting."""
        self._input.close()

    def end(self) -> int:
        """Close its input and wait until it ends; its exit code."""
        self.go_on()
        return self.process.wait(20)

    def kill(self) -> str:
        """SIGKILL, unless it has ended; what it had printed and nobody had read."""
        self.process.kill()
        self.process.wait(20)
        return self._output.read()

    def close(self) -> None:
        """Kill it and give its pipes back."""
        self.kill()
        self._input.close()
        self._output.close()


@contextmanager
def beside(code: str, *arguments: object) -> Iterator[OtherProcess]:
    """``code`` in another process, which is gone when the block ends."""
    with closing(OtherProcess(code, *arguments)) as other:
        yield other


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """``code`` in another process, to its end."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20)
