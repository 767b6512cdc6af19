"""Guests of many shapes, each for one test, in one private libvirt."""

from __future__ import annotations

import contextlib
import fcntl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.capture.connection import connect
from app.capture.patience import Patience
from demo import Guest, PrivateLibvirt
from tests.lab import running_lab

Stand = Callable[[Guest], None]
"""Starts a guest and returns when it stands still."""

HUGE_PAGES = Path("/proc/sys/vm/nr_hugepages")
HUGE_PAGE_MIB = 2


@pytest.fixture(scope="package")
def shapes() -> Iterator[PrivateLibvirt]:
    """A private libvirt for guests that are thrown away."""
    with running_lab() as lab:
        connect(lab.uri, Patience()).close()  # starts libvirt's event loop, whose thread stays as long as the process
        yield lab


@pytest.fixture
def stand(shapes: PrivateLibvirt) -> Iterator[Stand]:
    """Guests that stand still: suspended when Linux is up in them, or never started. They end with the test."""
    names = []

    def start(guest: Guest) -> None:
        names.append(guest.name)
        shapes.add(guest)
        if guest.boots:
            shapes.wait_ready(guest.name)
            with shapes.connection() as connection:
                connection.lookupByName(guest.name).suspend()

    yield start
    with shapes.connection() as connection:
        for name in names:
            connection.lookupByName(name).destroy()


@contextlib.contextmanager
def huge_pages(lab: PrivateLibvirt, size_mib: int) -> Iterator[None]:
    """So much more of the host set aside in huge pages, and a place for files of them that ``lab`` knows; needs root.

    What a guest still has of them at the end is given back with its own end. libvirtd starts anew for it.
    """
    place, owner = lab.folder / "huge", lab.folder.stat()
    place.mkdir()
    options = f"uid={owner.st_uid},gid={owner.st_gid},pagesize={HUGE_PAGE_MIB}M"
    with HUGE_PAGES.open("r+") as setting:
        fcntl.flock(setting, fcntl.LOCK_EX)  # another run of the tests may be here, too
        before = setting.read()
        HUGE_PAGES.write_text(str(int(before) + size_mib // HUGE_PAGE_MIB))
        subprocess.run(["mount", "-t", "hugetlbfs", "-o", options, "none", str(place)], check=True)
        try:
            with (lab.folder / "config/libvirt/qemu.conf").open("a") as conf:
                conf.write(f'hugetlbfs_mount = "{place}"\n')
            lab.kill_libvirtd()
            lab.restart_libvirtd()
            yield
        finally:
            subprocess.run(["umount", "--lazy", str(place)], check=True)
            HUGE_PAGES.write_text(before)
