"""The details of a dump: their texts, the same by the page's script; and the check command, run by a shell."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import playwright
import pytest

from app.capture.codecs import codec
from app.model import ALGORITHMS, Algorithm, Compression, Manifest, Versions
from app.records.point import record_of
from app.web.details import NONE, UNKNOWN, check_command, is_foreign, shell_quoted, texts_of
from tests.histories import manifest_at

NODE = Path(playwright.__file__).parent / "driver" / "node"
MANIFEST_JS = Path(__file__).resolve().parents[2] / "app" / "static" / "manifest.js"
OWN = manifest_at(1_795_429_800_000_000_000)
FOREIGN = record_of(
    {
        "time": 1_795_429_800_000_000_000,
        "dom": "old",
        "vmid": "7",
        "sha256": "a" * 64,
        "gzip_size_bytes": 2000,
        "dump_path": "/d/7_1.mem.gz",
    }
)
NAMES = [
    "plain.mem.gz",
    "two words.mem.gz",
    "it's.mem.gz",
    "$(touch owned);`id`&|<>*?.gz",
    "-rf",
    "back\\slash'\n.gz",
    "esc\x1b[201~\rtouch owned\n",
    "turned\u202egnp.gz",
    "smile\U0001f98aé",
    "hidden\u200b1",
    "nel\x85f",
    "'",
    "a#b ~c {d,e} [f] !g %h",
]

_WRITE_ALL = """
import { readFileSync } from "node:fs";
import { shellQuoted, textsOf } from %s;
const { records, words } = JSON.parse(readFileSync(0, "utf8"));
console.log(JSON.stringify({ records: records.map(textsOf), words: words.map(shellQuoted) }));
"""


def samples() -> list[Manifest]:
    """Records of every kind."""
    return [
        OWN,
        FOREIGN,
        replace(OWN, vmid="", reason="why <b>not</b>", case="C-1", warnings=("one", "two"), domain_xml="<domain/>\n"),
        *(replace(OWN, compression=Compression(algorithm=kind, level=None, block_bytes=4 << 20)) for kind in ALGORITHMS),
        *(replace(OWN, dump_path=f"/dumps/{name}") for name in NAMES),
        *(
            replace(OWN, raw_size_bytes=raw, gzip_size_bytes=stored)
            for raw in (0, 1, 200, 2**43)
            for stored in (0, 1, 1023, 2**42 + 7)
        ),
        *(
            replace(OWN, guest_pause_ms=ms, guest_pauses_ms=(ms, 0.25), duration_sec=ms)
            for ms in (0.0, 0.05, 999.94, 999.95, 61_234.5)
        ),
        replace(OWN, guest_pauses_ms=(), mode="live", ctime=0),
        replace(OWN, guest_pauses_ms=(), mode="plain", format="raw", ctime=2**43),
        replace(OWN, sha256="no hash", versions=Versions(memory_dumps="0.1.0", libvirt="", qemu="")),
    ]


def test_the_script_writes_the_same_texts_as_the_server() -> None:
    asked = {"records": [msgspec.to_builtins(record) for record in samples()], "words": NAMES}
    command = [str(NODE), "--input-type=module", "--eval", _WRITE_ALL % json.dumps(MANIFEST_JS.as_uri())]
    run = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    written = json.loads(run.stdout)
    assert written["records"] == [dict(texts_of(record)) for record in samples()]
    assert written["words"] == [shell_quoted(name) for name in NAMES]


def test_every_value_of_a_manifest_is_among_the_texts_or_the_warnings() -> None:
    names = set(texts_of(OWN)) | {"warnings"}
    renamed = {
        "guest_pause_ms": "pause",
        "guest_pauses_ms": "pauses",
        "duration_sec": "duration",
        "raw_size_bytes": "raw_size",
        "gzip_size_bytes": "stored_size",
    }
    assert {renamed.get(name, name) for name in Manifest.__dataclass_fields__} - {"versions"} <= names
    assert set(Versions.__dataclass_fields__) <= names


def test_what_another_program_did_not_say_is_not_known_and_what_it_said_is_shown() -> None:
    assert is_foreign(FOREIGN)
    texts = texts_of(FOREIGN)
    assert (texts["dom"], texts["vmid"], texts["stored_size"]) == ("old", "7", "1.95 KiB (2,000 bytes)")
    unknown = {name for name, text in texts.items() if text == UNKNOWN}
    assert unknown >= {
        "mode",
        "format",
        "captured_at",
        "pause",
        "pauses",
        "raw_size",
        "ratio",
        "uuid",
        "stored_sha256",
        "qemu",
        "ctime",
    }
    assert NONE not in texts.values()
    assert texts["check"].startswith("zcat < /d/7_1.mem.gz | ")


def test_what_this_service_has_nothing_to_say_about_is_a_dash_and_not_unknown() -> None:
    texts = texts_of(replace(OWN, vmid=""))
    assert (texts["vmid"], texts["reason"]) == (NONE, NONE)
    assert UNKNOWN not in texts.values()


@pytest.mark.parametrize(
    ("algorithm", "name"), [*(("gzip", name) for name in NAMES), *((algorithm, "it's -f") for algorithm in ALGORITHMS)]
)
def test_the_check_command_says_ok_for_the_dump_and_failed_for_another(tmp_path: Path, algorithm: Algorithm, name: str) -> None:
    image = b"memory" * 1000
    file = tmp_path / name
    file.write_bytes(stored([image], algorithm))
    record = replace(
        OWN,
        dump_path=str(file),
        sha256=hashlib.sha256(image).hexdigest(),
        compression=Compression(algorithm=algorithm, level=1, block_bytes=1 << 20),
    )
    command = check_command(record)
    assert command is not None
    assert command.isprintable(), "a terminal obeys nothing in it"
    checked = in_bash(command, tmp_path)
    assert (checked.returncode, checked.stdout) == (0, "-: OK\n"), checked.stderr
    file.write_bytes(stored([b"something else"], algorithm))
    assert "FAILED" in in_bash(command, tmp_path).stdout
    assert list(tmp_path.iterdir()) == [file]


def test_without_a_hash_or_a_path_there_is_nothing_to_check() -> None:
    assert check_command(replace(OWN, sha256="$(id)")) is None
    assert check_command(replace(OWN, dump_path="")) is None


def stored(blocks: Sequence[bytes], algorithm: Algorithm) -> bytes:
    """A file as a seal writes it, its table at the end."""
    chosen = codec(algorithm)
    packed = [b"".join(chosen.pack(bytearray(block))) for block in blocks]
    lengths = [(len(piece), len(block)) for piece, block in zip(packed, blocks, strict=True)]
    return b"".join(packed) + chosen.table(lengths)


def in_bash(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, timeout=20)
