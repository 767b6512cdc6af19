"""Real guests for tests: fixtures over ``demo/``. ``tests/conftest.py`` registers this module, so every ring has them.

``lab``       one private libvirt for the whole session with the guests below, booted and ready. Leave it as it is: its
              daemon alive, its guests running, no domain added.
``own_lab``   an empty one for this test alone (0.1 s), to be harmed at will: ``own_lab.add(COLD)`` takes half a second,
              ``add_ready(own_lab, WEB)`` a second or two. ``module_lab`` is the same for the tests of a module.

Under emulation the boot of a guest costs a processor for 4 to 30 seconds. So each guest boots once in a run of the tests;
wherever it is wanted, it goes on from there (``virDomainRestore``).

``lab.uri`` goes into ``running_service(tmp_path, LIBVIRT_URI=lab.uri)``. A guest's ``marker`` is at its ``marker_address``.

Processes of a lab carry nothing of the test's environment, and so are not what ``nothing_is_left_behind`` looks for.
They are looked for here, when their lab ends. FIFOs left in the lab's folder count for the test that left them.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo import Guest, PrivateLibvirt
from tests.conftest import watched_folders

WEB = Guest(name="vm-web-01", vmid="101")
"""256 MiB, Linux runs in it."""

DB = Guest(name="vm-db-01", vmid="102", disk=True)
"""As ``WEB``, with a disk."""

COLD = Guest(name="vm-cold-01", memory_mib=128, boots=False)
"""128 MiB that never change: ``paused`` before its first instruction."""

OFF = Guest(name="vm-off-01", memory_mib=192, vmid="104", starts=False)
"""Shut off."""

GUESTS = (WEB, DB, COLD, OFF)

COUNTING = Guest(name="vm-counts-01", memory_mib=192, text_mib=4, random_mib=4, counts=True)
"""Of no ``lab``: its virtual CPU never rests, and whether it runs can be seen without libvirt."""

BUSY = Guest(name="vm-busy-01", memory_mib=256, text_mib=4, random_mib=4, vcpus=2, rewrites_mib=128)
"""Of no ``lab``: to stop for 20 ms only, it would have to be read at 6.7 GB/s; for 3 s, at 45 MB/s. On two processors, for on
a busy host one may for a while not get to write."""


SAVED = "MEMORY_DUMPS_TEST_GUESTS"
"""Names the folder of the guests that booted in this run, for all its processes."""


def pytest_configure() -> None:
    if SAVED not in os.environ:
        folder = Path(tempfile.mkdtemp(prefix="memdump-guests-", dir="/tmp"))
        folder.chmod(0o711)  # libvirt's user reads what is in it
        os.environ[SAVED] = str(folder)


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # the process that all the others of a run are children of
        shutil.rmtree(os.environ.pop(SAVED))


def add_ready(lab: PrivateLibvirt, guest: Guest) -> None:
    """Add a guest in which Linux has booted, filled its memory and said so."""
    image = Path(os.environ[SAVED]) / f"{guest.name}-{hashlib.sha256(repr(guest).encode()).hexdigest()[:16]}"
    with image.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not image.exists():
            lab.add(guest)
            lab.wait_ready(guest.name)
            lab.save(guest.name, image)
    lab.restore(guest, image)


@pytest.fixture(scope="session")
def lab() -> Iterator[PrivateLibvirt]:
    """``GUESTS``, ready, for the whole session."""
    with running_lab() as started:
        for guest in GUESTS:
            if guest.starts and guest.boots:
                add_ready(started, guest)
            else:
                started.add(guest)
        yield started


@pytest.fixture
def own_lab() -> Iterator[PrivateLibvirt]:
    """A private libvirt without guests, for one test."""
    with running_lab() as started:
        yield started


@pytest.fixture(scope="module")
def module_lab() -> Iterator[PrivateLibvirt]:
    """A private libvirt without guests, for one module: its tests harm it, and leave it well."""
    with running_lab() as started:
        yield started


@contextlib.contextmanager
def running_lab() -> Iterator[PrivateLibvirt]:
    """A private libvirt, and the proof that nothing of it is left."""
    with PrivateLibvirt.start() as started:
        watched_folders.add(started.folder)
        try:
            yield started
        finally:
            watched_folders.discard(started.folder)
    left = processes_of(started.folder)
    if left or started.folder.exists():
        raise AssertionError(f"The private libvirt in {started.folder} left behind: {left or 'its folder'}")


def processes_of(folder: Path) -> dict[int, str]:
    """The living processes of the private libvirt in ``folder``: pid and command line."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile, or is not ours to read
            command = (process / "cmdline").read_bytes()
            # libvirtd has the folder in its environment alone, QEMU and the keeper in their arguments
            if str(folder).encode() in command + (process / "environ").read_bytes():
                found[int(process.name)] = command.replace(b"\0", b" ").decode(errors="replace")[:200]
    return found
