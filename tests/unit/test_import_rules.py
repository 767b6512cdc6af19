"""The rules of ``pyproject.toml`` for imports are held: each is broken once, in a copy, and that is noticed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.other_process import ROOT

LINTER = Path(sys.executable).with_name("lint-imports")
IN_PLACE, NO_CAPTURE, CLIENT, OPENID, AIOHTTP, LIBVIRT, NUMPY = (
    contract["name"] for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
)
FORBIDDEN = [
    ("records/index.py", "import app.hypervisor", "app.records.index -> app.hypervisor", IN_PLACE),
    ("capture/room.py", "from app.access import secrets", "app.capture.room -> app.access.secrets", IN_PLACE),
    ("waiting.py", "from app.model import Job", "app.waiting -> app.model", IN_PLACE),
    ("newroom.py", "", "newroom", IN_PLACE),
    ("jobs/pool.py", "def later():\n    import app.capture.codecs", "app.jobs.pool -> app.capture.codecs", NO_CAPTURE),
    ("records/pull.py", "import pyarrow", "app.records.pull -> pyarrow", CLIENT),
    ("web/pages.py", "import authlib", "app.web.pages -> authlib", OPENID),
    ("web/ready.py", "from influxdb_client_3 import Point", "app.web.ready -> influxdb_client_3", CLIENT),
    ("jobs/run.py", "from aiohttp import web", "app.jobs.run -> aiohttp", AIOHTTP),
    ("__main__.py", "import aiohttp.web", "app.__main__ -> aiohttp", AIOHTTP),
    ("jobs/standing.py", "import libvirt", "app.jobs.standing -> libvirt", LIBVIRT),
    ("web/api.py", "import libvirt_qemu", "app.web.api -> libvirt_qemu", LIBVIRT),
    ("hypervisor/calls.py", "import numpy", "app.hypervisor.calls -> numpy", NUMPY),
    ("evidence.py", "import zstandard", "app.evidence -> zstandard", NUMPY),
]


@pytest.fixture(scope="module")
def linted(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What is said of a copy of the house that has all of them."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "app", folder / "app", ignore=shutil.ignore_patterns("__pycache__", "static", "templates"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    for module, code, *_ in FORBIDDEN:
        with (folder / "app" / module).open("a") as file:
            file.write(f"\n{code}\n")
    command = [str(LINTER), "--no-cache", "--no-logo"]
    ended = subprocess.run(command, cwd=folder, env={**os.environ, "COLUMNS": "300"}, capture_output=True, text=True)
    assert ended.returncode == 1, ended.stdout
    return ended.stdout


@pytest.mark.parametrize(("module", "code", "told", "contract"), FORBIDDEN)
def test_an_import_that_the_house_does_not_allow_is_noticed(linted: str, module: str, code: str, told: str, contract: str) -> None:
    assert f"{contract} BROKEN" in linted
    _, _, broken = linted.partition("Broken contracts")
    _, _, of_contract = broken.partition(f"\n{contract}\n---")
    assert told in of_contract, f"{code!r} in {module}"
