#!/usr/bin/env python3
"""Capture the memory of running VMs and seal it: the command line over ``app.capture``. Works without the service.

Exit code: 0 all sealed and recorded · 2 usage · 3 no such VM, ambiguous, or not running · 4 hypervisor unreachable or
refused · 5 not enough space · 6 capture or seal failed · 7 timed out · 8 cancelled · 9 sealed, but the record is not yet
delivered. With several VMs the first that occurred of 8 6 7 5 4 3 9.
"""

from __future__ import annotations

import signal

_CANCELLING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
if __name__ == "__main__":
    # Until there is something that they can cancel they wait, also through the change of Python below: what follows takes a moment.
    signal.pthread_sigmask(signal.SIG_BLOCK, _CANCELLING)

import argparse
import contextlib
import getpass
import os
import re
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from app.ownpython import hand_over

hand_over()

from app.capture import Connection, Order, Patience, Report, capture, connect
from app.capture.allowance import first_to_be_killed
from app.capture.codecs import codec
from app.config import MOST_PAUSE_MS, Settings
from app.errors import CaptureError, ConfigError, MemoryDumpsError, NothingToDump, StateError
from app.lines import FailedLine, Line, SealedLine, encode
from app.model import ALGORITHMS, MODES, Algorithm, Manifest, Mode

# What only a person's command line needs (rich, SQLite) is imported where it is used: the service starts this for every
# dump, and the import costs a tenth of a second.

