"""The pages ``/accounts`` and ``/tokens``: what there is, and forms that ask the API for something else."""

from __future__ import annotations

from datetime import UTC, datetime

from aiohttp import web

from app.model import rfc3339
from app.rights import ROLES
from app.web import keys
from app.web.templates import render_page


async def accounts(request: web.Request) -> web.StreamResponse:
    """``GET /accounts``."""
    kept = await request.app[keys.KEEPING].accounts()
    return render_page(request, "accounts.html", {"page": "accounts", "accounts": kept, "roles": tuple(ROLES)})


async def tokens(request: web.Request) -> web.StreamResponse:
    """``GET /tokens``."""
    identity = request[keys.IDENTITY]
    context = {
        "page": "tokens",
        "tokens": await request.app[keys.KEEPING].tokens(identity),
        "roles": [role for role in ROLES if ROLES[role] <= ROLES[identity.role]],
        "now": rfc3339(datetime.now(UTC)),
    }
    return render_page(request, "tokens.html", context)
