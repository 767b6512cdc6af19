"""Every setting, error code and exit code that the product has is described in its documentation, and nothing else is; and what is
to be typed there works as it is written."""

from __future__ import annotations

import asyncio
import importlib
import json
import pkgutil
import re
from asyncio.subprocess import PIPE
from collections.abc import Iterator
from pathlib import Path

import pytest

import app
from app.config import KNOWN_NAMES
from app.errors import MemoryDumpsError
from app.web.errors import STATUS
from tests.contract.speech import Api
from tests.nodes import Vm, node, numbered_uuid
from tests.service import ROOT, running_service

ERRORS = (ROOT / "docs" / "errors.md").read_text()
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
OTHER_SETTINGS = ("LIBVIRT_URI", "DUMP_DIR", "INFLUX_URL", "INFLUX_DB", "INFLUX_TOKEN")


def codes() -> Iterator[str]:
    """The code of every error in the program; an error whose code is its parent's has none of its own."""
    for module in pkgutil.walk_packages(app.__path__, "app."):
        if module.name != "app.__main__":
            importlib.import_module(module.name)
    pending = [MemoryDumpsError]
    while pending:
        error = pending.pop()
        pending += error.__subclasses__()
        yield error.code


@pytest.mark.parametrize("name", sorted({*KNOWN_NAMES, *OTHER_SETTINGS}))
def test_every_setting_is_described(name: str) -> None:
    assert f"`{name}`" in OPERATIONS


def test_no_setting_is_described_that_there_is_not() -> None:
    assert set(re.findall(r"`(MEMDUMP_[A-Z_]+)`", OPERATIONS)) <= KNOWN_NAMES


@pytest.mark.parametrize("code", sorted({*codes(), *STATUS}))
def test_every_error_code_is_described(code: str) -> None:
    assert f"`{code}`" in ERRORS


@pytest.mark.parametrize(("code", "status"), sorted(STATUS.items()))
def test_every_status_stands_beside_its_code(code: str, status: int) -> None:
    lines = [line for line in ERRORS.splitlines() if f"`{code}`" in line]
    assert any(str(status) in line for line in lines), lines


async def test_what_the_readme_has_typed_works_as_it_is_written(tmp_path: Path) -> None:
    """From a script: but for where the service is and the token, which its first block sets."""
    _, _, rest = (ROOT / "README.md").read_text().partition("\n## From a script\n")
    _, *commands = re.findall(r"^```sh\n(.*?)^```$", rest.partition("\n## ")[0], re.MULTILINE | re.DOTALL)
    assert len(commands) > 4
    vms = (Vm(name="vm-web-01", uuid=numbered_uuid(1)),)
    with running_service(tmp_path, LIBVIRT_URI=node(tmp_path / "node.xml", vms)) as service:
        async with Api.of(service) as api:
            await api.connected()
        (tmp_path / "var").mkdir()
        (tmp_path / "var" / "dumps").symlink_to(service.dump_dir)
        script = "\n".join((f"URL={service.url} TOKEN={service.token}", *commands))
        command = ("bash", "-euo", "pipefail", "-c", script)
        bash = await asyncio.create_subprocess_exec(*command, cwd=tmp_path, stdout=PIPE, stderr=PIPE)
        said, complained = (text.decode() for text in await bash.communicate())
        assert (bash.returncode, complained) == (0, "")
        (manifest,) = (json.loads(file.read_text()) for file in service.dump_dir.glob("*.manifest.json"))
    for name in ("sha256", "stored_sha256"):
        assert said.count(manifest[name]) == 3, said  # in the list of records, in its manifest, by the tool
    assert '"total_dumps":1' in said