_USAGE, _FAILED, _CANCELLED, _UNDELIVERED = 2, 6, 8, 9
_EXIT_CODES = {
    "config-invalid": _USAGE,
    "vm-unknown": 3,
    "ambiguous-vm": 3,
    "vm-not-running": 3,
    "nothing-to-dump": 3,
    "domain-busy": 4,
    "hypervisor-unreachable": 4,
    "hypervisor-not-responding": 4,
    "hypervisor-refused": 4,
    "no-space": 5,
    "timed-out": 7,
    "cancelled": _CANCELLED,
}
_UNDECODED = re.compile("[\ud800-\udfff]")  # what Python makes of bytes that are no UTF-8
_WORST_FIRST = (_CANCELLED, _FAILED, 7, 5, 4, 3, _UNDELIVERED, _USAGE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The command line, parsed."""

    settings: Settings
    vms: tuple[str, ...]
    uri: str
    dump_dir: Path
    mode: Mode
    algorithm: Algorithm
    level: int | None
    max_pause_ms: int | None
    timeout_sec: float
    operator: str
    reason: str | None
    case: str | None
    json: bool
    record: bool
    audit_head: str | None

    def order(self, vm: str) -> Order:
        """What to capture for one of the VMs."""
        return Order(
            vm=vm,
            dump_dir=self.dump_dir,
            mode=self.mode,
            algorithm=self.algorithm,
            level=self.level,
            timeout_sec=self.timeout_sec,
            operator=self.operator,
            reason=self.reason,
            case=self.case,
            max_pause_ms=self.max_pause_ms,
            live_pause_ms=self.settings.max_pause_ms,
            fallback_pause_ms=self.settings.fallback_pause_ms,
            spool_memory_bytes=self.settings.spool_memory_bytes,
            audit_head=self.audit_head,
        )


def main(arguments: list[str]) -> int:
    """Run the command line; returns the exit code."""
    patience = Patience()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: patience.cancel())
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup(1)
        signal.signal(signal.SIGHUP, _hanging_up(patience, [stream for stream in (1, 2) if os.isatty(stream)]))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _CANCELLING)
    try:
        request = parse(arguments)
    except ConfigError as error:
        print(f"memdump: {error}", file=sys.stderr)
        return _USAGE
    first_to_be_killed()
    if request.json:
        threading.Thread(target=_cancel_at_end_of_input, args=(patience,), name="stdin", daemon=True).start()
        return run(request, patience, _tell_json(patience))
    from scripts.terminal import Terminal

    with Terminal() as terminal:
        return run(request, patience, terminal.tell)


def run(request: Request, patience: Patience, tell: Callable[[Line], None]) -> int:
    """Capture one VM after the other; returns the exit code."""
    codes: set[int] = set()
    recorded: list[str] = []
    try:
        connection = connect(request.uri, patience)
        wanted = _wanted(request, connection)
    except MemoryDumpsError as error:
        for vm in request.vms or ("*",):
            codes.add(_failed(vm, error, tell))
        return _worst(codes)
    for label, vm in wanted:
        code = _one(request, connection, label, vm, patience, tell, recorded)
        codes.add(code)
        if code == _CANCELLED:
            break
    connection.close()
    codes.add(_deliver(request, recorded))
    return _worst(codes)


def _wanted(request: Request, connection: Connection) -> list[tuple[str, str]]:
    """What each VM is called in the lines, and what names it; a VM that is named twice, each time in another way, once.

    Raises ``NothingToDump``, ``HypervisorError``, ``CaptureCancelled``.
    """
    if not request.vms:
        active = connection.active()
        if not active:
            raise NothingToDump
        return [(domain.vmid, domain.uuid) for domain in active]
    if len(request.vms) == 1:
        return [(request.vms[0], request.vms[0])]
    found: dict[str, str] = {}
    for vm in request.vms:
        try:
            found.setdefault(connection.find(vm)[1].uuid, vm)
        except MemoryDumpsError:  # the attempt to capture it says so
            found.setdefault(vm, vm)
    return [(vm, name) for name, vm in found.items()]


def _one(
    request: Request,
    connection: Connection,
    label: str,
    vm: str,
    patience: Patience,
    tell: Callable[[Line], None],
    recorded: list[str],
) -> int:
    connection.patience = patience
    try:
        manifest = capture(request.order(vm), connection, Report(label, tell), patience)
    except MemoryDumpsError as error:
        return _failed(label, error, tell)
    code = _record(request, manifest, recorded)
    tell(SealedLine(vm=label, manifest=manifest))
    return code


def _record(request: Request, manifest: Manifest, recorded: list[str]) -> int:
    """Commit the record, unless the service does that itself. The dump exists whatever comes of it."""
    if request.record:
        from app.access.audit_by_hand import telling_of
        from app.records.by_hand import record_by_hand

        queue = request.settings.influx_url is not None
        try:
            record_by_hand(request.settings.state_file, manifest, queue=queue, also=telling_of(manifest))
            recorded.append(manifest.dump_id)
        except StateError as error:
            print(f"memdump: the dump is sealed, but its record is not kept yet: {error}", file=sys.stderr)
            return _UNDELIVERED
    return 0


def _deliver(request: Request, dump_ids: list[str]) -> int:
    """Bring the records to the shared history, if there is one. They wait in the outbox whatever comes of it."""
    if not dump_ids or request.settings.influx_url is None:
        return 0
    from app.records.by_hand import deliver_by_hand

    told, delivered = deliver_by_hand(request.settings, dump_ids)
    for line in told:
        print(f"memdump: {line}", file=sys.stderr)
    return 0 if delivered else _UNDELIVERED


def _failed(vm: str, error: MemoryDumpsError, tell: Callable[[Line], None]) -> int:
    guest = error.guest if isinstance(error, CaptureError) else ""
    tell(FailedLine(vm=vm, code=error.code, message=str(error), guest=guest))
    return _EXIT_CODES.get(error.code, _FAILED)


def _worst(codes: set[int]) -> int:
    return next((code for code in _WORST_FIRST if code in codes), 0)


def _tell_json(patience: Patience) -> Callable[[Line], None]:
    """Lines on standard output. A reader that went away cancels, for nobody would know of the dump."""

    def tell(line: Line) -> None:
        try:
            sys.stdout.buffer.write(encode(line))
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            _write_nowhere(sys.stdout.fileno())
            patience.cancel()

    return tell


def _hanging_up(patience: Patience, terminals: Sequence[int]) -> Callable[..., None]:
    """What is done when the terminal goes: cancel, and write nothing to it any more."""

    def hang_up(*_: object) -> None:
        for stream in terminals:
            _write_nowhere(stream)
        patience.cancel()

    return hang_up


def _write_nowhere(stream: int) -> None:
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), stream)


def _cancel_at_end_of_input(patience: Patience) -> None:
    """The service holds our standard input open; its end, even by SIGKILL, is ours too."""
    while os.read(0, 4096):
        pass
    patience.cancel()


def parse(arguments: list[str]) -> Request:
    """The request. Raises ``ConfigError``; leaves by ``SystemExit(2)`` for wrong usage."""
    settings = Settings.from_environment(os.environ)
    parser = argparse.ArgumentParser("memdump", description="Capture the memory of running VMs and seal it as evidence.")
    parser.add_argument("vms", metavar="VM", nargs="*", help="uuid, OpenNebula id, name or libvirt ID")
    parser.add_argument("--all", action="store_true", help="every running VM")
    parser.add_argument("--uri", default=settings.libvirt_uri, help="libvirt connection (default: %(default)s)")
    parser.add_argument("--dump-dir", type=Path, help=f"where the dump goes (default: {settings.dump_dir})")
    parser.add_argument("--mode", choices=MODES, default=settings.mode)
    parser.add_argument("--compression", choices=ALGORITHMS, default=settings.compression)
    parser.add_argument("--level", type=int, help="compression level (gzip 0…3, zstd -7…22, lz4 -9…16)")
    parser.add_argument("--max-pause-ms", type=int, help=f"longest stop that may be planned (live: {settings.max_pause_ms})")
    parser.add_argument("--timeout-sec", type=float, default=settings.dump_timeout_sec, help="for one VM's memory; 0: none")
    parser.add_argument("--reason", help="why, for the manifest")
    parser.add_argument("--case", help="the case it belongs to, for the manifest")
    parser.add_argument("--operator", default=None, help="who, for the manifest (default: your user name)")
    parser.add_argument("--json", action="store_true", help="JSON lines on standard output; the end of standard input cancels")
    parser.add_argument("--no-record", action="store_true", help="leave the record to somebody else")
    parser.add_argument("--audit-head", help="hash of the audit trail's last entry, for the manifest (the service gives it)")
    given = parser.parse_args(arguments)
    if bool(given.vms) == given.all:
        parser.error("name the VMs or say --all, not both" if given.all else "name the VMs, or say --all")
    _check_values(parser, given)
    codec(given.compression, given.level)
    if given.dump_dir is None and "DUMP_DIR" not in os.environ:
        settings.dump_dir.mkdir(mode=0o700, parents=True, exist_ok=True)  # the default folder; a named one must be there
    return Request(
        settings=settings,
        vms=tuple(given.vms),
        uri=given.uri,
        dump_dir=(given.dump_dir or settings.dump_dir).absolute(),
        mode=given.mode,
        algorithm=given.compression,
        level=given.level,
        max_pause_ms=given.max_pause_ms,
        timeout_sec=given.timeout_sec,
        operator=given.operator or _user_name(),
        reason=given.reason,
        case=given.case,
        json=given.json,
        record=not given.no_record,
        audit_head=given.audit_head or (None if given.no_record else _audit_head(settings)),
    )


def _audit_head(settings: Settings) -> str | None:
    from app.access.audit_by_hand import head_by_hand

    return head_by_hand(settings)


def _user_name() -> str:
    """As the system knows it; a user whom it has no name for, in a container say, is a number."""
    with contextlib.suppress(KeyError, OSError):
        return getpass.getuser()
    return str(os.getuid())


def _check_values(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    if not all(vm.strip() for vm in given.vms):
        parser.error("a VM's name is empty")
    for name, texts in (
        ("VM", given.vms),
        ("--reason", [given.reason]),
        ("--case", [given.case]),
        ("--operator", [given.operator]),
    ):
        if any(text is not None and _UNDECODED.search(text) for text in texts):
            parser.error(f"{name} is not text in UTF-8")
    if not given.timeout_sec >= 0:
        parser.error("--timeout-sec must be 0 (no limit) or more")
    if given.max_pause_ms is not None and not 1 <= given.max_pause_ms <= MOST_PAUSE_MS:
        parser.error(f"--max-pause-ms must be from 1 to {MOST_PAUSE_MS}")


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a thread that hangs in libvirt must not keep the process
