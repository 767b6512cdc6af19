"""The static files: read once at the start, served from memory, below one folder that is named by what all of them contain.

Modules import each other by relative names, so every one of them, not only those that a page names, has an address that changes
with the content, and may be kept for ever.
"""

from __future__ import annotations

import hashlib
import mimetypes
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

STATIC = Path(__file__).resolve().parent.parent / "static"

_TYPES = {
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
    ".json": "application/json",
    ".txt": "text/plain",
}

_COMMENT = re.compile(rb"[ \t]*/\*(?!!).*?\*/", re.DOTALL)
"""Of a style sheet: for who writes it, not for every visitor. One that begins with ``/*!``, a licence, stays."""


@dataclass(frozen=True, slots=True)
class Asset:
    """One file. ``tag`` is the head of its SHA-256."""

    body: bytes
    content_type: str
    tag: str


class Assets:
    """All files below a folder, by their relative path with slashes. ``tag`` changes when any of them does."""

    def __init__(self, files: Mapping[str, Asset]) -> None:
        self._files = dict(files)
        all_of_them = "\n".join(f"{asset.tag} {path}" for path, asset in sorted(self._files.items()))
        self.tag = _tag(all_of_them.encode())

    @classmethod
    def read(cls, folder: Path = STATIC) -> Assets:
        """Read every file below ``folder`` (a few hundred KiB). Blocks; for the start."""
        return cls({path.relative_to(folder).as_posix(): _read(path) for path in sorted(folder.rglob("*")) if path.is_file()})

    def get(self, path: str) -> Asset | None:
        """The file at ``path``: a look into a table, so there is no way out of the folder."""
        return self._files.get(path)

    def url(self, path: str) -> str:
        """Where a page finds the file. Raises ``KeyError``."""
        if path not in self._files:
            raise KeyError(path)
        return f"/static/{self.tag}/{path}"


def _read(path: Path) -> Asset:
    body = path.read_bytes()
    if path.suffix == ".css":
        body = _COMMENT.sub(b"", body)
    content_type = _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return Asset(body, content_type, _tag(body))


def _tag(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
