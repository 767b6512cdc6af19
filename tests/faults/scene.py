"""A service over real guests, with one dump made already; how a capture is held in a phase, and what has to be true after
every fault."""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.evidence import MANIFEST, PARTIAL, SUFFIXES, manifest_path
from demo import Guest, PrivateLibvirt
from tests.contract.speech import FINAL, JOBS, RECORDS, TRIGGER, Api, Feed, Message
from tests.faults.processes import Process, below, children_of, eventually
from tests.service import PROGRAM, ROOT, Service, running_service, service_environment

ACTIVITY = "/api/memory-dumps/activity?limit=50"
PHASES = ("preparing", "capturing", "sealing")
"""Those in which a capture process lives."""

_LIBVIRT_ANSWERS_SEC = 10.0
_TRIES = 20
_MEMDUMP_SEC = 60.0


@dataclass(kw_only=True)
class Scene:
    """``guest`` runs in ``lab`` and is what faults happen to; ``earlier`` is the record of a dump that must survive them."""

    lab: PrivateLibvirt
    guest: Guest
    service: Service
    earlier: Message

    @contextlib.asynccontextmanager
    async def visit(self) -> AsyncIterator[Visit]:
        """Somebody who speaks to the service and hears all that it tells from now on."""
        async with Api.of(self.service) as api:
            await api.connected()
            async with api.feed() as feed:
                await feed.next()
                yield Visit(self, api, feed)

    def virsh(self, *words: str) -> str:
        """What virsh, a client of its own, says; it has to answer in time."""
        ran = self._virsh(*words)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout.strip()

    def has_job(self, guest: Guest | None = None) -> bool:
        """Whether libvirt works on the guest, or on another one.

        A dump that broke off and has not ended yet makes the question itself fail.
        """
        return self._virsh("domjobinfo", (guest or self.guest).name).stdout.split() != ["Job", "type:", "None"]

    def _virsh(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = ["virsh", "--quiet", "--connect", self.lab.uri, *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=_LIBVIRT_ANSWERS_SEC)

    def dumps(self) -> set[Path]:
        """What stands in DUMP_DIR under the name of a dump."""
        return {path for path in self.service.dump_dir.iterdir() if path.name.endswith(tuple(SUFFIXES.values()))}

    def assert_nothing_is_left(self) -> None:
        """No child, no FIFO, no partial file; every dump has its manifest; the guest runs, and libvirt answers."""
        self.assert_no_file_is_left()
        assert self.guest.name in self.virsh("list", "--name")
        eventually(lambda: self.virsh("domstate", self.guest.name) == "running", f"{self.guest.name} runs")
        eventually(lambda: not self.has_job(), "no job is left")

    def assert_no_file_is_left(self) -> None:
        """The same, of a guest that is not here any more."""
        assert not children_of(self.service.process.pid)
        for folder in (self.service.dump_dir, self.lab.folder / "run"):
            there = list(below(folder))
            assert not [path for path in there if path.name.endswith(PARTIAL) or path.is_fifo()]
            assert not [path for path in there if path.name.startswith(".memdump-")]
        assert {manifest_path(dump) for dump in self.dumps()} == set(self.service.dump_dir.glob(f"*{MANIFEST}"))

    def assert_earlier_dump_is_intact(self) -> None:
        """Byte for byte."""
        dump = Path(self.earlier["dump_path"])
        assert hashlib.sha256(dump.read_bytes()).hexdigest() == self.earlier["stored_sha256"]


@dataclass(frozen=True)
class Visit:
    """One visitor of a scene's service."""

    scene: Scene
    api: Api
    feed: Feed

    async def start(self, guest: Guest | None = None, **wish: object) -> str:
        """Ask for a dump; the job's id."""
        answer = await self.api.post(TRIGGER, {"vm_ids": [(guest or self.scene.guest).uuid], **wish}, 202)
        job_id: str = answer["jobs"][0]["job_id"]
        return job_id

    async def end_of(self, job_id: str) -> Message:
        """The job as it ended."""
        return (await self.feed.ended([job_id]))[job_id]

    async def reaches(self, job_id: str, *phases: str) -> str:
        """Wait until the job is in one of the phases, or has ended; its phase."""
        wanted = {*phases, *FINAL}
        heard = await self.feed.until(
            lambda message: message["type"] == "job" and message["job"]["job_id"] == job_id and message["job"]["phase"] in wanted
        )
        phase: str = heard[-1]["job"]["phase"]
        return phase

    @contextlib.asynccontextmanager
    async def held(self, phase: str, guest: Guest | None = None, **wish: object) -> AsyncIterator[tuple[str, Process]]:
        """A job whose capture process stands still in ``phase``; its id and that process, which goes on after this block.

        A phase can be over before the process hears of SIGSTOP, or have begun by its word alone: then that dump is let
        through, and the next one tried.
        """
        for _ in range(_TRIES):
            job_id = await self.start(guest, **wish)
            with capture_process(self.scene.service, guest or self.scene.guest) as process:
                if phase != "preparing":
                    await self.reaches(job_id, phase)
                process.stop()
                if await self._is_in(phase, job_id, guest):
                    yield job_id, process
                    return
            if (await self.api.get(f"{JOBS}/{job_id}"))["phase"] not in FINAL:
                await self.end_of(job_id)
        raise AssertionError(f"no capture could be held in {phase}")

    async def _is_in(self, phase: str, job_id: str, guest: Guest | None) -> bool:
        """Whether it is there in earnest: libvirt is at its dump, or no manifest yet says that the dump exists."""
        now = (await self.api.get(f"{JOBS}/{job_id}"))["phase"]
        known = {record["dump_path"] for record in (await self.api.get(RECORDS))["records"]}
        manifests = {str(path).removesuffix(MANIFEST) for path in self.scene.service.dump_dir.glob(f"*{MANIFEST}")}
        return bool(now == phase) and manifests <= known and (phase != "capturing" or self.scene.has_job(guest))

    async def assert_all_is_well(self) -> None:
        """Nothing is left of a fault, and what there was before is there still."""
        self.scene.assert_nothing_is_left()
        self.scene.assert_earlier_dump_is_intact()
        known = (await self.api.get(RECORDS))["records"]
        assert self.scene.earlier in known
        assert {Path(record["dump_path"]) for record in known} == self.scene.dumps()

    async def assert_told(self, job: Message, code: str) -> None:
        """The end of ``job``, of which just now was heard, stands in words in the activity log and in the program's log."""
        message = job["error"]["message"]
        said = message if message.startswith(job["dom"]) else f"{job['dom']}: {message}"
        await self.feed.until(lambda message: message["type"] == "activity" and message["activity"]["job_id"] == job["job_id"])
        lines = [line for line in (await self.api.get(ACTIVITY))["activity"] if line["job_id"] == job["job_id"]]
        assert (code, said) in [(line["code"], line["message"]) for line in lines]
        eventually(
            lambda: any(job["job_id"] in line and code in line for line in self.scene.service.log_text().splitlines()),
            f"the program's log says {code}",
        )

    async def assert_dump_succeeds(self) -> None:
        """The best proof that nothing is stuck."""
        job_id = await self.start()
        job = await self.end_of(job_id)
        assert (job["phase"], job["error"]) == ("completed", None)


@contextlib.contextmanager
def capture_process(service: Service, guest: Guest) -> Iterator[Process]:
    """The process that captures ``guest``, as soon as there is one."""

    def look() -> int | None:
        found = children_of(service.process.pid).items()
        return next((pid for pid, words in found if words[-1] == guest.uuid and "memdump.py" in words[1]), None)

    process = Process(eventually(look, f"a capture process for {guest.name}") or 0)
    try:
        yield process
    finally:
        process.close()


@contextlib.contextmanager
def staged(
    folder: Path, lab: PrivateLibvirt, guest: Guest, *, program: Sequence[str] = PROGRAM, **settings: str
) -> Iterator[Scene]:
    """A scene with a service of its own, started by ``program``, and a dump of ``guest`` that was made by hand before that."""
    settings = {"MEMDUMP_MODE": "paused", **settings}
    environment = service_environment(folder, LIBVIRT_URI=lab.uri, **settings)
    dump_dir = Path(environment["DUMP_DIR"])
    dump_dir.mkdir(parents=True, exist_ok=True)
    made = memdump(environment, "--timeout-sec=0", guest.name)
    assert made.returncode == 0, made.stderr
    (manifest,) = dump_dir.glob(f"*{MANIFEST}")
    earlier = json.loads(manifest.read_bytes())
    del earlier["domain_xml"]  # lists of records go without it
    with running_service(folder, program=program, LIBVIRT_URI=lab.uri, **settings) as service:
        yield Scene(lab=lab, guest=guest, service=service, earlier=earlier)


def memdump(environment: Mapping[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """``memdump.py`` by hand, to its end."""
    command = [sys.executable, str(ROOT / "scripts/memdump.py"), *words]
    return subprocess.run(
        command, env=dict(environment), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_MEMDUMP_SEC
    )
