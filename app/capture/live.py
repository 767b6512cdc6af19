"""The live way: a migration into the FIFO, spooled, and laid out as the ELF vmcore that QEMU itself would have written.

The guest runs while its memory is read again and again, and stands still only for the last few pages. The first try
allows that stop ``FIRST_DOWNTIME_MS``, which an idle guest does not notice; a guest that writes faster than that is read
is tried once more with the whole budget. Each try has a limit in bytes and in time, after which it is aborted: nothing
of that stops the guest.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.capture.budget import Budget
from app.capture.chipset import chipset_of
from app.capture.coreimage import CoreImage
from app.capture.elfcore import read_header
from app.capture.guest import Guest
from app.capture.knownheader import KnownHeader
from app.capture.layout import layout, layout_from_header, refuse_other_modules, refuse_passthrough
from app.capture.machine import Machine
from app.capture.migration import Block, Migration
from app.capture.patience import Call
from app.capture.pausemeter import PauseMeter
from app.capture.ranges import Range
from app.capture.report import Report
from app.capture.source import Stream, dump
from app.capture.spool import Spool, open_spool
from app.errors import (
    CaptureFailed,
    HypervisorError,
    HypervisorNotResponding,
    LayoutUnknown,
    LiveNotConverging,
    LiveNotPossible,
    StreamMalformed,
)
from app.fifo import Rendezvous
from app.model import Phase

FIRST_DOWNTIME_MS = 20
PROBE_STOP_MS = 50
"""What the stop for QEMU's own headers counts as beforehand: 17 to 31 ms were seen, and up to 210 on a busy host."""

ABORT_SEC = 15.0
"""How long libvirt and QEMU may take to heed an abort."""

_BUFFER_BYTES = 4 << 20
_HEADER_BYTES = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When a try is given up: more bytes than so many times the RAM; or, after its first pass, so much more time."""

    times_ram: float
    after_first_pass_sec: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LivePlan:
    """What a live capture needs to know. ``max_pause_ms`` is for the final stop, ``max_stops_ms`` for that and the one that
    asking QEMU for its headers takes. ``spool_memory_bytes`` None: a quarter of what is available. ``allocated_bytes``: what
    reading the guest takes of that.
    """

    guest: Guest
    budget: Budget
    xml: str
    where: Rendezvous
    capture_id: str
    dump_dir: Path
    max_pause_ms: int
    max_stops_ms: int
    spool_memory_bytes: int | None
    allocated_bytes: int = 0

    def tries(self) -> tuple[tuple[int, Limits], ...]:
        """Each try's downtime in milliseconds, and its limits."""
        first = (min(FIRST_DOWNTIME_MS, self.max_pause_ms), Limits(times_ram=2, after_first_pass_sec=5))
        whole = (self.max_pause_ms, Limits(times_ram=6, after_first_pass_sec=30))
        return (first, whole) if whole[0] > first[0] else (whole,)


@dataclass(frozen=True, slots=True)
class LiveImage:
    """What was captured, and when (epoch seconds, by QEMU's own clock; None: not known); the XML of the domain as it shows it."""

    image: CoreImage
    xml: str
    captured_at: float | None


class GivenUp(Exception):
    """This try does not converge; ``str()`` says why."""


@dataclass(frozen=True, slots=True)
class After:
    """What is done when the guest should run again, before anything that takes time: it is ``captured``, and nothing can come of it
    but the image; or, while that is not known yet, somebody just ``looks``."""

    looks: Callable[[], object]
    captured: Callable[[], object]


@contextmanager
def live_image(plan: LivePlan, meter: PauseMeter, report: Report, after: After) -> Iterator[LiveImage]:
    """The guest's memory of one instant, as the bytes of a vmcore; the spool goes with the block.

    Raises ``LiveNotPossible``,
    ``LiveNotConverging``, ``NoSpace``, ``StreamMalformed`` and what ``Stream`` raises.
    """
    refuse_passthrough(plan.guest.domain.name, plan.xml)
    refuse_other_modules(plan.guest.domain.name, plan.xml)
    size_bytes, beside_bytes = plan.guest.domain.memory_bytes, plan.allocated_bytes
    with open_spool(size_bytes, plan.dump_dir, plan.where, plan.spool_memory_bytes, beside_bytes=beside_bytes) as spool:
        machine, captured_at = _tried(plan, spool, meter, report)
        image, xml = _laid_out(plan, machine, spool, meter, report, after)
        yield LiveImage(image, xml, captured_at)


