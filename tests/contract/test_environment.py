"""Contract, section 2: what the environment sets, and how a start that cannot be ends."""

from __future__ import annotations

import json
import re
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from app.config import KNOWN_NAMES
from tests.contract.conftest import ALPHA
from tests.contract.speech import RECORDS, Api
from tests.nodes import node
from tests.service import ROOT, STOP_SEC, run_app, running_service, service_environment

PYTHON = sys.executable


def refusal(tmp_path: Path, **settings: str) -> tuple[int, str]:
    """Exit code of a start that is refused, and the one line that it says."""
    ended = run_app(environment=service_environment(tmp_path, **settings))
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1
    return ended.returncode, ended.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MEMDUMP_PROT", "8000"),
        ("MEMDUMP_PORT", "http"),
        ("MEMDUMP_MODE", "sideways"),
        ("MEMDUMP_SPOOL_MEMORY", "much"),
        ("INFLUX_URL", "localhost:8181"),
        ("MEMDUMP_NAV", "Backups"),
    ],
)
def test_a_name_or_value_that_makes_no_sense_ends_the_start_with_one_line_that_names_it(
    tmp_path: Path, name: str, value: str
) -> None:
    code, line = refusal(tmp_path, **{name: value})
    assert code == 2
    assert name in line
    assert not (tmp_path / "state").exists()


def test_the_example_of_a_url_fits_its_name(tmp_path: Path) -> None:
    assert "http://influx.example.org:8181" in refusal(tmp_path, INFLUX_URL="localhost:8181")[1]
    assert "https://dumps.example.org" in refusal(tmp_path, MEMDUMP_PUBLIC_URL="dumps")[1]


