"""What is owed to a guest whose capture ended badly: when it is looked after, and what stays owed until then."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.config import Settings
from app.downtime import SUFFIX, Downtime, broken_promises, promise
from app.errors import RUNS_ON, HypervisorNotResponding
from app.fifo import Rendezvous
from app.hypervisor import Hypervisor, Standing
from app.jobs.alarms import SCHEMA as ALARMS_SCHEMA
from app.jobs.alarms import Alarms
from app.jobs.journal import SCHEMA as JOURNAL_SCHEMA
from app.jobs.journal import Journal
from app.jobs.promises import keep_all_promises, keep_promises
from app.jobs.standing import Watch
from app.model import Activity, Domain, DomainState, Job, Link, Phase, Wish
from app.state import State

UUID = "a3090414-a879-482f-852d-f2fd8e7300e5"
URI = "qemu:///system"
OWNERS = Downtime(UUID, 7, 4321)
OURS = Downtime(UUID, 7, 20)
SOON_SEC = 0.001

STUCK = "vm-web-01 stands still after a dump, and could not be resumed: an image is locked."
GUEST = Domain(uuid=UUID, name="vm-web-01", id=7, vmid="101", state=DomainState.RUNNING, memory_bytes=1, vcpus=1, hypervisor="kvm")
JOB = Job(
    job_id="1",
    trigger_id="1",
    uuid=UUID,
    vm_id="101",
    dom=GUEST.name,
    wish=Wish(mode="live", compression="gzip"),
    phase=Phase.COMPLETED,
    requested_at=datetime.now(UTC),
)


class Libvirt(Hypervisor):
    """What a libvirt would answer, with one guest: whether it ``answers``, is ``busy``, or left the guest ``standing``, and
    whether that is ``stuck``."""

    def __init__(self) -> None:
        super().__init__(URI, domains_changed=lambda: None, status_changed=lambda: None)
        self.answers, self.busy, self.standing, self.runs_as = True, False, False, 7
        self.stuck = self.gone = False
        self.downtimes: list[int] = []
        self.looked_at: list[str] = []
        self.connect(Link.CONNECTED)

    def connect(self, link: Link) -> None:
        self.status = replace(self.status, state=link)

    def domains(self) -> tuple[Domain, ...]:
        return () if self.gone else (GUEST,)

    async def idle(self, uuid: str) -> bool:
        self._answer()
        return not self.busy

    async def set_downtime(self, wanted: Downtime) -> bool:
        self._answer()
        if wanted.libvirt_id == self.runs_as:
            self.downtimes.append(wanted.downtime_ms)
        return wanted.libvirt_id == self.runs_as

    async def resume_left_paused(self, dumped: str = "") -> Standing:
        self._answer()
        self.looked_at.append(dumped)
        if self.stuck:
            return Standing((), {UUID: STUCK})
        resumed = (GUEST.name,) if self.standing else ()
        self.standing = False
        return Standing(resumed, {})

    def _answer(self) -> None:
        if not self.answers:
            raise HypervisorNotResponding(URI)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "dumps").mkdir()
    return Settings.from_environment({"DUMP_DIR": str(tmp_path / "dumps"), "LIBVIRT_URI": URI})


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    opened = State.open(tmp_path / "state.sqlite3", ALARMS_SCHEMA, JOURNAL_SCHEMA)
    yield opened
    opened.close()


@pytest.fixture
async def libvirt() -> Libvirt:
    return Libvirt()


@pytest.fixture
async def told() -> list[Activity]:
    return []


@pytest.fixture
async def watch(state: State, libvirt: Libvirt, told: list[Activity]) -> AsyncIterator[Watch]:
    journal = Journal(state, told.append)
    alarms = Alarms(state, journal, lambda: None)
    await alarms.open()
    yield Watch(hypervisor=libvirt, journal=journal, alarms=alarms)
    await asyncio.get_running_loop().shutdown_default_executor()  # the notes are looked at on its threads


def dead(settings: Settings, capture_id: str, before: Downtime) -> None:
    """A capture wrote its note, and was killed."""
    promise(Rendezvous(settings.dump_dir, None), capture_id, before).broken()


def notes(settings: Settings) -> list[str]:
    return sorted(path.name for path in settings.dump_dir.glob(f".*{SUFFIX}"))


async def reopened(watch: Watch) -> Watch:
    """As the next service finds things."""
    await watch.alarms.open()
    return watch


@contextlib.asynccontextmanager
async def looking(settings: Settings, watch: Watch) -> AsyncIterator[None]:
    """The service's regular look, often."""
    task = asyncio.create_task(keep_all_promises(settings, watch, every_sec=SOON_SEC))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def turns(many: int = 50) -> None:
    """So many times the regular look had the time to come by."""
    for _ in range(many):
        await asyncio.sleep(SOON_SEC)


