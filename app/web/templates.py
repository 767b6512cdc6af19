"""Pages as text: the Jinja environment, its filters, and one way to render."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC
from pathlib import Path

import aiohttp_jinja2
import jinja2
from aiohttp import web
from jinja2.ext import Extension

from app import __version__
from app.config import Settings
from app.model import from_rfc3339
from app.web import keys
from app.web.assets import STATIC, Assets
from app.web.sight import Sight

_INDENTATION = re.compile(r"\n\s+")
_END_OF_TAGS = re.compile(r"^((?:\{%(?:(?!%\}).)*%\})+)\n", re.MULTILINE)
"""That of a line with nothing else: the one before it stands in the page already."""

SHEETS = (
    "layers", "tokens", "page", "bar", "button", "form", "notice", "stats", "control", "jobs", "filters", "records", "activity",
    "plots",
)  # fmt: skip
"""The styles of every page, in their order; they go out as one."""

TEMPLATES = Path(__file__).resolve().parent.parent / "templates"


class Dense(Extension):
    """Indentation, and lines that say nothing, are for who writes a template, not for every visitor."""

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        return _END_OF_TAGS.sub(r"\1", _INDENTATION.sub("\n", source))


def set_up(app: web.Application, settings: Settings) -> None:
    """Give ``app`` its templates and its static files, all read and compiled now: no page waits for the disk later.

    What is below ``parts/`` is markup that comes when it is needed, the same for everybody: static files, too. Every page sees
    those ``settings`` that a page may show; a secret is not among them.
    """
    filters: dict[str, Callable[..., str]] = {
        "bytes": bytes_text,
        "duration": duration_text,
        "when": when_text,
        "short": short_text,
        "ago": ago_of,
    }
    environment = aiohttp_jinja2.setup(
        app,
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        auto_reload=False,
        filters=filters,
        extensions=[Dense],
    )
    names = ("mode", "compression", "max_pause_ms", "fallback_pause_ms", "max_concurrent_dumps", "auth", "nav")
    shown = {"oidc_issuer": settings.oidc.issuer, **{name: getattr(settings, name) for name in names}}
    environment.globals.update(version=__version__, settings=shown)
    parts = environment.list_templates(filter_func=lambda name: name.startswith("parts/"))
    made = {name: environment.get_template(name).render() for name in parts}
    made["css/all.css"] = "".join((STATIC / "css" / f"{name}.css").read_text() for name in SHEETS)
    assets = Assets.read(made=made)
    environment.globals.update(asset=assets.url)
    app[keys.ASSETS] = assets
    for name in environment.list_templates():
        environment.get_template(name)


def render_page(
    request: web.Request,
    template: str,
    context: Mapping[str, object],
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """``template`` with ``context`` as an HTML answer. Every page knows who asks, ``identity``, and how what the service needs
    is, ``health``; both None for nobody.
    """
    identity = request.get(keys.IDENTITY)
    health = Sight(request).health() if identity is not None else None
    response = aiohttp_jinja2.render_template(template, request, {"identity": identity, "health": health, **context}, status=status)
    response.headers.update(headers or {})
    return response


def bytes_text(count: float | None) -> str:
    """``1.5 GiB``: binary units, three digits."""
    if count is None:
        return "–"
    size, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if abs(size) < (1024 if unit == "B" else 999.5):
            break
        size, unit = size / 1024, larger
    return f"{size:.0f} {unit}" if unit == "B" or abs(size) >= 99.5 else f"{size:.3g} {unit}"


def duration_text(seconds: float | None) -> str:
    """``0.42 s``, ``12.3 s``, ``4 min 05 s``, ``2 h 03 min``."""
    if seconds is None:
        return "–"
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def when_text(moment: str | None) -> str:
    """``2026-11-23 10:30:00 UTC`` from RFC 3339."""
    if not moment:
        return "–"
    return from_rfc3339(moment).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def ago_text(seconds: float) -> str:
    """``just now``, ``4 min ago``, ``3 h ago``, ``12 days ago``; a moment that is still to come is now."""
    if seconds < 60:
        return "just now"
    if seconds < 3600:
        return f"{int(seconds // 60)} min ago"
    return f"{int(seconds // 3600)} h ago" if seconds < 172_800 else f"{int(seconds // 86_400)} days ago"


def ago_of(moment: str | None, now: str) -> str:
    """How long before ``now`` it was; both RFC 3339."""
    return ago_text((from_rfc3339(now) - from_rfc3339(moment)).total_seconds()) if moment else "never"


def short_text(text: str | None) -> str:
    """The first twelve characters of a hash."""
    return (text or "")[:12]