def _tried(plan: LivePlan, spool: Spool, meter: PauseMeter, report: Report) -> tuple[Machine, float | None]:
    """Try until one try succeeds: what QEMU said of the machine, and the instant that it and the spool show."""
    why = ""
    try:
        for downtime_ms, limits in plan.tries():
            plan.budget.set_ms(downtime_ms)
            try:
                return _migrate(plan, limits, spool, meter, report)
            except GivenUp as error:
                why = str(error)
                spool.clear()
    finally:
        plan.budget.put_back()
    raise LiveNotConverging(plan.guest.domain.name, plan.max_pause_ms, why)


def _migrate(plan: LivePlan, limits: Limits, spool: Spool, meter: PauseMeter, report: Report) -> tuple[Machine, float | None]:
    """One try. Raises ``GivenUp`` when it was aborted, ``LiveNotPossible`` when somebody has suspended the guest meanwhile."""
    migration = Migration(spool)

    def refuse_suspended() -> None:
        if not plan.guest.runs():
            raise LiveNotPossible(f"{plan.guest.domain.name} was suspended before it could be captured live.")

    with dump(plan.guest, "live", plan.where, plan.capture_id, meter, report, refuse_suspended) as stream:
        report.phase(Phase.CAPTURING, plan.guest.domain.name)
        watch = Watch(plan.guest, migration, limits)
        receive(stream, migration, watch, lambda: _tell(migration, stream, report))
        machine, captured_at = migration.finish(), meter.instant()
    check_it_ran(plan.guest, meter, report)
    if captured_at is None:
        report.warn(
            "instant-unknown",
            f"QEMU was not heard to stop {plan.guest.domain.name}: captured_at is when the capture began, and how long the guest "
            "stood still is not known.",
        )
    return machine, captured_at


def check_it_ran(guest: Guest, meter: PauseMeter, report: Report) -> None:
    """Raises ``LiveNotPossible`` if the guest was suspended as its capture began, and not only afterwards; warns of stops in
    between that were not ours.

    libvirt then does not resume it, and QEMU leaves its disk images to whoever takes them. If nobody answers who could say so,
    the image is kept, for it is whole; that the guest could not be looked at is told after every capture.
    """
    name = guest.domain.name
    suspended = False
    with contextlib.suppress(HypervisorError):
        suspended = guest.suspended()
    if suspended and not meter.resumed():
        report.warn(
            "disks-not-locked",
            f"{name} was suspended as its live capture began. QEMU has let go of the locks on its disk images: until {name} is "
            f"resumed another program could write to them, and it can be neither saved nor migrated. Start nothing that uses its "
            f"disks. 'virsh resume {name}' ends this.",
        )
        raise LiveNotPossible(f"{name} was suspended as its live capture began.")
    if meter.foreign:
        report.warn("stopped-by-another", f"{name} was also stopped by something else while it was captured.")


