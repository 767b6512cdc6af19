"""A private libvirt: its folder, its daemon, its guests; and how they are started, harmed and ended."""

from __future__ import annotations

import contextlib
import os
import pwd
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import libvirt

from demo.guest import Guest, GuestFiles
from demo.kernel import Kernel, busy_initrd, kernel

USER = "memdump-demo"
"""Who runs libvirtd and QEMU when we are root. ``setup/setup.sh`` makes this user."""

_KEEPER = Path(__file__).with_name("keeper.py")
_FOLDER_PREFIX = "memdump-demo-"
_LIBVIRTD_SEC = 30.0
_READY_SEC = 180.0
_STOP_SEC = 20.0
_DISK_BYTES = 16 << 20
_QEMU_CONF = 'stdio_handler = "file"\nsecurity_driver = "none"\n'  # consoles without virtlogd; no AppArmor profile to load


class LabError(RuntimeError):
    """The private libvirt, or a guest in it, did not do what it should."""


class PrivateLibvirt:
    """libvirtd and its guests in one temporary folder, run by an unprivileged user, all ended together.

    Reached by ``uri``. When this process ends, however it ends, everything else does too (see ``keeper.py``).
    """

    def __init__(self, folder: Path, keeper: subprocess.Popen[bytes]) -> None:
        """Use ``start``."""
        self.folder = folder
        self.uri = f"qemu:///session?socket={folder}/run/libvirt/libvirt-sock"
        self._keeper = keeper
        self._libvirtd_pid = 0

    @classmethod
    def start(cls) -> Self:
        """Start an empty one. Takes a second. Raises ``LabError`` or ``KernelMissing``."""
        libvirt.registerErrorHandler(lambda _context, _error: None, None)  # errors are raised, not printed
        boot, (uid, gid) = kernel(), _unprivileged()
        folder = _make_folder(boot, uid, gid)
        keeper = subprocess.Popen(
            [sys.executable, "-I", str(_KEEPER), str(folder), str(uid), str(gid)],
            cwd="/",
            env=_environment(folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        lab = cls(folder, keeper)
        try:
            lab.restart_libvirtd()
        except BaseException:
            lab.stop()
            raise
        return lab

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """End every guest, libvirtd and the keeper, and remove the folder. Nothing happens at the second call."""
        for pipe in (self._keeper.stdin, self._keeper.stdout):
            _pipe(pipe).close()
        try:
            code = self._keeper.wait(_STOP_SEC)
        except subprocess.TimeoutExpired:
            self._keeper.kill()
            self._keeper.wait()
            raise LabError(f"The private libvirt in {self.folder} did not end within {_STOP_SEC:g} s") from None
        if code != 0:
            raise LabError(f"The keeper of {self.folder} ended with {code}")

    def add(self, guest: Guest) -> None:
        """Define a guest, and start it if it is one that starts. It boots on by itself: see ``wait_ready``."""
        with self._defined(guest) as domain:
            if guest.starts:
                domain.createWithFlags(0 if guest.boots else libvirt.VIR_DOMAIN_START_PAUSED)

    def save(self, name: str, image: Path) -> None:
        """End a running guest, and keep its memory and its machine's state in the file ``image``, and its console beside that."""
        kept = self.folder / f"{name}.saved"
        with self.connection() as connection:
            connection.lookupByName(name).save(str(kept))
        kept.chmod(0o644)  # for the user of the libvirt that restores it
        shutil.copyfile(self._console(name), _console_beside(image))
        shutil.move(kept, image)

    def restore(self, guest: Guest, image: Path) -> None:
        """Define a guest and let it go on from where it was saved, here or elsewhere: a second or two instead of a boot."""
        with self._defined(guest) as domain:
            domain.connect().restoreFlags(
                str(image), domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE), libvirt.VIR_DOMAIN_SAVE_RUNNING
            )
        with self._console(guest.name).open("r+b") as console:  # QEMU has it open, and a demo guest says no more after READY
            console.write(_console_beside(image).read_bytes())

    @contextlib.contextmanager
    def _defined(self, guest: Guest) -> Iterator[libvirt.virDomain]:
        files = self._files_of(guest)
        files.marker.write_bytes(guest.marker)
        if guest.busy and not files.initrd.exists():
            shutil.copyfile(busy_initrd(), files.initrd)
        if guest.disk:
            files.disk.touch()
            os.truncate(files.disk, _DISK_BYTES)
            os.chown(files.disk, *_owner_of(self.folder))
        with self.connection() as connection:
            yield connection.defineXML(guest.xml(files))

    def wait_ready(self, name: str) -> None:
        """Until the guest has booted and filled its memory. Raises ``LabError`` if it ends before, or takes too long."""
        console, deadline = self._console(name), time.monotonic() + _READY_SEC
        with _ending(self.qemu_pid(name)) as ended:
            while f"READY {name}".encode() not in console.read_bytes():
                gone, _, _ = select.select([ended], [], [], 0.05)
                if gone or time.monotonic() > deadline:
                    tail = console.read_text(errors="replace")[-2000:]
                    raise LabError(f"{name} {'ended before it' if gone else 'took too long until it'} was ready: {tail}")

    @contextlib.contextmanager
    def connection(self) -> Iterator[libvirt.virConnect]:
        """A connection of one's own to the private libvirt."""
        connection = libvirt.open(self.uri)
        try:
            yield connection
        finally:
            connection.close()

    @property
    def libvirtd_pid(self) -> int:
        """The daemon that runs, or ran last."""
        return self._libvirtd_pid

    @property
    def keeper_pid(self) -> int:
        """The parent of everything in the folder."""
        return self._keeper.pid

    def qemu_pid(self, name: str) -> int:
        """The QEMU of a guest that runs. Raises ``FileNotFoundError`` if it does not."""
        return int((self.folder / "run/libvirt/qemu/run" / f"{name}.pid").read_text())

    def kill_libvirtd(self) -> None:
        """SIGKILL, and wait for its end. The guests run on."""
        with _ending(self._libvirtd_pid) as ended:
            os.kill(self._libvirtd_pid, signal.SIGKILL)
            if not select.select([ended], [], [], _LIBVIRTD_SEC)[0]:
                raise LabError("libvirtd survived SIGKILL")

    def restart_libvirtd(self) -> None:
        """Start the daemon (after ``kill_libvirtd``) and wait until it answers. It finds its guests again."""
        _pipe(self._keeper.stdin).write(b"start\n")
        _pipe(self._keeper.stdin).flush()
        answer = _pipe(self._keeper.stdout).readline()
        if not answer:
            raise LabError(f"The keeper ended: is libvirtd installed? {self._log()}")
        self._libvirtd_pid = int(answer)
        self._wait_until_it_answers()

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + _LIBVIRTD_SEC
        with _ending(self._libvirtd_pid) as ended:
            while True:
                try:
                    libvirt.open(self.uri).close()
                    return
                except libvirt.libvirtError as error:
                    gone, _, _ = select.select([ended], [], [], 0.02)
                    if gone or time.monotonic() > deadline:
                        raise LabError(f"The private libvirtd does not answer ({error}): {self._log()}") from error

    def _log(self) -> str:
        log = self.folder / "libvirtd.log"
        return log.read_text(errors="replace")[-2000:] if log.exists() else ""

    @property
    def _guests(self) -> Path:
        return self.folder / "guests"

    def _console(self, name: str) -> Path:
        return self._guests / f"{name}.console"

    def _files_of(self, guest: Guest) -> GuestFiles:
        return GuestFiles(
            kernel=self.folder / "vmlinuz",
            initrd=self.folder / ("initrd-busy" if guest.busy else "initrd"),
            marker=self._guests / f"{guest.name}.marker",
            console=self._console(guest.name),
            disk=self._guests / f"{guest.name}.disk",
        )


def _console_beside(image: Path) -> Path:
    return image.with_name(f"{image.name}.console")


def _make_folder(boot: Kernel, uid: int, gid: int) -> Path:
    """A folder for that user alone. Right below /tmp: the path of a socket has room for 107 bytes, and QEMU's are long.

    Holds copies of kernel and initrd, for the user may not be able to reach the checkout.
    """
    folder = Path(tempfile.mkdtemp(prefix=_FOLDER_PREFIX, dir="/tmp"))
    for name in ("run", "config/libvirt", "cache", "data", "guests"):
        (folder / name).mkdir(parents=True)
    (folder / "config/libvirt/qemu.conf").write_text(_QEMU_CONF)
    shutil.copyfile(boot.image, folder / "vmlinuz")
    shutil.copyfile(boot.initrd, folder / "initrd")
    for path in (folder, *folder.rglob("*")):
        os.chown(path, uid, gid)
    return folder


def _environment(folder: Path) -> dict[str, str]:
    """All that libvirtd and QEMU see: nothing of this process's environment."""
    return {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C",
        "HOME": str(folder),
        "XDG_RUNTIME_DIR": str(folder / "run"),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "XDG_DATA_HOME": str(folder / "data"),
    }


def _unprivileged() -> tuple[int, int]:
    """uid and gid for libvirtd: our own, unless we are root. (As root, ``qemu:///session`` would be the system's daemon.)"""
    if os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    try:
        user = pwd.getpwnam(USER)
    except KeyError:
        raise LabError(f"There is no user {USER}. `make setup` makes it.") from None
    return user.pw_uid, user.pw_gid


def _owner_of(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_uid, found.st_gid


@contextlib.contextmanager
def _ending(pid: int) -> Iterator[int]:
    """A descriptor that becomes readable when the process ends."""
    descriptor = os.pidfd_open(pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise LabError("the keeper was started without pipes")
    return pipe
