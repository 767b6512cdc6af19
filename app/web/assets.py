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
from types import MappingProxyType

STATIC = Path(__file__).resolve().parent.parent / "static"

_TYPES = {
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
    ".html": "text/html",
    ".json": "application/json",
    ".txt": "text/plain",
}

_FOLDER_OF_OTHERS = "vendor"
_IN_A_SHEET = re.compile(rb'("[^"]*")|/\*.*?\*/\s*|\s*(?:;\s*(?=\}))?([{};])\s*|([,:])\s+|(?<=[\s(,])0(?=\.)|\s+', re.DOTALL)
_IN_A_MODULE = re.compile(rb"^(?:\s+|//.*\n|/\*(?:[^*]|\*(?!/))*\*/[ \t]*\n)+|(?<=[;,{}()]) // [^\"'`\n]*$", re.MULTILINE)
"""Comments and indentation are for who writes a file, not for every visitor. In a module nothing is taken away but what stands
before a line, whole lines of comment, and a comment at the end of one that has no quotation mark: it could be the end of a text.
No text of ours goes over several lines, and a test sees to that."""


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
        self.tag = _tag(all_of_them.encode())[:8]  # each page names it some forty times

    @classmethod
    def read(cls, folder: Path = STATIC, made: Mapping[str, str] = MappingProxyType({})) -> Assets:
        """Read every file below ``folder`` (a few hundred KiB). Blocks; for the start. ``made`` are further ones, as text."""
        paths = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
        found = {path.as_posix(): _asset(path, (folder / path).read_bytes()) for path in paths}
        return cls(found | {path: _asset(Path(path), text.encode()) for path, text in made.items()})

    def get(self, path: str) -> Asset | None:
        """The file at ``path``: a look into a table, so there is no way out of the folder."""
        return self._files.get(path)

    def url(self, path: str) -> str:
        """Where a page finds the file. Raises ``KeyError``."""
        if path not in self._files:
            raise KeyError(path)
        return f"/static/{self.tag}/{path}"


def _asset(path: Path, body: bytes) -> Asset:
    if path.parts[0] != _FOLDER_OF_OTHERS:
        body = _dense(path.suffix, body)
    content_type = _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return Asset(body, content_type, _tag(body))


def _dense(suffix: str, body: bytes) -> bytes:
    """A file of ours without what only its writers need."""
    if suffix == ".css":
        return _IN_A_SHEET.sub(lambda found: found[1] or found[2] or found[3] or (b" " if found[0].isspace() else b""), body)
    return _IN_A_MODULE.sub(b"", body) if suffix == ".js" else body


def _tag(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
