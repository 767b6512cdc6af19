"""Another program reads a dump: volatility3 finds the kernel's banner."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from demo import PrivateLibvirt
from demo.kernel import CACHE
from tests.lab import WEB
from tests.qemu.outside import dumped, unpacked_to
from tests.thorough import once

VOLATILITY_SEC = 120.0


@pytest.mark.parametrize("mode", once(["paused", "live"], "live"))
def test_volatility_finds_the_kernel_banner_of_a_booted_guest(lab: PrivateLibvirt, tmp_path: Path, mode: str) -> None:
    image = unpacked_to(dumped(lab, tmp_path, WEB, f"--mode={mode}"), tmp_path / "image")
    for folder in ("symbols", "cache"):
        (tmp_path / folder).mkdir()
    ran = subprocess.run(
        [
            str(Path(sys.executable).with_name("vol")),
            "--offline",
            "--quiet",
            f"--symbol-dirs={tmp_path / 'symbols'}",
            f"--cache-path={tmp_path / 'cache'}",
            f"--file={image}",
            "banners.Banners",
        ],
        capture_output=True,
        text=True,
        timeout=VOLATILITY_SEC,
    )
    assert ran.returncode == 0, ran.stderr
    assert f"Linux version {_kernel_release()} " in ran.stdout


def _kernel_release() -> str:
    """That of the kernel which the guests boot, by its boot sector (``kernel_version``, Documentation/arch/x86/boot.rst)."""
    found = re.search(rb"(\d+\.\d+\.\S+) \(", (CACHE / "vmlinuz").read_bytes()[0x200:0x8000])
    assert found
    return found[1].decode()
