"""Contract, section 3: ``scripts/memdump.py`` beside a service and without one."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.access.audit import entries_in
from app.access.chain import look_over
from app.evidence import manifest_path
from tests.contract.conftest import ACTIVE, ALPHA, BETA, NEBULA, OFF, VMS
from tests.contract.speech import RECORDS, Api
from tests.contract.test_api import MOMENT, RECORD
from tests.faults.processes import eventually
from tests.nodes import Gate, Vm, gate, node, numbered_uuid
from tests.root import needs_root
from tests.service import ROOT, Service, running_service, service_environment

SCRIPT = ROOT / "scripts" / "memdump.py"
ENDS_SEC = 30


class CommandLine:
    """``scripts/memdump.py`` on ``uri``, with folders below ``folder``."""

    def __init__(self, folder: Path, uri: str, **settings: str) -> None:
        self.dump_dir = folder / "dumps"
        self.dump_dir.mkdir(exist_ok=True)
        self.state_file = folder / "state" / "memory-dumps.sqlite3"
        self.environment = service_environment(folder, LIBVIRT_URI=uri, **settings)

    def start(self, *arguments: str, python: str = sys.executable) -> subprocess.Popen[str]:
        """Started, its three streams being pipes."""
        return subprocess.Popen(
            [python, str(SCRIPT), *arguments],
            cwd="/",
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, standard output, standard error. Its standard input stays open until it has ended by itself."""
        with self.start(*arguments) as process:
            code = process.wait(ENDS_SEC)
            out, err = process.communicate()
        return code, out, err

    def json(self, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
        """Exit code and lines of ``--json``."""
        code, out, _ = self.run("--json", *arguments)
        return code, [json.loads(line) for line in out.splitlines()]

    def records(self) -> list[str]:
        """The dump_ids in the state file."""
        if not self.state_file.exists():
            return []
        connection = sqlite3.connect(self.state_file)
        try:
            return [row[0] for row in connection.execute("SELECT dump_id FROM records ORDER BY number")]
        finally:
            connection.close()


@pytest.fixture
def memdump(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path, node(tmp_path / "node.xml", VMS))


def of_event(lines: list[dict[str, Any]], event: str) -> list[dict[str, Any]]:
    return [line for line in lines if line["event"] == event]


# --- what it says


def test_json_lines_are_the_contracts(memdump: CommandLine) -> None:
    code, lines = memdump.json("777")
    assert code == 0
    assert {line["event"] for line in lines} <= {"phase", "progress", "sealed", "fifo", "warning"}
    phases = of_event(lines, "phase")
    names = ["event", "vm", "dom", "phase", "ts"]
    assert [list(line) for line in phases] == [names, [*names, "mode"], names]
    assert phases[1]["mode"] == "plain"
    assert [(line["vm"], line["dom"], line["phase"]) for line in phases] == [
        ("777", "one-43", phase) for phase in ("preparing", "capturing", "sealing")
    ]
    assert all(MOMENT.fullmatch(line["ts"]) for line in phases)
    for line in of_event(lines, "progress"):
        assert list(line) == [
            "event", "vm", "phase", "bytes_done", "bytes_total", "rate_bytes_per_sec", "eta_sec", "guest_paused", "iteration",
            "mode",
        ]  # fmt: skip
        assert (line["phase"], line["mode"]) == ("capturing", "plain")
    assert of_event(lines, "progress")[-1]["bytes_done"] == 15
    sealed = lines[-1]
    assert list(sealed) == ["event", "vm", "manifest"]
    assert list(sealed["manifest"]) == [*RECORD, "domain_xml"]
    dump = Path(sealed["manifest"]["dump_path"])
    assert dump.parent == memdump.dump_dir
    assert json.loads(manifest_path(dump).read_text()) == sealed["manifest"]
    assert memdump.records() == [sealed["manifest"]["dump_id"]]


def test_a_dump_by_hand_is_in_the_audit_trail_and_the_next_one_tells_of_it(memdump: CommandLine) -> None:
    first, second = (memdump.json("777")[1][-1]["manifest"] for _ in range(2))
    with contextlib.closing(sqlite3.connect(memdump.state_file)) as db:
        entries = list(entries_in(db))
    assert look_over(entries).first_wrong is None
    assert [(entry.deed, entry.via, entry.subject, entry.result) for entry in entries] == [
        ("dump", "command-line", "one-43", "sealed")
    ] * 2
    assert [entry.details["stored_sha256"] for entry in entries] == [first["stored_sha256"], second["stored_sha256"]]
    assert (first["audit_head"], second["audit_head"]) == (None, entries[0].hash)


def test_a_failed_line_says_which_vm_and_why(memdump: CommandLine) -> None:
    code, lines = memdump.json("off")
    assert (code, len(lines)) == (3, 1)
    assert list(lines[0]) == ["event", "vm", "code", "message"]
    assert (lines[0]["event"], lines[0]["vm"], lines[0]["code"]) == ("failed", "off", "vm-not-running")


def test_for_a_person_it_says_where_the_dump_is_and_how_to_check_it(memdump: CommandLine) -> None:
    code, out, err = memdump.run("alpha")
    (dump,) = memdump.dump_dir.glob("*.mem.gz")
    assert code == 0
    assert str(dump) in out
    assert f"zcat {dump} | sha256sum" in out
    assert "image   15 B, SHA-256" in out
    assert "alpha: capturing, plain" in err


def test_options_reach_the_manifest(tmp_path: Path) -> None:
    memdump = CommandLine(tmp_path, "test:///default")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    code, lines = memdump.json(
        f"--uri={node(tmp_path / 'node.xml', VMS)}", f"--dump-dir={elsewhere}", "--mode=paused", "--compression=zstd", "--level=3",
        "--max-pause-ms=50", "--timeout-sec=9", "--reason=why so", "--case=C-1", "--", "alpha",
    )  # fmt: skip
    assert code == 0
    manifest = lines[-1]["manifest"]
    assert Path(manifest["dump_path"]).parent == elsewhere
    assert (manifest["reason"], manifest["case"]) == ("why so", "C-1")
    assert (manifest["compression"]["algorithm"], manifest["compression"]["level"]) == ("zstd", 3)
    assert manifest["operator"]


def test_all_captures_every_vm_that_has_memory(memdump: CommandLine) -> None:
    code, lines = memdump.json("--all")
    assert code == 0
    assert sorted(line["manifest"]["uuid"] for line in of_event(lines, "sealed")) == sorted(vm.uuid for vm in ACTIVE)
    assert len(memdump.records()) == len(ACTIVE)


@pytest.mark.parametrize("uuid", [ALPHA.uuid.upper(), ALPHA.uuid.replace("-", "")])
def test_a_uuid_may_be_spelt_in_any_way(memdump: CommandLine, uuid: str) -> None:
    code, lines = memdump.json(uuid)
    assert (code, lines[-1]["manifest"]["uuid"]) == (0, ALPHA.uuid)


def test_a_vm_named_twice_is_captured_once(memdump: CommandLine) -> None:
    code, lines = memdump.json("alpha", "beta", "alpha")
    assert code == 0
    assert [line["vm"] for line in of_event(lines, "sealed")] == ["alpha", "beta"]


def test_a_vm_named_in_several_ways_is_captured_once(memdump: CommandLine) -> None:
    code, lines = memdump.json("alpha", ALPHA.uuid, "beta", "1", ALPHA.uuid.upper())
    assert code == 0
    assert [line["vm"] for line in of_event(lines, "sealed")] == ["alpha", "beta"]


def test_no_record_leaves_the_record_to_somebody_else(memdump: CommandLine) -> None:
    code, lines = memdump.json("--no-record", "alpha")
    assert code == 0
    assert manifest_path(Path(lines[-1]["manifest"]["dump_path"])).exists()
    assert memdump.records() == []


# --- how it ends


@pytest.mark.parametrize(
    "arguments",
    [[], ["--all", "alpha"], ["--mode=fast", "alpha"], ["--level=99", "alpha"], ["--timeout-sec=-1", "alpha"], ["alpha", ""]],
)  # fmt: skip
def test_exit_2_for_wrong_usage(memdump: CommandLine, arguments: list[str]) -> None:
    code, _, err = memdump.run(*arguments)
    assert code == 2
    assert err
    assert list(memdump.dump_dir.iterdir()) == []


@pytest.mark.parametrize(
    "arguments", [["\udcff"], ["--reason=\udcff", "alpha"], ["--case=\udcff", "alpha"], ["--operator=\udcff", "alpha"]]
)
def test_exit_2_for_what_is_no_text_before_any_memory_is_read(memdump: CommandLine, arguments: list[str]) -> None:
    code, out, err = memdump.run("--json", *arguments)
    assert (code, out) == (2, "")
    assert "is not text in UTF-8" in err


def test_exit_3_when_all_are_none(tmp_path: Path) -> None:
    memdump = CommandLine(tmp_path, node(tmp_path / "node.xml", (OFF,)))
    code, lines = memdump.json("--all")
    assert (code, [(line["vm"], line["code"]) for line in lines]) == (3, [("*", "nothing-to-dump")])


def test_exit_4_when_libvirt_stops_answering_while_it_lists_all(memdump: CommandLine) -> None:
    script = """
import sys
import scripts.memdump as memdump
from app.errors import HypervisorNotResponding
def active(connection):
    raise HypervisorNotResponding(connection.uri)
memdump.Connection.active = active
sys.exit(memdump.main(["--json", "--all"]))
"""
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=SCRIPT.parent.parent,
        env=memdump.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        code = process.wait(ENDS_SEC)
        out, _ = process.communicate()
    (line,) = map(json.loads, out.splitlines())
    assert (code, line["vm"], line["code"]) == (4, "*", "hypervisor-not-responding")


@needs_root
def test_a_user_without_a_name_is_a_number(memdump: CommandLine) -> None:
    command = ["setpriv", "--reuid=54321", "--clear-groups", sys.executable, "-c"]
    script = "import sys; sys.argv = ['memdump']; import scripts.memdump as memdump; print(memdump._user_name())"
    names = {name: value for name, value in memdump.environment.items() if name not in ("LOGNAME", "USER", "LNAME", "USERNAME")}
    ended = subprocess.run([*command, script], cwd=SCRIPT.parent.parent, env=names, capture_output=True, text=True)
    assert ended.stdout.strip() == "54321", ended.stderr


def test_a_value_that_is_refused_is_the_only_one_that_is_named(memdump: CommandLine) -> None:
    _, _, err = memdump.run("--timeout-sec=-1", "alpha")
    assert "--timeout-sec must be 0" in err
    assert "--max-pause-ms must" not in err


def test_a_folder_in_which_no_file_can_be_made_is_not_said_to_be_missing(memdump: CommandLine) -> None:
    code, lines = memdump.json("--dump-dir=/proc", "alpha")
    assert (code, lines[-1]["code"]) == (6, "dump-dir-unusable")
    assert "/proc: no file can be made there" in lines[-1]["message"]


def test_exit_2_for_a_setting_that_makes_no_sense(tmp_path: Path) -> None:
    memdump = CommandLine(tmp_path, node(tmp_path / "node.xml", VMS), MEMDUMP_MOOD="good")
    code, out, err = memdump.run("alpha")
    assert (code, out) == (2, "")
    assert "MEMDUMP_MOOD" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("vm", "error"), [("nowhere", "vm-unknown"), ("500", "ambiguous-vm"), ("off", "vm-not-running"), (OFF.uuid, "vm-not-running")]
)
def test_exit_3_for_a_vm_that_cannot_be_meant(memdump: CommandLine, vm: str, error: str) -> None:
    code, lines = memdump.json(vm)
    assert (code, [line["code"] for line in lines]) == (3, [error])


