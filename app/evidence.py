"""Dumps on disk: their names, the order in which they come to exist, and what a crash may leave of that order.

A dump comes to exist in five steps, each durable before the next: the dump is synced as ``NAME.partial``; its manifest
is synced as ``NAME.manifest.json.partial``; the dump is linked to ``NAME``; the manifest is linked to
``NAME.manifest.json`` **which is the moment from which the dump exists**; the folder is synced. Links never overwrite.
While a capture writes, it holds ``flock`` on the dump's partial file, so a partial file that nobody locks belongs to a
capture that is dead for certain.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from app.errors import MemoryDumpsError
from app.model import Algorithm, Manifest, check_values

SUFFIXES: dict[Algorithm, str] = {"gzip": ".mem.gz", "zstd": ".mem.zst", "lz4": ".mem.lz4", "none": ".mem"}
PARTIAL = ".partial"
MANIFEST = ".manifest.json"
_MOST_BYTES = 16 * 2**20  # of a manifest; its longest part, the domain's XML, has some thousand


class ManifestDamaged(MemoryDumpsError):
    """A manifest cannot be read or is not one."""

    code = "manifest-damaged"


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What a tidying found: dumps whose seal was finished, partial files removed, and what is left with the reason."""

    finished: tuple[Path, ...]
    removed: tuple[Path, ...]
    kept: tuple[tuple[Path, str], ...]


def dump_name(vmid: str, epoch_sec: int, algorithm: Algorithm, attempt: int = 1) -> str:
    """``101_1699520400.mem.gz``; from the second attempt on ``101_1699520400-2.mem.gz``."""
    again = "" if attempt == 1 else f"-{attempt}"
    return f"{vmid}_{epoch_sec}{again}{SUFFIXES[algorithm]}"


def manifest_path(dump: Path) -> Path:
    """Where the manifest of ``dump`` stands: beside it, its whole name and ``.manifest.json``."""
    return dump.with_name(dump.name + MANIFEST)


def partial_path(final: Path) -> Path:
    """Where ``final`` grows before it is whole."""
    return final.with_name(final.name + PARTIAL)


def encode_manifest(manifest: Manifest) -> bytes:
    """The manifest as it stands on disk: JSON, indented, with a newline at its end."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def read_manifest(path: Path) -> Manifest:
    """The manifest in ``path``. Raises ``ManifestDamaged``; ignores names that a later version added."""
    try:
        manifest = msgspec.json.decode(_text_of(path), type=Manifest)
        check_values(manifest)
    except (OSError, msgspec.MsgspecError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ManifestDamaged(f"The manifest {_shown(path)} cannot be read: {why}") from error
    return manifest


def _text_of(path: Path) -> bytes:
    """What stands in the file. Anything may have such a name: a FIFO would be waited for, a disk image fill the memory."""
    if not path.is_file() and path.exists():
        raise ValueError("it is not a file")
    with path.open("rb") as file:
        text = file.read(_MOST_BYTES + 1)
    if len(text) > _MOST_BYTES:
        raise ValueError(f"it is longer than {_MOST_BYTES} bytes")
    return text


def _shown(path: Path) -> str:
    """The path as a text that can be told: names of files are bytes, and need not be UTF-8."""
    return os.fsencode(path).decode(errors="backslashreplace")


def manifests(dump_dir: Path) -> Iterator[tuple[Path, Manifest | ManifestDamaged]]:
    """Every manifest in ``dump_dir`` by name, each read, or the error that it gave."""
    for path in sorted(dump_dir.glob(f"*{MANIFEST}")):
        try:
            yield path, read_manifest(path)
        except ManifestDamaged as error:
            yield path, error


def publish(dump: Path) -> None:
    """Steps three to five: give the synced partial files of ``dump`` their names, manifest last, and sync the folder.

    May be called again after a crash at any point of itself. Raises ``FileExistsError`` if a name is taken by another
    file, which is then left as it is; else ``OSError``.
    """
    for final in (dump, manifest_path(dump)):
        partial = partial_path(final)
        try:
            os.link(partial, final, follow_symlinks=False)
        except FileExistsError:
            if not final.samefile(partial):
                raise
        sync_folder(final.parent)
    for final in (manifest_path(dump), dump):
        with contextlib.suppress(OSError):  # the dump exists; a second name that stays is tidied at the next start
            partial_path(final).unlink()


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def finish_partials(dump_dir: Path) -> Leftovers:
    """Finish every seal that a crash cut short and can be finished; remove the partial files of dead captures.

    Touches nothing whose capture may live. Raises ``OSError`` only if the folder itself cannot be read.
    """
    finished: list[Path] = []
    removed: list[Path] = []
    kept: list[tuple[Path, str]] = []
    found = (_dump_of(partial) for partial in sorted(dump_dir.glob(f"*{PARTIAL}")))
    for dump in dict.fromkeys(dump for dump in found if dump is not None):
        try:
            _finish(dump, finished, removed, kept)
        except OSError as error:
            kept.append((partial_path(dump), error.strerror or str(error)))
    return Leftovers(tuple(finished), tuple(removed), tuple(kept))


def _dump_of(partial: Path) -> Path | None:
    """The dump that ``partial`` was to be, or None if it is not a partial file of ours."""
    name = partial.name.removesuffix(PARTIAL).removesuffix(MANIFEST)
    return partial.with_name(name) if name.endswith(tuple(SUFFIXES.values())) else None


def _finish(dump: Path, finished: list[Path], removed: list[Path], kept: list[tuple[Path, str]]) -> None:
    """Deal with the partial files of one dump. They are locked while that happens, as a capture would."""
    partial, manifest_partial = partial_path(dump), partial_path(manifest_path(dump))
    with contextlib.ExitStack() as held:
        if partial.exists():
            descriptor = os.open(partial, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            held.callback(os.close, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                kept.append((partial, "its capture is still running"))
                return
        if not _published(dump, partial) and _whole(partial, manifest_partial):
            try:
                publish(dump)
                finished.append(dump)
            except FileExistsError:
                kept.append((partial, f"{dump.name} is taken by another file"))
            return
        for path in (manifest_partial, partial):
            if path.exists():
                path.unlink()
                removed.append(path)


def _published(dump: Path, partial: Path) -> bool:
    """Whether the dump exists already, and the partial files are but second names of its files."""
    if not manifest_path(dump).exists() or not dump.exists():
        return False
    return not partial.exists() or dump.samefile(partial)


def _whole(partial: Path, manifest_partial: Path) -> bool:
    """Whether both partial files are complete: the manifest is written only after the dump is synced."""
    try:
        return partial.stat().st_size == read_manifest(manifest_partial).gzip_size_bytes
    except (OSError, ManifestDamaged):
        return False
