"""Where it is measured: a guest of 1 GiB with 300 MiB of random bytes, and a real service that dumps it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from demo import Guest, PrivateLibvirt
from tests.service import Service, running_service

GUEST = Guest(name="vm-bench-01", vmid="901", memory_mib=1024, text_mib=64, random_mib=300)
SECOND = Guest(name="vm-bench-02", vmid="902", memory_mib=1024, text_mib=64, random_mib=300)
LARGE = Guest(name="vm-bench-03", vmid="903", memory_mib=3584, text_mib=64, random_mib=300)
EMPTY = Guest(name="vm-bench-04", vmid="904", memory_mib=3584, text_mib=16, random_mib=16)
BUSY = Guest(name="vm-bench-05", vmid="905", memory_mib=1024, text_mib=64, random_mib=64, rewrites_mib=200)
GUESTS = (GUEST, SECOND, LARGE, EMPTY)
"""They do nothing; ``BUSY`` takes a core for itself, and is there only where it is measured."""

_JOB_SEC = 300.0

Dumped = tuple[float, list[dict[str, Any]]]
"""Seconds from the request until every dump was sealed and recorded, and the manifests."""


@dataclass(frozen=True, slots=True)
class Stage:
    """The private libvirt and a folder that its user and we can write."""

    lab: PrivateLibvirt
    folder: Path

    def scratch(self, name: str) -> Path:
        """A path that libvirtd's own user may write."""
        return self.lab.folder / "guests" / name

    def give(self, path: Path) -> None:
        """Let libvirtd's user own ``path``."""
        owner = self.lab.folder.stat()
        os.chown(path, owner.st_uid, owner.st_gid)


@contextlib.contextmanager
def stage(folder: Path, guests: Sequence[Guest]) -> Iterator[Stage]:
    """The guests, ready."""
    with PrivateLibvirt.start() as lab:
        for guest in guests:
            lab.add(guest)
        for guest in guests:
            lab.wait_ready(guest.name)
        yield Stage(lab, folder)


@contextlib.contextmanager
def present(on: Stage, guest: Guest) -> Iterator[None]:
    """One more guest, ready, for as long as the block lasts."""
    on.lab.add(guest)
    on.lab.wait_ready(guest.name)
    try:
        yield
    finally:
        with on.lab.connection() as connection:
            connection.lookupByName(guest.name).destroy()


@contextlib.contextmanager
def service(on: Stage, name: str, **settings: str) -> Iterator[Service]:
    """A service of its own for one measurement."""
    with running_service(on.folder / name, LIBVIRT_URI=on.lab.uri, **settings) as started:
        yield started


def dump(by: Service, guests: Sequence[Guest], algorithm: str, mode: str = "paused") -> Dumped:
    """Ask for dumps and wait for them; their files are removed."""
    seconds, manifests = asyncio.run(_dump(by, [guest.name for guest in guests], algorithm, mode))
    for manifest in manifests:
        Path(manifest["dump_path"]).unlink()
        Path(manifest["dump_path"] + ".manifest.json").unlink()
    os.sync()
    return seconds, manifests


async def _dump(by: Service, names: Sequence[str], algorithm: str, mode: str) -> Dumped:
    async with (
        aiohttp.ClientSession(by.url, headers=by.headers, timeout=aiohttp.ClientTimeout(_JOB_SEC)) as session,
        session.ws_connect("/api/memory-dumps/ws", params={"topics": "job,record"}) as feed,
    ):
        await feed.receive_json()
        started = time.monotonic()
        body = {"vm_ids": list(names), "compression": algorithm, "mode": mode}
        async with session.post("/api/memory-dumps/trigger", json=body) as answer:
            answer.raise_for_status()
            jobs = {job["job_id"] for job in (await answer.json())["jobs"]}
        manifests: list[dict[str, Any]] = []
        while jobs:
            change = json.loads(await feed.receive_str(timeout=_JOB_SEC))
            if change["type"] == "alive":
                continue
            if change["type"] == "record":
                manifests.append(change["record"])
            elif change["job"]["phase"] in ("failed", "cancelled", "interrupted"):
                raise RuntimeError(f"a dump failed: {change['job']['error']}")
            elif change["job"]["phase"] == "completed":
                jobs.discard(change["job"]["job_id"])
        return time.monotonic() - started, manifests
