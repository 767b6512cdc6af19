"""Room that only one of two captures can have: one of them has it."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

from app.capture.room import reserve
from app.errors import NoSpace
from tests.faults.test_dump_dir import mounted
from tests.root import needs_root

MIB = 2**20
SIZE_MIB, ROOM_MIB = 40, 64


@needs_root
def test_of_two_that_want_what_only_one_can_have_one_has_it(tmp_path: Path) -> None:
    with mounted(tmp_path, "-t", "tmpfs", "-o", f"size={ROOM_MIB}m", "none"), ThreadPoolExecutor(2) as captures:
        for _ in range(20):
            together = Barrier(2)
            with tempfile.TemporaryFile(dir=tmp_path) as one, tempfile.TemporaryFile(dir=tmp_path) as other:
                taken = list(captures.map(lambda file: takes(file.fileno(), tmp_path, together), (one, other)))  # noqa: B023
            assert sorted(taken) == [False, True]


def takes(descriptor: int, folder: Path, together: Barrier) -> bool:
    together.wait()
    try:
        reserve(descriptor, folder, SIZE_MIB * MIB)
    except NoSpace:
        return False
    return True