def test_a_python_that_lacks_the_packages_hands_over_to_the_projects_own(tmp_path: Path) -> None:
    ended = subprocess.run(
        ["/usr/bin/python3", "-m", "app", "serve"],
        cwd=ROOT,
        env=service_environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    ways = "login-url | account … | token … | records rebuild [--deliver] | audit verify | audit export"
    assert ended.stderr == f"usage: python -m app [{ways}]\n"


def test_an_open_service_may_only_listen_on_loopback(tmp_path: Path) -> None:
    code, line = refusal(tmp_path, MEMDUMP_AUTH="none", MEMDUMP_HOST="0.0.0.0")  # noqa: S104 - it is refused
    assert (code, "MEMDUMP_AUTH=none" in line) == (2, True)


def test_wrong_usage_is_told(tmp_path: Path) -> None:
    ended = run_app("serve", environment=service_environment(tmp_path))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "login-url" in ended.stderr


def test_a_port_that_is_taken_ends_the_start_before_anything_is_touched(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, line = refusal(tmp_path, MEMDUMP_PORT=port)
    assert (code, port in line) == (1, True)
    assert list(tmp_path.iterdir()) == []


def test_two_services_never_share_a_state_directory(tmp_path: Path) -> None:
    with running_service(tmp_path) as service:
        code, line = refusal(tmp_path)
        assert code == 1
        assert str(service.state_dir) in line
        assert str(service.process.pid) in line
    with running_service(tmp_path) as service:  # and once it has ended, the next may
        assert service.process.poll() is None


async def test_login_url_prints_one_line_that_logs_in(tmp_path: Path) -> None:
    with running_service(tmp_path) as service:
        ended = run_app("login-url", environment={**service.environment, "MEMDUMP_PORT": str(service.port)})
        assert (ended.returncode, ended.stderr) == (0, "")
        found = re.fullmatch(rf"{re.escape(service.url)}/login\?code=(\S+)\n", ended.stdout)
        assert found
        async with (
            aiohttp.ClientSession(service.url) as session,
            session.post("/login", data={"code": found[1]}, allow_redirects=False) as answer,
        ):
            assert answer.status == 303


def test_a_login_url_that_would_open_nothing_is_not_made(tmp_path: Path) -> None:
    ended = run_app("login-url", environment=service_environment(tmp_path))
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.count("\n") == 1
    assert f"MEMDUMP_STATE_DIR={tmp_path / 'state'}" in ended.stderr
    assert list(tmp_path.iterdir()) == []


async def test_the_first_start_shows_a_token_and_every_start_a_login_url(tmp_path: Path) -> None:
    with running_service(tmp_path, LIBVIRT_URI=node(tmp_path / "node.xml", [ALPHA])) as service:
        token, first_url = service.token, service.login_url
        assert token
        assert len([line for line in service.printed if token in line or first_url in line]) == 2
        service.stop()
        service.restart()
        assert token not in "\n".join(service.printed)
        assert "token" not in "\n".join(service.printed).lower()
        assert service.login_url not in ("", first_url)
        async with Api.of(service) as api:  # with the token of the first start
            await api.get(RECORDS)


def test_what_a_start_makes_is_for_its_user_alone(tmp_path: Path) -> None:
    with running_service(tmp_path) as service:
        for folder in (service.dump_dir, service.state_dir):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        for file in (*service.state_dir.iterdir(), service.log_dir / "memdump_to_influx.log"):
            assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize(("mode", "told"), [(0o700, False), (0o755, True), (0o770, True)])
def test_a_dump_dir_that_others_may_look_into_is_told_and_left_as_it_is(tmp_path: Path, mode: int, told: bool) -> None:
    (tmp_path / "dumps").mkdir()
    (tmp_path / "dumps").chmod(mode)
    with running_service(tmp_path) as service:
        service.stop()  # so that the log is written
        assert ("dump_dir_open_to_others" in service.log_text()) is told
        assert stat.S_IMODE(service.dump_dir.stat().st_mode) == mode


def test_the_log_tells_when_a_service_started_and_that_it_ended_in_good_order(tmp_path: Path) -> None:
    with running_service(tmp_path) as service:
        assert service.stop() == 0
        events = [json.loads(line)["event"] for line in service.log_text().splitlines()]
        assert events[-1] == "service_ended"
        assert events.index("service_started") < events.index("service_ends")


def test_a_terminal_that_goes_ends_it_in_good_order(tmp_path: Path) -> None:
    with running_service(tmp_path, LIBVIRT_URI=node(tmp_path / "node.xml", [ALPHA])) as service:
        service.process.send_signal(signal.SIGHUP)
        assert service.process.wait(STOP_SEC) == 0
        assert "service_ended" in service.log_text()


def test_the_containers_health_check_follows_the_port(tmp_path: Path) -> None:
    found = re.search(r"^HEALTHCHECK .*\\\n +CMD (\[.*\])$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert found
    _, *arguments = json.loads(found[1])
    with running_service(tmp_path) as service, socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        for port, healthy in ((service.port, True), (nobody.getsockname()[1], False)):
            environment = {**service.environment, "MEMDUMP_PORT": str(port)}
            ended = subprocess.run([PYTHON, *arguments], env=environment, capture_output=True, timeout=30)
            assert (ended.returncode == 0) is healthy


async def test_a_dump_dir_that_cannot_be_used_is_told_at_the_start_and_by_each_dump(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("somebody's")
    settings = {"LIBVIRT_URI": node(tmp_path / "node.xml", [ALPHA]), "DUMP_DIR": str(in_the_way / "dumps")}
    with running_service(tmp_path, **settings) as service:
        async with Api.of(service) as api:
            await api.connected()
            lines = (await api.get("/api/memory-dumps/activity"))["activity"]
            (line,) = [line for line in lines if line["code"] == "dump-dir-unusable"]
            assert line["kind"] == "error"
            assert line["message"].startswith(f"Dumps cannot be written to {in_the_way}/dumps: Not a directory.")
            assert "DUMP_DIR" in line["message"]
            (job,) = await api.dump("alpha")
    assert (job["phase"], job["error"]["code"]) == ("failed", "dump-dir-unusable")
    assert str(in_the_way) in job["error"]["message"]


async def test_an_influxdb_that_is_not_there_is_said_and_its_token_is_not(tmp_path: Path) -> None:
    settings = {"INFLUX_URL": "http://127.0.0.1:1", "INFLUX_TOKEN": "very-secret"}
    with running_service(tmp_path, **settings) as service:
        async with Api.of(service) as api, api.feed("topics=history") as feed:
            history = (await feed.next())["history"]
            while history["state"] == "connecting":
                history = (await feed.next())["history"]
        assert history["state"] == "unreachable"
        assert "INFLUX_URL" in history["message"]
        assert "history-unreachable" in service.log_text()
        assert "very-secret" not in service.log_text() + service.stderr_text()


def test_the_defaults_are_the_contracts(tmp_path: Path) -> None:
    """Without a single setting, in a folder of its own: the folders, the address and the way in."""
    environment = {
        name: value
        for name, value in service_environment(tmp_path).items()
        if name not in KNOWN_NAMES and name not in ("LIBVIRT_URI", "DUMP_DIR")
    }
    script = "from app.config import Settings; import os; print(Settings.from_environment(os.environ))"
    ended = subprocess.run(
        [PYTHON, "-c", script],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert ended.returncode == 0, ended.stderr
    for part in (
        "libvirt_uri='qemu:///system'",
        f"dump_dir=PosixPath('{tmp_path}/var/dumps')",
        f"log_dir=PosixPath('{tmp_path}/var/log')",
        f"state_dir=PosixPath('{tmp_path}/var/state')",
        "influx_url=None, influx_db='vmstats', influx_token=None",
        "host='127.0.0.1', port=8000, public_urls=()",
        "max_concurrent_dumps=2, dump_timeout_sec=300.0, mode='auto', max_pause_ms=300, fallback_pause_ms=10000",
        "compression='gzip', auth='token'",
    ):
        assert part in ended.stdout
