"""The page's modules, run by Node.js; and that they write figures as the server does."""

from __future__ import annotations

import json
import random
import re
import subprocess
from pathlib import Path

import playwright

from app.web.templates import ago_text, bytes_text, duration_text, short_text, when_text

HERE = Path(__file__).resolve().parent
NODE = Path(playwright.__file__).parent / "driver" / "node"
"""Playwright brings a Node of a known version; a system may have none, or one that is too old."""

FORMAT = HERE.parents[2] / "app" / "static" / "format.js"

_WRITE_ALL = """
import { readFileSync } from "node:fs";
import * as format from %s;
const asked = JSON.parse(readFileSync(0, "utf8"));
for (const name in asked) asked[name] = asked[name].map(format[name]);
console.log(JSON.stringify(asked));
"""


def _node(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([NODE, *arguments], input=stdin, capture_output=True, text=True, timeout=60)


def test_the_modules_do_what_their_tests_say() -> None:
    run = _node("--test", "--test-reporter=tap", *map(str, sorted(HERE.glob("*.test.js"))))
    assert run.returncode == 0, run.stdout + run.stderr
    passed = re.search(r"^# pass (\d+)$", run.stdout, re.MULTILINE)
    assert passed, run.stdout
    assert int(passed[1]) >= len(list(HERE.glob("*.test.js")))


def test_the_page_writes_every_figure_as_the_server_does() -> None:
    chance = random.Random(20261123)  # noqa: S311 - figures to compare, no secret
    sizes = [chance.randrange(2 ** chance.randrange(1, 52)) for _ in range(2000)]
    # Ties are where the languages round differently: 1152 MiB is 1.125 GiB.
    ties = [2**power * eighths // 8 for power in range(10, 45) for eighths in range(8, 1024 * 8, 977)] + [1152 * 2**20, 102_912]
    spans = [chance.random() * 10 ** chance.randrange(5) for _ in range(2000)]
    whole = [eighths / 8 for eighths in range(1000)]
    asked = {
        "bytes": [None, 0, *sizes, *ties],
        "duration": [None, 0, *spans, *whole, 59.94, 59.95, 3599.5, 3600],
        "when": [None, "2026-11-23T10:30:00.999999Z", "2026-11-23T12:30:00+02:00"],
        "short": [None, "", "0123456789abcdef"],
        "ago": [-1, 0, 59.9, 60, 3599.9, 3600, 172_799.9, 172_800, *(span * 100 for span in spans)],
    }
    run = _node("--input-type=module", "--eval", _WRITE_ALL % json.dumps(FORMAT.as_uri()), stdin=json.dumps(asked))
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == {
        "bytes": [bytes_text(count) for count in asked["bytes"]],
        "duration": [duration_text(seconds) for seconds in asked["duration"]],
        "when": [when_text(moment) for moment in asked["when"]],
        "short": [short_text(text) for text in asked["short"]],
        "ago": [ago_text(seconds) for seconds in asked["ago"]],
    }
