"""What is vendored is what was released, and is listed with its licence."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIST = (ROOT / "docs" / "vendored.md").read_text()
FOLDERS = (ROOT / "app" / "static" / "vendor", ROOT / "tests" / "vendor")


def test_the_list_has_every_vendored_file_with_its_hash() -> None:
    listed = {path: digest for digest, path in re.findall(r"^([0-9a-f]{64})  (\S+)$", LIST, re.MULTILINE)}
    files = [path for folder in FOLDERS for path in folder.rglob("*") if path.is_file()]
    assert listed == {path.relative_to(ROOT).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_each_has_its_licence_beside_it_and_a_row_of_its_own() -> None:
    for folder in (vendored for parent in FOLDERS for vendored in parent.iterdir()):
        assert any(file.name.startswith("LICENSE") for file in folder.iterdir()), folder
        assert re.search(rf"^\| {folder.name} \|", LIST, re.MULTILINE | re.IGNORECASE), folder
