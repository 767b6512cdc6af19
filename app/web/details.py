"""The details of one dump: its whole manifest as a person reads it, and the command that checks the file.

``static/manifest.js`` writes the same texts under the same names; a test compares them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from aiohttp import web

from app.model import Manifest, from_rfc3339, rfc3339
from app.web.errors import ProblemError
from app.web.sight import Sight
from app.web.templates import ago_text, bytes_text, duration_text, render_page

NONE = "–"
UNKNOWN = "not known"

_AS_THEY_ARE = (
    *("dump_id", "dom", "vmid", "uuid", "hypervisor", "group", "uri", "sha256", "stored_sha256", "dump_path"),
    *("operator", "reason", "case", "audit_head", "domain_xml"),
)
_UNPACK = {"gzip": "zcat", "zstd": "zstdcat", "lz4": "lz4 -dc"}
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PLAIN_WORD = re.compile(r"[A-Za-z0-9_@%+=:,./-]+")
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")
"""Characters that a terminal obeys, or that one does not see: they must not be pasted as they are."""

_LAST_SECOND = 253_402_300_799  # of the year 9999


async def page(request: web.Request) -> web.StreamResponse:
    """``GET /memory-dumps/{dump_id}``: to read without JavaScript, to print, and to send to somebody.

    Its query string is that of the list from which somebody came, and is for the way back alone.
    """
    dump_id = request.match_info["dump_id"]
    record = await Sight(request).record(dump_id)
    if record is None:
        raise ProblemError("record-unknown", f"There is no record of a dump {dump_id!r}.")
    now = datetime.now(UTC)
    context = {
        "page": "details",
        "record": record,
        "texts": texts_of(record),
        "unsaid": (NONE, UNKNOWN),
        "ago": ago_text((now - from_rfc3339(record.timestamp)).total_seconds()),
        "now": rfc3339(now),
        "address": str(request.url),
        "back": "/memory-dumps" + (f"?{request.rel_url.raw_query_string}" if request.rel_url.raw_query_string else ""),
    }
    return render_page(request, "details_page.html", context)


def texts_of(record: Manifest) -> Mapping[str, str]:
    """Every value of a manifest as text. What another producer's point in InfluxDB does not say is ``UNKNOWN``."""
    foreign = is_foreign(record)
    missing = UNKNOWN if foreign else NONE
    named = {
        **{name: getattr(record, name) for name in _AS_THEY_ARE},
        **{name: getattr(record.versions, name) for name in ("memory_dumps", "libvirt", "qemu")},
        "ratio": ratio_text(record.gzip_size_bytes, record.raw_size_bytes),
        "check": check_command(record),
    }
    figures = {
        "duration": (record.duration_sec, duration_text(record.duration_sec)),
        "raw_size": (record.raw_size_bytes, size_text(record.raw_size_bytes)),
        "stored_size": (record.gzip_size_bytes, size_text(record.gzip_size_bytes)),
        **{name: (getattr(record, name), epoch_text(getattr(record, name))) for name in ("ctime", "mtime", "atime")},
    }
    return {
        **{name: text or missing for name, text in named.items()},
        **{name: text if value or not foreign else missing for name, (value, text) in figures.items()},
        **{name: UNKNOWN if foreign else text for name, text in _how(record).items()},
        "timestamp": exact_moment(record.timestamp),
        "compression": _compression(record, foreign=foreign),
    }


def _how(record: Manifest) -> Mapping[str, str]:
    """What only those know who captured it: where another program's point says nothing of it, its place is filled with a guess."""
    return {
        "captured_at": exact_moment(record.captured_at),
        "mode": record.mode,
        "format": "ELF vmcore" if record.format == "elf" else record.format,
        "pause": pause_text(record.guest_pause_ms),
        "pauses": ", ".join(map(pause_text, record.guest_pauses_ms)) or "none",
    }


def is_foreign(record: Manifest) -> bool:
    """Whether another program wrote the record: ours always name their VM and the version that made them."""
    return not record.uuid and not record.versions.memory_dumps


def check_command(record: Manifest) -> str | None:
    """One line for bash or zsh that unpacks the dump, hashes it and compares: ``-: OK``. None where hash or path are not known.

    The file is opened by the shell, so whatever its name begins with, it is no option.
    """
    if not _SHA256.fullmatch(record.sha256) or not record.dump_path:
        return None
    path, compare = shell_quoted(record.dump_path), f"sha256sum -c <(echo '{record.sha256}  -')"
    unpack = _UNPACK.get(record.compression.algorithm)
    return f"{unpack} < {path} | {compare}" if unpack else f"{compare} < {path}"


def shell_quoted(text: str) -> str:
    """``text`` as one word of bash or zsh, without anything in it that a terminal obeys."""
    if _PLAIN_WORD.fullmatch(text):
        return text
    if not _UNSEEN.search(text):
        return "'" + text.replace("'", "'\\''") + "'"
    quoted = re.sub(r"[\\']", r"\\\g<0>", text)
    return "$'" + _UNSEEN.sub(lambda found: "".join(f"\\x{byte:02x}" for byte in found[0].encode()), quoted) + "'"


def exact_moment(moment: str) -> str:
    """``2026-11-23 10:30:00.000000 UTC``, to the last digit."""
    return moment.replace("T", " ").replace("Z", " UTC")


def pause_text(milliseconds: float) -> str:
    """``14.2 ms``; from a second on a duration."""
    return f"{milliseconds:.1f} ms" if milliseconds < 999.95 else duration_text(milliseconds / 1000)


def size_text(count: int) -> str:
    """``1 GiB (1,074,008,443 bytes)``."""
    return f"{bytes_text(count)} ({count:,} bytes)" if count >= 1024 else f"{count} bytes"


def ratio_text(stored: int, raw: int) -> str | None:
    """How much of the original size the file has, in whole per cent."""
    if not stored or not raw:
        return None
    percent = int(100 * stored / raw + 0.5)
    return f"{percent} % of the original" if percent else "under 1 % of the original"


def epoch_text(seconds: int) -> str:
    """Seconds since 1970 as a time."""
    if seconds > _LAST_SECOND:
        return f"{seconds} s after 1970"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _compression(record: Manifest, *, foreign: bool) -> str:
    compression = record.compression
    if foreign:
        return f"{compression.algorithm}, by the file’s name"
    level = "" if compression.level is None else f" level {compression.level}"
    blocks = f", blocks of {bytes_text(compression.block_bytes)}" if compression.block_bytes else ""
    return f"{compression.algorithm}{level}{blocks}"