# --- notes of dead captures


async def test_the_owners_value_is_put_back_once_and_not_ours(settings: Settings, watch: Watch, libvirt: Libvirt) -> None:
    dead(settings, "1", OWNERS)
    dead(settings, "2", OURS)
    assert await keep_promises(settings, watch)
    assert libvirt.downtimes == [4321]
    assert notes(settings) == []
    assert watch.alarms.debts.due() == (UUID,)
    await watch.pay()
    assert libvirt.looked_at == [UUID]
    assert not await keep_promises(settings, watch)


async def test_what_cannot_be_put_back_stays_noted_for_the_next_time(settings: Settings, watch: Watch, libvirt: Libvirt) -> None:
    dead(settings, "1", OWNERS)
    for libvirt.answers, libvirt.busy in ((False, False), (True, True)):
        await keep_promises(settings, watch)
        assert libvirt.downtimes == []
        assert len(notes(settings)) == 1
    libvirt.busy = False
    await keep_promises(settings, watch)
    assert libvirt.downtimes == [4321]
    assert notes(settings) == []


async def test_a_guest_that_is_gone_or_was_started_anew_is_owed_nothing(settings: Settings, watch: Watch, libvirt: Libvirt) -> None:
    dead(settings, "1", OWNERS)
    libvirt.runs_as = 8
    await keep_promises(settings, watch)
    assert (libvirt.downtimes, libvirt.looked_at) == ([], [])
    assert notes(settings) == []


async def test_a_note_of_a_capture_that_dies_while_libvirt_answers_is_found_by_the_regular_look(
    settings: Settings, watch: Watch, libvirt: Libvirt
) -> None:
    async with looking(settings, watch), asyncio.timeout(10):
        await turns()
        dead(settings, "1", OWNERS)
        while notes(settings):
            await turns(1)
    assert libvirt.downtimes == [4321]


async def test_the_regular_look_waits_while_libvirt_is_away_and_outlives_its_errors(
    settings: Settings, watch: Watch, libvirt: Libvirt
) -> None:
    dead(settings, "1", OWNERS)
    libvirt.connect(Link.NOT_RESPONDING)
    async with looking(settings, watch), asyncio.timeout(10):
        await turns()
        assert len(notes(settings)) == 1
        libvirt.answers = False
        libvirt.connect(Link.CONNECTED)
        watch.alarms.debts.fall_due(UUID)
        await turns()
        libvirt.answers = True
        while notes(settings) or watch.alarms.debts.due():
            await turns(1)
    assert libvirt.downtimes == [4321]


async def test_a_look_that_is_cut_short_leaves_every_note_to_the_next(settings: Settings, watch: Watch, libvirt: Libvirt) -> None:
    dead(settings, "1", OWNERS)
    dead(settings, "2", Downtime("other", 7, 300))
    asked = asyncio.Event()

    class Hangs(Libvirt):
        async def idle(self, uuid: str) -> bool:
            asked.set()
            return await asyncio.Future()

    task = asyncio.create_task(keep_promises(settings, replace(watch, hypervisor=Hangs())))
    await asked.wait()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    found = broken_promises(Rendezvous(settings.dump_dir, None))
    assert len(found) == 2
    for one in found:
        one.broken()


# --- guests of which nobody has seen that they go on