def test_exit_4_when_the_hypervisor_cannot_be_reached(tmp_path: Path) -> None:
    memdump = CommandLine(tmp_path, f"qemu+unix:///system?socket={tmp_path}/nobody")
    code, lines = memdump.json("alpha", "beta")
    assert code == 4
    assert [(line["vm"], line["code"]) for line in lines] == [
        ("alpha", "hypervisor-unreachable"), ("beta", "hypervisor-unreachable"),
    ]  # fmt: skip


def test_exit_5_when_there_is_not_enough_space(tmp_path: Path) -> None:
    """A limit on the size of files says no to the reservation just as a disk does."""
    memdump = CommandLine(tmp_path, node(tmp_path / "node.xml", VMS))
    limited = ["sh", "-c", 'trap "" XFSZ; ulimit -f 1024; exec "$@"', "sh", sys.executable, str(SCRIPT), "--json", "alpha"]
    with subprocess.Popen(
        limited, env=memdump.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        lines = [json.loads(line) for line in process.stdout]
        assert process.wait(ENDS_SEC) == 5
    assert (lines[-1]["event"], lines[-1]["code"]) == ("failed", "no-space")
    assert list(memdump.dump_dir.iterdir()) == []


def test_exit_6_when_the_dump_cannot_be_kept(memdump: CommandLine) -> None:
    memdump.dump_dir.rmdir()
    code, lines = memdump.json("alpha")
    assert (code, lines[-1]["code"]) == (6, "dump-dir-unusable")


def test_exit_7_when_the_time_is_over(memdump: CommandLine) -> None:
    code, lines = memdump.json("--timeout-sec=0.000001", "alpha")
    assert (code, lines[-1]["code"]) == (7, "timed-out")
    assert list(memdump.dump_dir.iterdir()) == []


def test_exit_9_when_the_record_cannot_be_kept_but_the_dump_is(memdump: CommandLine) -> None:
    memdump.state_file.parent.write_text("a file where the state directory should be")
    code, lines = memdump.json("alpha")
    assert (code, lines[-1]["event"]) == (9, "sealed")
    assert manifest_path(Path(lines[-1]["manifest"]["dump_path"])).exists()


def test_of_several_vms_the_worst_decides_and_the_others_are_captured(memdump: CommandLine) -> None:
    code, lines = memdump.json("nowhere", "alpha", "off", "777")
    assert code == 3
    assert [line["vm"] for line in of_event(lines, "sealed")] == ["alpha", "777"]
    assert [line["code"] for line in of_event(lines, "failed")] == ["vm-unknown", "vm-not-running"]


def test_a_failed_capture_outranks_a_vm_that_is_unknown(memdump: CommandLine) -> None:
    memdump.dump_dir.rmdir()
    code, lines = memdump.json("nowhere", "alpha")
    assert (code, [line["code"] for line in lines if line["event"] == "failed"]) == (6, ["vm-unknown", "dump-dir-unusable"])


# --- how it is cancelled


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Gate]:
    """A hypervisor that answers nobody: somebody else's connection was the one that got through."""
    with gate(tmp_path / "node.fifo", [ALPHA, BETA]) as made:
        (tmp_path / "node.fifo").read_text()
        yield made


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_cancels_it(tmp_path: Path, closed: Gate, number: signal.Signals) -> None:
    memdump = CommandLine(tmp_path, closed.uri)
    with memdump.start("--json", "alpha", "beta") as process, closed.somebody_waits():
        process.send_signal(number)
        code = process.wait(ENDS_SEC)
        out, _ = process.communicate()
    assert code == 8
    assert {json.loads(line)["code"] for line in out.splitlines()} == {"cancelled"}
    assert list(memdump.dump_dir.iterdir()) == []


