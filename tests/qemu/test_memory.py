"""What a capture process takes of the host's memory does not grow with the guest."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.model import ALGORITHMS, Algorithm
from demo import Guest, PrivateLibvirt
from tests.lab import WEB
from tests.qemu.outside import memdump
from tests.thorough import once

MOST_BYTES = 250 << 20
FULL = Guest(name="vm-full-01", memory_mib=1024, text_mib=256, random_mib=512)


@pytest.mark.parametrize("algorithm", once(ALGORITHMS, "gzip", "zstd"))
def test_memory_of_a_capture_is_bounded(lab: PrivateLibvirt, tmp_path: Path, algorithm: Algorithm) -> None:
    capture = memdump(lab, tmp_path, WEB, f"--compression={algorithm}")
    assert capture.code == 0
    assert capture.peak_bytes < MOST_BYTES


@pytest.mark.deep
def test_memory_of_a_capture_does_not_grow_with_the_guest(lab: PrivateLibvirt, own_lab: PrivateLibvirt, tmp_path: Path) -> None:
    own_lab.add(FULL)
    own_lab.wait_ready(FULL.name)
    small, large = memdump(lab, tmp_path, WEB), memdump(own_lab, tmp_path, FULL)
    assert (small.code, large.code) == (0, 0)
    assert large.manifest["raw_size_bytes"] > 3 * small.manifest["raw_size_bytes"]
    assert large.peak_bytes < MOST_BYTES
    assert large.peak_bytes < small.peak_bytes * 1.1
