"""Dumps made by the command line, and looked at from the outside: with other people's programs, or by hand."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

from demo import Guest, PrivateLibvirt
from tests.contract.speech import Message
from tests.service import ROOT, service_environment

UNPACKERS = {"gzip": "zcat", "zstd": "zstdcat", "lz4": "lz4cat", "none": "cat"}
_VIRSH_SEC = 30.0


@dataclass(frozen=True, kw_only=True)
class Capture:
    """What a run of ``memdump.py --json`` said. ``peak_bytes`` is the most memory that it had while it said anything.

    (``ru_maxrss`` would not do: the kernel counts there what the parent had, too.)
    """

    code: int
    lines: list[Message]
    peak_bytes: int

    @property
    def manifest(self) -> Message:
        """That of the one dump that it sealed."""
        (sealed,) = [line for line in self.lines if line["event"] == "sealed"]
        manifest: Message = sealed["manifest"]
        return manifest


def memdump(lab: PrivateLibvirt, folder: Path, guest: Guest, *words: str, **settings: str) -> Capture:
    """``memdump.py --json`` for one guest, to its end, the paused way unless ``words`` say otherwise; dumps go into
    ``folder / "dumps"``."""
    environment = service_environment(folder, LIBVIRT_URI=lab.uri, **{"MEMDUMP_MODE": "paused", **settings})
    Path(environment["DUMP_DIR"]).mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(ROOT / "scripts/memdump.py"), "--json", *words, guest.name]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines, peak_bytes = [], 0
        for line in process.stdout:
            peak_bytes = max(peak_bytes, _peak_bytes(process.pid))
            lines.append(json.loads(line))
    return Capture(code=process.returncode, lines=lines, peak_bytes=peak_bytes)


def _peak_bytes(pid: int) -> int:
    """``VmHWM`` (proc(5)) of a process; 0 when it is gone."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) << 10 if found else 0


def dumped(lab: PrivateLibvirt, folder: Path, guest: Guest, *words: str) -> Message:
    """The manifest of a dump that has to succeed."""
    capture = memdump(lab, folder, guest, *words)
    assert capture.code == 0, capture.lines
    return capture.manifest


def sha256sum(path: Path | str) -> str:
    """By OpenSSL's program: that of coreutils takes five times as long."""
    command = ["openssl", "dgst", "-sha256", "-r", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]


def unpacked_to(manifest: Message, target: Path) -> Path:
    """The image, unpacked by the tool that people have for it."""
    with target.open("wb") as file:
        subprocess.run([UNPACKERS[manifest["compression"]["algorithm"]], manifest["dump_path"]], stdout=file, check=True)
    return target


def loads_of(vmcore: Path) -> list[tuple[int, int, int]]:
    """The PT_LOADs as readelf sees them: (offset, physical address, size in the file)."""
    listed = subprocess.run(["readelf", "--segments", "--wide", str(vmcore)], capture_output=True, text=True, check=True)
    found = re.findall(r"^\s+LOAD\s+(\S+)\s+\S+\s+(\S+)\s+(\S+)", listed.stdout, re.MULTILINE)
    return [(int(offset, 16), int(physical, 16), int(size, 16)) for offset, physical, size in found]


def gzip_read(dump: Path, offset: int, length: int) -> bytes:
    """``length`` raw bytes from ``offset``, as anybody could write it from the format's description alone.

    Each gzip member carries its stored length in the extra field ``MD``; its last four bytes are its raw length.
    Members that hold nothing of what is wanted are skipped without unpacking.
    """
    found = b""
    with dump.open("rb") as file:
        at = raw_at = 0
        while raw_at < offset + length:
            file.seek(at)
            head = file.read(20)
            assert head[:4] == b"\x1f\x8b\x08\x04"
            assert head[10:16] == b"\x08\x00MD\x04\x00"
            (stored,) = struct.unpack("<I", head[16:20])
            file.seek(at + stored - 4)
            (raw,) = struct.unpack("<I", file.read(4))
            if raw_at + raw > offset:
                file.seek(at)
                whole = zlib.decompress(file.read(stored), wbits=31)
                found += whole[max(0, offset - raw_at) : offset + length - raw_at]
            at, raw_at = at + stored, raw_at + raw
    return found


def virsh(lab: PrivateLibvirt, *words: str) -> str:
    """What virsh says, which has to succeed in time."""
    command = ["virsh", "--quiet", "--connect", lab.uri, *words]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=_VIRSH_SEC)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()
