"""Bytes → SHA-256, compression, SHA-256, disk: one pass on a few threads, then the names, in the order of ``evidence``.

Each raw block travels in a *slot*: hashed and packed at the same time, written and hashed again in order, then its
buffer is used again. The number of slots bounds the memory, however large the guest is. ``hashlib``, ISA-L, zstd and
lz4 release the GIL on buffers of this size, so the threads do run beside each other.

Where there are few processors they would run in the place of what the guest waits for: QEMU, which writes its memory, and
who reads it. There, while it stands still, nothing is hashed or packed before the buffers run short.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from app.capture.codecs import BLOCK_BYTES, Codec, Pieces
from app.capture.patience import Patience
from app.capture.room import FULL, free_bytes, reserve
from app.capture.slots import Slot, Slots
from app.errors import RUNS_ON, CaptureError, DumpDirUnusable, NoSpace, SealFailed
from app.evidence import dump_name, encode_manifest, manifest_path, partial_path, publish
from app.model import Compression, Manifest

SLOTS = 160
"""Blocks under way at once: 160 MiB of raw buffers; of what cannot be compressed nothing is copied."""

SHORT = 16
"""Buffers left when the threads have to begin: so many that the reader need not wait for the first that comes back."""

_PROCESSORS_OF_A_DUMP = 3  # for QEMU, libvirt's iohelper and the reader
_PACKERS = max(1, min(4, (os.cpu_count() or 1) - 1))
_WRITE_BACK_BYTES = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What was written: lengths in bytes, hashes as lowercase hex; ``stat`` times in epoch seconds."""

    raw_size_bytes: int
    sha256: str
    stored_size_bytes: int
    stored_sha256: str
    compression: Compression
    ctime: int
    mtime: int
    atime: int