async def test_a_guest_that_nobody_could_see_is_an_alarm_and_looked_at_as_soon_as_libvirt_answers(
    settings: Settings, watch: Watch, libvirt: Libvirt, told: list[Activity]
) -> None:
    await watch.alarms.debts.owe(UUID)
    libvirt.answers, libvirt.standing = False, True
    await watch.see_it_run_on(UUID, JOB)
    assert GUEST.name in (watch.alarms.of(UUID) or "")
    async with looking(settings, watch), asyncio.timeout(10):
        await turns()
        assert watch.alarms.debts.due() == (UUID,)
        libvirt.answers = True
        while watch.alarms.of(UUID):
            await turns(1)
        while (await reopened(watch)).alarms.debts.due():
            await turns(1)
    assert not libvirt.standing
    assert [line.code for line in told] == ["guest-resumed", "guest-runs-again"]


async def test_a_guest_that_libvirt_is_at_work_on_stays_owed(watch: Watch, libvirt: Libvirt) -> None:
    libvirt.busy = True
    await watch.see_it_run_on(UUID, JOB)
    await watch.pay()
    assert watch.alarms.debts.due() == (UUID,)
    libvirt.busy = False
    await watch.pay()
    assert libvirt.looked_at == [UUID]
    assert (await reopened(watch)).alarms.debts.due() == ()


async def test_what_a_service_owed_when_it_died_is_due_at_the_next_start(watch: Watch, libvirt: Libvirt) -> None:
    await watch.alarms.debts.owe(UUID)
    assert watch.alarms.debts.due() == ()  # its capture runs, and looks after its guest itself
    await reopened(watch)
    assert watch.alarms.debts.due() == (UUID,)
    await watch.pay()
    assert (await reopened(watch)).alarms.debts.due() == ()


async def test_a_guest_that_did_not_run_before_its_capture_is_owed_nothing(watch: Watch, libvirt: Libvirt) -> None:
    libvirt.answers = False
    await watch.see_it_run_on("", JOB)
    assert watch.alarms.debts.due() == ()
    assert watch.alarms.of(UUID) is None


async def test_a_debt_is_paid_by_one_at_a_time(watch: Watch, libvirt: Libvirt) -> None:
    watch.alarms.debts.fall_due(UUID)
    await asyncio.gather(watch.pay(), watch.pay(), watch.pay())
    assert libvirt.looked_at == [UUID]


# --- guests that cannot be resumed


async def test_a_guest_that_cannot_be_resumed_is_an_alarm_and_tried_until_it_runs(
    settings: Settings, watch: Watch, libvirt: Libvirt, told: list[Activity]
) -> None:
    libvirt.standing = libvirt.stuck = True
    assert await watch.see_it_run_on(UUID, JOB) == STUCK
    assert watch.alarms.of(UUID) == STUCK
    async with looking(settings, watch), asyncio.timeout(20):
        tries = len(libvirt.looked_at)
        while len(libvirt.looked_at) == tries:
            await turns(1)
        assert watch.alarms.of(UUID) == STUCK
        libvirt.stuck = False
        while watch.alarms.of(UUID) or libvirt.standing:
            await turns(1)
        while (await reopened(watch)).alarms.debts.due():
            await turns(1)
    assert [line.code for line in told] == ["guest-left-paused", "guest-resumed", "guest-runs-again"]


async def test_a_guest_that_cannot_be_resumed_is_an_alarm_before_it_was_tried_for_long(watch: Watch, libvirt: Libvirt) -> None:
    libvirt.stuck = True
    trying = asyncio.create_task(watch.resume(UUID))
    async with asyncio.timeout(10):
        while not watch.alarms.of(UUID):
            await turns(1)
        assert not trying.done()
        libvirt.stuck = False
        assert await trying
    assert watch.alarms.of(UUID) is None


async def test_what_is_said_of_a_guest_is_what_was_seen(watch: Watch, libvirt: Libvirt) -> None:
    assert await watch.see_it_run_on(UUID, JOB) == RUNS_ON
    libvirt.busy = True
    assert "not known yet" in await watch.see_it_run_on(UUID, JOB)
    libvirt.answers = False
    assert "not known" in await watch.see_it_run_on(UUID, JOB)
    libvirt.answers, libvirt.busy, libvirt.gone = True, False, True
    assert await watch.see_it_run_on(UUID, JOB) == ""
    assert watch.alarms.of(UUID) is None
