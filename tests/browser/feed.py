"""A page's live feed as a test writes it: for states that no small machine gets into, such as ten guests dumped at once.

The service still renders the page and answers its requests; only what is pushed comes from here, in the service's own shapes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import Struct
from playwright.async_api import Error, Page, WebSocketRoute

from app import model
from app.model import Fault, Link, Phase, rfc3339
from app.web.answers import Activity, Job, Record, Vm, encode
from app.web.messages import Alive, Hypervisor, ProgressMessage
from tests.nodes import numbered_uuid

FEED = "**/api/memory-dumps/ws*"
MIB, GIB = 2**20, 2**30
NAMES = (
    "vm-web-01", "vm-web-02", "vm-db-01", "mail-gateway", "build-runner-3", "vpn-01", "grafana", "registry", "postgres-replica",
    "win2022-ad",
)  # fmt: skip
STRANGE_NAMES = ("<img src=x onerror=alert(1)>", "\u202eniam-liam", "🦊🦊 café", "long-" + "name-without-end-" * 11 + "0123456")
"""Markup, letters that turn the direction round, emoji, 200 characters."""

Noun = Vm | Job | Record | Activity | Hypervisor | model.Stats | model.Room


class Feed:
    """What one page hears. Say something only after ``take``, a visit and ``opened``."""

    def __init__(self) -> None:
        self._open: list[WebSocketRoute] = []
        self._opened = asyncio.Event()
        self.refusing = False

    async def take(self, page: Page) -> None:
        """From the next visit on."""
        await page.route_web_socket(FEED, self._begin)

    async def opened(self) -> None:
        """Wait until the page has connected."""
        await self._opened.wait()

    def say(self, topic: str, noun: Noun | Iterable[Noun]) -> None:
        """One change: ``say("job", job(1))``."""
        self.send({"type": topic, topic: noun if isinstance(noun, Struct) or not isinstance(noun, Iterable) else list(noun)})

    def send(self, message: object) -> None:
        """One message, whole."""
        for socket in self._open:
            socket.send(encode(message).decode())

    async def hang_up(self) -> None:
        """The connection breaks, and as long as ``refusing`` is set no other comes about."""
        sockets, self._open = self._open, []
        for socket in sockets:
            with contextlib.suppress(Error):  # the page was left meanwhile
                await socket.close(code=1012)

    async def _begin(self, socket: WebSocketRoute) -> None:
        if self.refusing:
            await socket.close(code=1012)
            return
        self._open.append(socket)
        socket.on_close(lambda _code, _reason: self._open.remove(socket) if socket in self._open else None)
        self.send(Alive(now=rfc3339(datetime.now(UTC))))
        self._opened.set()


def ago(seconds: float) -> str:
    """A moment in the past, as the service writes it."""
    return rfc3339(datetime.now(UTC) - timedelta(seconds=seconds))


def vm(number: int, **changes: Any) -> Vm:
    """The ``number``th VM, from 1; running unless ``changes`` say otherwise."""
    name = NAMES[(number - 1) % len(NAMES)] if number <= len(NAMES) else f"vm-{number:03d}"
    usual: dict[str, Any] = {
        "id": number, "vmid": str(100 + number), "name": name, "uuid": numbered_uuid(number), "state": "running",
        "memory_bytes": (1 << number % 5) * GIB, "vcpus": 1 + number % 4, "hypervisor": "kvm-07", "last_dump": None, "alarm": None,
    }  # fmt: skip
    return Vm(**usual | changes)


def hypervisor(state: Link = Link.CONNECTED, message: str | None = None) -> Hypervisor:
    """The one that the VMs are of."""
    return Hypervisor(name="kvm-07", uri="qemu:///system", state=state, since=ago(90), message=message)


def job(number: int, phase: Phase = Phase.CAPTURING, **changes: Any) -> Job:
    """The dump of the ``number``th VM."""
    of = vm(number)
    code = {Phase.FAILED: "capture-failed", Phase.CANCELLED: "cancelled", Phase.INTERRUPTED: "interrupted"}.get(phase)
    usual: dict[str, Any] = {
        "job_id": f"job-{number}", "trigger_id": "trigger-1", "vm_id": of.vmid, "dom": of.name, "uuid": of.uuid, "phase": phase,
        "mode": "auto", "compression": "gzip", "max_pause_ms": None, "reason": "suspicious traffic", "case": "C-2026-17",
        "operator": "admin", "requested_at": ago(20), "started_at": None if phase is Phase.QUEUED else ago(18),
        "finished_at": ago(0) if phase.final else None, "progress": None,
        "error": Fault(code, f"QEMU ended while the memory of {of.name} was read. The guest runs. Try again.") if code else None,
        "dump_id": None, "guest_pause_ms": 14.2 if phase is Phase.COMPLETED else None, "warnings": (),
    }  # fmt: skip
    return Job(**usual | changes)


def progress(number: int, share: float, **changes: Any) -> ProgressMessage:
    """How far the ``number``th VM's dump is: ``share`` from 0 to 1."""
    total = vm(number).memory_bytes
    rate = (180 + 40 * ((number * 7 + int(share * 97)) % 11)) * float(MIB)
    usual: dict[str, Any] = {
        "job_id": f"job-{number}", "phase": Phase.CAPTURING, "bytes_done": int(total * share), "bytes_total": total,
        "rate_bytes_per_sec": rate, "eta_sec": total * (1 - share) / rate, "guest_paused": False, "iteration": 1, "mode": "live",
    }  # fmt: skip
    return ProgressMessage(**usual | changes)


def record(number: int, **changes: Any) -> Record:
    """A dump that the ``number``th VM has now."""
    of = vm(number)
    seconds = int(datetime.now(UTC).timestamp())
    usual: dict[str, Any] = {
        "dump_id": f"0199aaaa-0000-7000-8000-{seconds % 10**6:06d}{number:06d}", "timestamp": ago(3), "dom": of.name,
        "vmid": of.vmid, "uuid": of.uuid, "hypervisor": "kvm-07", "uri": "qemu:///system", "mode": "live",
        "format": "elf", "captured_at": ago(1), "guest_pause_ms": 14.2, "guest_pauses_ms": (14.2,), "duration_sec": 2.31,
        "raw_size_bytes": of.memory_bytes, "sha256": f"{number:02x}" * 32, "gzip_size_bytes": of.memory_bytes // 4,
        "stored_sha256": f"{number + 99:02x}" * 32,
        "compression": model.Compression(algorithm="gzip", level=1, block_bytes=MIB), "ctime": seconds, "mtime": seconds,
        "atime": seconds, "dump_path": f"/var/dumps/{of.vmid}_{seconds}.mem.gz", "operator": "admin", "reason": None, "case": None,
        "versions": model.Versions(memory_dumps="0.1.0", libvirt="9.0.0", qemu="7.2.22"), "warnings": (),
    }  # fmt: skip
    return Record(**usual | changes)


def line(number: int, **changes: Any) -> Activity:
    """A line of the activity log: by ``number`` a success, an error, or merely information."""
    kind, code, words = (
        ("success", "sealed", "was dumped in 2.31 s; the guest stood still for 14 ms"),
        ("error", "capture-failed", "could not be dumped: QEMU ended while its memory was read. The guest runs. Try again"),
        ("info", "scheduled", "is to be dumped, asked for by admin"),
    )[number % 3]
    name = vm(1 + number % len(NAMES)).name
    usual: dict[str, Any] = {
        "at": ago(0), "kind": kind, "code": code, "message": f"{name} {words}.", "job_id": None, "dump_id": None, "dom": name,
    }  # fmt: skip
    return Activity(**usual | changes)
