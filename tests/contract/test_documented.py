"""Every setting, error code and exit code that the product has is described in its documentation, and nothing else is."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator

import pytest

import app
from app.config import KNOWN_NAMES
from app.errors import MemoryDumpsError
from app.web.errors import STATUS
from tests.service import ROOT

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
