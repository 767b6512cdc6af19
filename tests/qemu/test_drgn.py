"""Another program reads a live dump of a running guest: drgn, with the kernel's symbols, finds the tasks that the guest had."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from demo import Guest, PrivateLibvirt
from demo.kernel import debug_kernel
from tests.lab import DB, WEB
from tests.qemu.outside import dumped, unpacked_to

DRGN_SEC = 150.0
NAME_BYTES = 15  # of a task's name in its task_struct; /proc tells the whole name of a kernel thread
LIST_TASKS = """
import sys
import drgn
from drgn.helpers.linux.pid import for_each_task
program = drgn.Program()
program.set_core_dump(sys.argv[1])
program.load_debug_info([sys.argv[2]])
for task in for_each_task(program):
    print(task.pid.value_(), task.comm.string_().decode())
"""


@pytest.mark.deep
@pytest.mark.parametrize("guest", [WEB, DB], ids=lambda guest: guest.name)
def test_drgn_lists_the_tasks_that_the_guest_printed(lab: PrivateLibvirt, tmp_path: Path, guest: Guest) -> None:
    manifest = dumped(lab, tmp_path, guest, "--mode=live")
    assert manifest["mode"] == "live"
    image = unpacked_to(manifest, tmp_path / "image")
    command = [sys.executable, "-c", LIST_TASKS, str(image), str(debug_kernel())]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=DRGN_SEC)
    assert ran.returncode == 0, ran.stderr
    listed = set(ran.stdout.splitlines())
    printed = _printed(lab, guest)
    assert {"1 init", "2 kthreadd"} < printed
    assert printed <= listed
    assert any(task.endswith(" sleep") for task in listed - printed), "what it runs since then"


def _printed(lab: PrivateLibvirt, guest: Guest) -> set[str]:
    """What the guest printed of its tasks; the kernel's workers come and go, and change their names."""
    console = (lab.folder / "guests" / f"{guest.name}.console").read_text()
    found = re.findall(r"^TASK (\d+) ([^\r\n]+)", console, re.MULTILINE)
    return {f"{pid} {name[:NAME_BYTES]}" for pid, name in found if "kworker" not in name}