def test_a_terminal_that_goes_cancels_it(tmp_path: Path, closed: Gate) -> None:
    memdump = CommandLine(tmp_path, closed.uri)
    ours, theirs = os.openpty()
    command = [sys.executable, str(SCRIPT), "alpha"]
    with subprocess.Popen(command, env=memdump.environment, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        with closed.somebody_waits():
            os.close(ours)
            process.send_signal(signal.SIGHUP)
            assert process.wait(ENDS_SEC) == 8


def test_with_nohup_it_outlives_its_terminal(tmp_path: Path, closed: Gate) -> None:
    memdump = CommandLine(tmp_path, closed.uri)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = memdump.start("--json", "alpha")
    finally:
        signal.signal(signal.SIGHUP, before)
    with process, closed.somebody_waits():
        ignored = re.search(r"^SigIgn:\t([0-9a-f]+)$", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE)
        process.send_signal(signal.SIGTERM)
        assert process.wait(ENDS_SEC) == 8
    assert ignored is not None
    assert int(ignored[1], 16) & 1 << signal.SIGHUP - 1


def test_a_reader_that_went_away_gets_no_complaint(memdump: CommandLine) -> None:
    with memdump.start("--json", "nobody", "alpha") as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(ENDS_SEC) == 8
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert list(memdump.dump_dir.iterdir()) == []


def _waits_with_signals(pid: int) -> bool:
    """Whether the process holds SIGTERM back (proc(5)), as the script does from its first line on."""
    blocked = re.search(r"^SigBlk:\t([0-9a-f]+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return blocked is not None and bool(int(blocked[1], 16) & 1 << signal.SIGTERM - 1)


def _has_loaded(library: str) -> Callable[[int], bool]:
    return lambda pid: library in Path(f"/proc/{pid}/maps").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    "moment",
    [_waits_with_signals, _has_loaded("msgspec"), _has_loaded("libvirt.so")],
    ids=["first line", "while it imports", "libvirt loaded"],
)
def test_a_signal_cancels_it_however_early_it_comes(
    tmp_path: Path, closed: Gate, number: signal.Signals, moment: Callable[[int], bool]
) -> None:
    memdump = CommandLine(tmp_path, closed.uri)
    with memdump.start("--json", "alpha") as process:
        eventually(lambda: moment(process.pid), "it is as far as that")
        process.send_signal(number)
        code = process.wait(ENDS_SEC)
        out, err = process.communicate()
    assert (code, json.loads(out)["code"], err) == (8, "cancelled", "")


@pytest.mark.parametrize("python", [sys.executable, "/usr/bin/python3"], ids=["own Python", "the system's Python"])
def test_a_signal_that_comes_before_its_first_line_cancels_it_where_it_was_started_to_wait_for_it(
    tmp_path: Path, closed: Gate, python: str
) -> None:
    """Python itself takes a moment to start and dies of a signal in it; who cannot have that starts it with SIGTERM blocked."""
    memdump = CommandLine(tmp_path, closed.uri)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        process = memdump.start("--json", "alpha", python=python)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    with process:
        process.send_signal(signal.SIGTERM)
        code = process.wait(ENDS_SEC)
        out, _ = process.communicate()
    assert (code, json.loads(out)["code"]) == (8, "cancelled")


def test_the_end_of_its_standard_input_cancels_it_with_json(tmp_path: Path, closed: Gate) -> None:
    memdump = CommandLine(tmp_path, closed.uri)
    with memdump.start("--json", "alpha") as process, closed.somebody_waits():
        out, _ = process.communicate(timeout=ENDS_SEC)  # which closes it
        assert process.returncode == 8
    assert json.loads(out)["code"] == "cancelled"


def test_without_json_the_end_of_its_standard_input_means_nothing(memdump: CommandLine) -> None:
    with memdump.start("alpha") as process:
        process.communicate(timeout=ENDS_SEC)
        assert process.returncode == 0


# --- beside a service


@pytest.fixture
def beside(tmp_path: Path) -> Iterator[tuple[Service, CommandLine]]:
    uri = node(tmp_path / "node.xml", [ALPHA, NEBULA, Vm(name="more", uuid=numbered_uuid(20))])
    with running_service(tmp_path, LIBVIRT_URI=uri) as service:
        yield service, CommandLine(tmp_path, uri)


async def test_a_running_service_tells_of_a_dump_made_by_hand(beside: tuple[Service, CommandLine]) -> None:
    service, memdump = beside
    async with Api.of(service) as api:
        await api.connected()
        async with api.feed("topics=record,stats,vms") as feed:
            await feed.next()
            code, lines = memdump.json("alpha")
            manifest = lines[-1]["manifest"]
            heard = {message["type"]: message for message in [await feed.next() for _ in range(3)]}
        assert code == 0
        assert heard["record"]["record"] == {name: value for name, value in manifest.items() if name != "domain_xml"}
        assert heard["stats"]["stats"]["total_dumps"] == 1
        assert next(vm for vm in heard["vms"]["vms"] if vm["name"] == "alpha")["last_dump"] == manifest["timestamp"]
        assert await api.get(f"{RECORDS}/{manifest['dump_id']}") == manifest


async def test_a_dump_made_by_hand_is_in_the_activity_log_and_one_of_the_service_is_not_taken_for_it(
    beside: tuple[Service, CommandLine],
) -> None:
    service, memdump = beside
    async with Api.of(service) as api:
        await api.connected()
        async with api.feed("topics=activity") as feed:
            await api.dump("alpha")
            _, lines = memdump.json("--operator=eve", "alpha")
            await feed.until(lambda message: message["type"] == "activity" and message["activity"]["code"] == "dumped-by-hand")
        told = [line for line in (await api.get("/api/memory-dumps/activity"))["activity"] if line["code"] == "dumped-by-hand"]
    assert [(line["message"], line["dump_id"]) for line in told] == [
        ("alpha was dumped by hand by eve.", lines[-1]["manifest"]["dump_id"])
    ]


async def test_a_dump_without_a_record_gets_one_at_the_next_start(beside: tuple[Service, CommandLine]) -> None:
    service, memdump = beside
    _, lines = memdump.json("--no-record", "alpha")
    service.stop()
    service.restart()
    async with Api.of(service) as api:
        assert [record["dump_id"] for record in (await api.get(RECORDS))["records"]] == [lines[-1]["manifest"]["dump_id"]]
