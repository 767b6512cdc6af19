"""The demo guests' kernel, from whichever distribution's package."""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from demo.kernel import module_in

MODULE = b"\x7fELF" + bytes(1000)


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [("", bytes), (".xz", lzma.compress), (".gz", gzip.compress), (".zst", zstandard.ZstdCompressor().compress)],
    ids=["Debian 12", "Debian 13", "by gzip", "Ubuntu"],
)
def test_the_module_is_found_however_it_is_compressed(tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes]) -> None:
    folder = tmp_path / "lib/modules/6.12/kernel/drivers/firmware"
    folder.mkdir(parents=True)
    (folder / f"qemu_fw_cfg.ko{suffix}").write_bytes(pack(MODULE))
    assert module_in(tmp_path) == MODULE


def test_a_package_without_it_is_told_from_one_that_has_it(tmp_path: Path) -> None:
    assert module_in(tmp_path) is None
