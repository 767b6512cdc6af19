"""What ``docs/operations`` holds to be copied: the systemd unit and the polkit rule do what they say."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import playwright
import pytest

from app.config import Settings
from tests.service import ROOT

FOLDER = ROOT / "docs" / "operations"
UNIT = FOLDER / "memory-dumps.service"
RULES = FOLDER / "60-memory-dumps.rules"
NODE = Path(playwright.__file__).parent / "driver" / "node"
ANALYZE = shutil.which("systemd-analyze")

MAY = {
    "org.libvirt.unix.manage",
    *(f"org.libvirt.api.connect.{right}" for right in ("getattr", "read", "search-domains", "write")),
    *(f"org.libvirt.api.domain.{right}" for right in ("getattr", "read", "core-dump", "migrate", "suspend")),
}
"""Found by running captures of both modes under libvirt's polkit driver, and looking what it asked for; resume is ``suspend``."""

MAY_NOT = {
    "org.libvirt.unix.monitor",
    *(f"org.libvirt.api.domain.{right}" for right in (
        "write", "read-secure", "mem-read", "start", "stop", "reset", "init-control", "delete", "save", "open-device", "send-input",
        "screenshot", "snapshot", "block-write", "fs-freeze", "set-password",
    )),
    "org.libvirt.api.connect.search-secrets", "org.libvirt.api.secret.read-secure", "org.libvirt.api.connect.pm-control",
}  # fmt: skip

_JUDGE = """
const rules = [];
globalThis.polkit = { Result: { YES: "yes", NO: "no", NOT_HANDLED: null }, addRule: (rule) => rules.push(rule) };
(0, eval)(%s);
const asked = %s;
console.log(JSON.stringify(asked.map(([id, user]) => rules.map((rule) => rule({ id }, { user })))));
"""


def judged(*asked: tuple[str, str]) -> list[str | None]:
    """What the rule says to each (action, user)."""
    script = _JUDGE % (json.dumps(RULES.read_text()), json.dumps(asked))
    run = subprocess.run([NODE, "--eval", script], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    answers: list[list[str | None]] = json.loads(run.stdout)
    return [answer for (answer,) in answers]


def test_the_rule_lets_the_services_user_do_what_a_dump_needs_and_nothing_else_of_libvirt() -> None:
    assert judged(*((action, "memdump") for action in sorted(MAY))) == ["yes"] * len(MAY)
    assert judged(*((action, "memdump") for action in sorted(MAY_NOT))) == ["no"] * len(MAY_NOT)


def test_the_rule_says_nothing_of_other_users_and_other_programs() -> None:
    others = [(action, user) for action in sorted(MAY | MAY_NOT) for user in ("root", "anna", "memdump2", "")]
    assert judged(*others, ("org.freedesktop.systemd1.manage-units", "memdump")) == [None] * (len(others) + 1)


def test_the_unit_is_one_for_systemd_and_exposes_little(tmp_path: Path) -> None:
    if ANALYZE is None:
        pytest.skip("this machine has no systemd-analyze")
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/memory-dumps/.venv/bin/python", "/bin/true"))
    verified = subprocess.run([ANALYZE, "verify", unit], capture_output=True, text=True, timeout=60)
    assert (verified.returncode, verified.stderr) == (0, "")
    looked_at = subprocess.run(
        [ANALYZE, "security", "--offline=yes", "--threshold=15", unit], capture_output=True, text=True, timeout=60
    )
    assert looked_at.returncode == 0, looked_at.stdout[-500:]  # 1.5 of 10


def test_the_units_environment_is_one_that_the_service_takes_and_may_write_to() -> None:
    unit = UNIT.read_text()
    settings = Settings.from_environment(dict(re.findall(r"^Environment=(\w+)=(.*)$", unit, re.MULTILINE)))
    assert settings.dump_dir.is_relative_to("/var/lib/memory-dumps")  # StateDirectory
    assert settings.state_dir.is_relative_to("/var/lib/memory-dumps")
    assert settings.log_dir == Path("/var/log/memory-dumps")  # LogsDirectory
    assert {"StateDirectory=memory-dumps", "LogsDirectory=memory-dumps", "OOMPolicy=continue"} <= set(unit.splitlines())