class Seal:
    """One dump while it is being made. Left without ``publish``, nothing of it stays."""

    def __init__(self, dump_dir: Path, vmid: str, epoch_sec: int, codec: Codec, reserve_bytes: int) -> None:
        """Takes a name and reserves room for ``reserve_bytes``, for the worst case, so that running captures cannot
        promise themselves the same room. Raises ``NoSpace`` or ``DumpDirUnusable``."""
        self._codec = codec
        self._name: Callable[[int], Path] = lambda attempt: dump_dir / dump_name(vmid, epoch_sec, codec.algorithm, attempt)
        self._epoch_sec = epoch_sec
        self._attempt, self._file = _claim(self._name)
        self._dump = self._name(self._attempt)
        self._published = False
        try:
            reserve(self._file, dump_dir, reserve_bytes)
        except BaseException:
            self._discard()
            raise
        self._slots = Slots(SLOTS)
        self._hasher = ThreadPoolExecutor(1, "seal-hash")
        self._packers = ThreadPoolExecutor(_PACKERS, "seal-pack")
        self._writer = ThreadPoolExecutor(1, "seal-write")
        self._raw_hash, self._stored_hash = hashlib.sha256(), hashlib.sha256()
        self._packed_zeros: Future[Pieces] | None = None
        self._blocks: list[tuple[int, int]] = []
        self._stored_bytes = self._written_back = self._raw_bytes = 0
        self._failure: BaseException | None = None
        self._reader_first = False
        self._may_work = threading.Event()
        self._may_work.set()

    def brace(self) -> None:
        """Do beforehand what would otherwise be done while the guest stands still, and leave for afterwards what can wait."""
        self._slots.fault_in()
        self._reader_first = len(os.sched_getaffinity(0)) <= _PROCESSORS_OF_A_DUMP

    def take(self, patience: Patience) -> Slot:
        """A slot to fill. Waits for one; raises what went wrong behind, or what ``patience`` raises."""
        while True:
            self._raise_failure()
            patience.check()
            self._share_processors()
            with contextlib.suppress(queue.Empty):
                return self._slots.take(0.1)

    def put(self, slot: Slot, length: int) -> None:
        """Send the first ``length`` bytes of a slot on; all blocks but the last are full."""
        block = self._slots.filled(slot, length)
        self._raw_bytes += length
        hashed = self._hasher.submit(self._hash, block)
        packed = self._zeros(block) if block.blank else self._packers.submit(self._pack, block, hashed)
        self._writer.submit(self._write, block, hashed, packed)

    def all_read(self) -> None:
        """No guest waits for its reader any more: the threads may have every processor."""
        self._may_work.set()

    def finish(self, patience: Patience) -> Image:
        """Wait until everything is written and synced. Raises ``NoSpace``, ``SealFailed``, or what ``patience`` raises."""
        self.all_read()
        last = self._writer.submit(lambda: None)
        while not last.done():
            self._raise_failure()
            patience.check()
            wait((last,), timeout=0.1)
        self._raise_failure()
        try:
            self._append((self._codec.table(self._blocks),))
            os.ftruncate(self._file, self._stored_bytes)
            os.fsync(self._file)
            stat = os.fstat(self._file)
        except OSError as error:
            raise self._as_ours(error) from error
        return Image(
            raw_size_bytes=self._raw_bytes,
            sha256=self._raw_hash.hexdigest(),
            stored_size_bytes=self._stored_bytes,
            stored_sha256=self._stored_hash.hexdigest(),
            compression=Compression(algorithm=self._codec.algorithm, level=self._codec.level, block_bytes=BLOCK_BYTES),
            ctime=self._epoch_sec,
            mtime=int(stat.st_mtime),
            atime=int(stat.st_atime),
        )

    def publish(self, describe: Callable[[Path], Manifest]) -> Manifest:
        """Give the finished dump its name and its manifest, which ``describe`` makes for that name.

        If somebody took the name meanwhile, the next one. Raises ``NoSpace`` or ``SealFailed``.
        """
        try:
            while True:
                manifest = describe(self._dump)
                _write_synced(partial_path(manifest_path(self._dump)), encode_manifest(manifest))
                try:
                    publish(self._dump)
                    self._published = True
                    return manifest
                except FileExistsError:
                    self._rename()
                except OSError:
                    if not _is_second_name(manifest_path(self._dump)):
                        raise
                    self._published = True  # it exists; whether its name outlives a power cut, the disk would not say
                    return manifest
        except OSError as error:
            raise self._as_ours(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.all_read()
        for threads in (self._hasher, self._packers, self._writer):
            threads.shutdown(wait=True, cancel_futures=True)
        self._discard()

    def _zeros(self, slot: Slot) -> Future[Pieces]:
        """The packed form of a block of zeros, made once."""
        if self._packed_zeros is None:
            self._packed_zeros = self._packers.submit(self._codec.pack, slot.buffer)
        return self._packed_zeros

    def _share_processors(self) -> None:
        if not self._reader_first or self._slots.left() < SHORT:
            self._may_work.set()
        else:
            self._may_work.clear()

    # -- on the threads

    def _hash(self, slot: Slot) -> None:
        self._may_work.wait()
        self._raw_hash.update(slot.buffer[: slot.length])

    def _pack(self, slot: Slot, hashed: Future[None]) -> Pieces:
        hashed.result()  # no sooner: of a block that waits everything is left for when the guest runs again
        self._may_work.wait()
        return self._codec.pack(slot.buffer[: slot.length])

    def _write(self, slot: Slot, hashed: Future[None], packed: Future[Pieces]) -> None:
        if self._failure is None:
            try:
                hashed.result()  # before its slot is given back
                self._blocks.append((self._append(packed.result()), slot.length))
            except BaseException as error:  # noqa: BLE001 - raised again by take() or finish()
                self._failure = error
        slot.give_back()

    def _append(self, pieces: Pieces) -> int:
        """Hash and write; how many bytes that were."""
        for piece in pieces:
            self._stored_hash.update(piece)
        length = left = sum(map(len, pieces))
        while left:
            written = os.writev(self._file, pieces)
            left -= written
            if left:  # the disk took a part: go on behind it
                pieces = (memoryview(b"".join(pieces))[written:],)
        self._stored_bytes += length
        if self._stored_bytes - self._written_back >= _WRITE_BACK_BYTES:
            # Start writing back now, so that the fsync at the end is short and the host's page cache is left alone.
            os.posix_fadvise(self._file, self._written_back, self._stored_bytes - self._written_back, os.POSIX_FADV_DONTNEED)
            self._written_back = self._stored_bytes
        return length

    # -- its files

    def _raise_failure(self) -> None:
        if isinstance(self._failure, CaptureError):
            raise self._failure
        if self._failure is not None:
            raise self._as_ours(self._failure) from self._failure

    def _as_ours(self, error: BaseException) -> CaptureError:
        if isinstance(error, OSError) and error.errno in FULL:
            return NoSpace(str(self._dump.parent), self._stored_bytes, free_bytes(self._dump.parent))
        return SealFailed(f"The dump could not be written to {self._dump}: {error}. Nothing of it was kept.", guest=RUNS_ON)

    def _rename(self) -> None:
        """Move the partial file to the next free name, keeping its lock; what stands under the old name is not ours."""
        old_partial, old_manifest = partial_path(self._dump), partial_path(manifest_path(self._dump))
        if _is_second_name(self._dump):
            self._dump.unlink()  # the manifest's name was the one that is taken
        while True:
            self._attempt += 1
            dump = self._name(self._attempt)
            if _taken(dump):
                continue
            os.link(old_partial, partial_path(dump))
            break
        old_manifest.unlink(missing_ok=True)
        old_partial.unlink()
        self._dump = dump

    def _discard(self) -> None:
        if not self._published:
            if _is_second_name(self._dump):
                self._dump.unlink()
            partial_path(manifest_path(self._dump)).unlink(missing_ok=True)
            partial_path(self._dump).unlink(missing_ok=True)
        os.close(self._file)


def _is_second_name(final: Path) -> bool:
    """Whether ``final`` is the file that we wrote, and nobody else's."""
    with contextlib.suppress(FileNotFoundError):
        return final.samefile(partial_path(final))
    return False


def _taken(dump: Path) -> bool:
    return dump.exists() or manifest_path(dump).exists() or partial_path(dump).exists()


def _claim(name: Callable[[int], Path]) -> tuple[int, int]:
    """The first attempt whose name is free, and its new partial file, open and locked. Raises ``DumpDirUnusable``."""
    attempt = 1
    while True:
        dump = name(attempt)
        if not _taken(dump):
            try:
                descriptor = _new_partial(partial_path(dump))
            except FileExistsError:
                pass
            except OSError as error:
                there = error.errno == errno.ENOENT and dump.parent.is_dir()  # in /proc
                raise DumpDirUnusable(
                    f"Dumps cannot be written to {dump.parent}: {'no file can be made there' if there else error.strerror}. "
                    "Make the folder, make it writable, or set DUMP_DIR. The guest was not touched."
                ) from error
            else:
                if descriptor is not None:
                    return attempt, descriptor
                continue
        attempt += 1


def _new_partial(path: Path) -> int | None:
    """A new file at ``path``, open and locked; None if ``finish_partials`` came between and removed it as a dead capture's."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    with contextlib.suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), path.lstat()):
            return descriptor
    os.close(descriptor)
    return None


def _write_synced(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