class Watch:
    """Looks whether one try converges, and has it aborted if not; ``why`` then says why.

    The stream is read on until its end, or QEMU, which waits to write more, never hears of it. A libvirtd or QEMU that hangs
    does not hear of it either, and the stream of a guest that does not converge has no end: so it is waited for within a
    bound. After that the FIFO is dropped, which breaks the dump off.
    """

    def __init__(self, guest: Guest, migration: Migration, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self.why = ""
        self._guest = guest
        self._migration = migration
        self._limits = limits
        self._clock = clock
        self._first_pass_ended_at: float | None = None
        self._aborting: Call[None] | None = None
        self._ends_by = math.inf

    @property
    def uri(self) -> str:
        """The connection that an abort goes to."""
        return self._guest.connection.uri

    def look(self) -> None:
        """After every read. Raises as ``check_abort``."""
        if self._first_pass_ended_at is None and self._migration.iteration > 1:
            self._first_pass_ended_at = self._clock()
        if self._aborting is None and (why := self._too_much()):
            self.why = why
            self._aborting = self._guest.abort()
            self._ends_by = self._clock() + ABORT_SEC
        self.check_abort()

    def check_abort(self) -> None:
        """Raises ``HypervisorNotResponding`` if an abort has come to nothing."""
        if self._clock() > self._ends_by:
            raise HypervisorNotResponding(self.uri)

    def settled(self) -> bool:
        """Wait for the abort's own end, for one that comes late would hit the next try, or somebody else's job. Whether it came."""
        return self._aborting is None or self._aborting.ended_within(ABORT_SEC)

    def _too_much(self) -> str:
        migration, limits, since = self._migration, self._limits, self._first_pass_ended_at
        if migration.ram_bytes_total and migration.bytes_fed > limits.times_ram * migration.ram_bytes_total:
            return f"{limits.times_ram:g} times its memory was read in {migration.iteration} passes"
        if since is not None and self._clock() - since > limits.after_first_pass_sec:
            return f"after {limits.after_first_pass_sec:g} s and {migration.iteration} passes its memory still changed"
        return ""


def receive(stream: Stream, migration: Migration, watch: Watch, tell: Callable[[], None]) -> None:
    """The whole stream into ``migration``, and libvirt's word that it was whole. Raises ``GivenUp``, and as ``Stream`` does.

    An abort that comes too late finds a dump that is whole, and whose stop was not longer than this try allowed: it is kept.
    """

    def tick() -> None:
        tell()
        watch.check_abort()

    buffer = memoryview(bytearray(_BUFFER_BYTES))
    rest = 0
    while count := stream.read(buffer[rest:], tick):
        length = rest + count
        used = migration.feed(buffer[:length])
        rest = length - used
        buffer[:rest] = bytes(buffer[used:length])
        tell()
        watch.look()
    try:
        stream.confirm(tick)
    except CaptureFailed as error:
        if not watch.why:
            raise
        if not watch.settled():
            raise HypervisorNotResponding(watch.uri) from error
        raise GivenUp(watch.why) from error
    watch.settled()


def _tell(migration: Migration, stream: Stream, report: Report) -> None:
    report.progress(
        migration.pass_bytes_done,
        migration.ram_bytes_total,
        guest_paused=stream.guest_paused,
        iteration=migration.iteration,
        read_bytes=migration.read_bytes,
    )


def _laid_out(
    plan: LivePlan, machine: Machine, spool: Spool, meter: PauseMeter, report: Report, after: After
) -> tuple[CoreImage, str]:
    """Where QEMU maps the blocks, and the XML that agrees: by the rules, else by QEMU's own headers. What can still end in the
    paused way has the capture's time limit."""
    chipset_of(machine)  # of another kind of machine its headers would not tell enough either
    try:
        ranges, xml = laid_out_by_rules(machine, spool.block_list, plan.xml, plan.guest.xml)
        image = CoreImage(spool, ranges, machine)
    except LayoutUnknown as why:
        after.looks()
        image, xml = _laid_out_by_qemu(plan, machine, spool, meter, report, why)
    after.captured()
    return image, xml


def _laid_out_by_qemu(
    plan: LivePlan, machine: Machine, spool: Spool, meter: PauseMeter, report: Report, why: LayoutUnknown
) -> tuple[CoreImage, str]:
    """It is asked for its headers once in each run of the guest."""
    xml = plan.guest.xml()
    refuse_other_modules(plan.guest.domain.name, xml)
    known = KnownHeader(plan.where, plan.guest)
    if (head := known.get()) is not None:
        with contextlib.suppress(LayoutUnknown, StreamMalformed):  # something was moved since: it is asked for again
            return CoreImage(spool, layout_from_header(read_header(head), machine, spool.block_list, xml), machine), xml
    allow_probe(why, sum(meter.stops().each_ms), plan.max_stops_ms)
    report.warn(why.code, f"{why} QEMU was asked where the memory lies, which stopped the guest once more.")
    head = _probe(plan, meter, report)
    known.put(head)
    return CoreImage(spool, layout_from_header(read_header(head), machine, spool.block_list, xml), machine), xml


def laid_out_by_rules(
    machine: Machine, blocks: Sequence[Block], xml: str, again: Callable[[], str]
) -> tuple[tuple[Range, ...], str]:
    """The layout, and the XML that it is by. Raises ``LayoutUnknown``.

    A DIMM may have been plugged in or out after ``xml`` was read and before the dump; during a dump libvirt lets nobody do so.
    Then the XML that ``again`` reads is the one that agrees with the stream.
    """
    try:
        return layout(machine, blocks, xml), xml
    except LayoutUnknown:
        now = again()
        if now == xml:
            raise
    return layout(machine, blocks, now), now


def allow_probe(why: LayoutUnknown, stood_ms: float, max_stops_ms: int) -> None:
    """Raises ``LayoutUnknown`` if asking QEMU would, as far as is known, stop the guest for longer than is allowed in all."""
    if stood_ms + PROBE_STOP_MS > max_stops_ms:
        raise LayoutUnknown(
            f"{why} To ask QEMU would stop the guest for about {PROBE_STOP_MS} ms beside the {stood_ms:.0f} ms of its capture, "
            f"and {max_stops_ms} ms are allowed.",
            "Allow a longer stop with max_pause_ms, or use the mode 'paused'.",
        ) from why


def _probe(plan: LivePlan, meter: PauseMeter, report: Report) -> bytes:
    """The first bytes of a paused dump, which is then broken off: its program headers are QEMU's own map."""
    head = bytearray(_HEADER_BYTES)
    with dump(plan.guest, "paused", plan.where, plan.capture_id, meter, report) as stream:
        length = stream.fill(head, lambda: None)
        if length < len(head):
            stream.confirm(lambda: None)  # why there was no more
    return bytes(head[:length])
