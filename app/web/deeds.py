"""What each request leaves in the audit trail. The route table says which deed an address does; nothing is left to its handler.

Around the gate: so what the gate refuses is written too. Where the deed has a transaction the entry is written in it, by whoever
makes that (``app.access.audit.note``); what nobody has written when the answer is there is written here.
"""

from __future__ import annotations

from dataclasses import replace

from aiohttp import web
from aiohttp.typedefs import Handler

from app.access.audit import DONE, Deed, Note, Occasion, note, on_occasion
from app.errors import MemoryDumpsError
from app.web import address, guard, keys
from app.web.errors import ProblemError, problem_of

UNKNOWN = "unknown"
_REFUSED = "refused"
_REFUSALS = (401, 403)
_CODES = {413: "body-too-large"}


@web.middleware
async def write_down(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Write what was done, or refused. A deed that nobody could write is in the program's log."""
    deed = request.app[keys.DEEDS].get(guard.route_of(request.method, request.match_info.route))
    with on_occasion(Occasion(UNKNOWN, "", request.app[keys.PROXIES].address(request) or "")) as occasion:
        request[keys.OCCASION] = occasion
        try:
            response = await handler(request)
        except web.HTTPException as answer:
            if answer.status < 400:
                await _done(request, deed, occasion)
            else:
                await _failed(request, deed, _CODES.get(answer.status, "request-invalid"), answer.status)
            raise
        except Exception as error:
            await _failed(request, deed, *_code_of(error))
            raise
        if response.status < 400:
            await _done(request, deed, occasion)
        elif deed is not None:
            await _failed(request, deed, _REFUSED, response.status)
        return response


@web.middleware
async def recognise(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Behind the gate: from here on it is known who asks."""
    _name(request)
    return await handler(request)


async def _done(request: web.Request, deed: Deed | None, occasion: Occasion) -> None:
    if deed is not None and not occasion.written:
        subject = occasion.subject or " ".join(request.match_info.values())
        await request.app[keys.AUDIT].write_or_log(_note(deed, subject, occasion))


async def _failed(request: web.Request, deed: Deed | None, code: str, status: int) -> None:
    """What was tried in vain: every refusal of the gate; else only what an address with a deed was asked for.

    Whoever is not known did none of these deeds: all that there is to tell is that they were refused. Of whom we know it is told
    on what they tried it.
    """
    occasion = request[keys.OCCASION]
    known = _name(request) or occasion.who != UNKNOWN  # by a proxy, which does not say that they may come in
    asked = f"{request.method} {address.shown(request)}"
    pattern = guard.route_of(request.method, request.match_info.route)[1]
    subject = occasion.subject or " ".join(request.match_info.values())
    if deed == "login" and code != "origin-not-allowed":
        noted = _note("login-refused", occasion.subject, occasion, code)
    elif status in _REFUSALS or (deed is not None and not known):
        noted = note("refusal", asked, result=code)
    elif deed is not None:
        noted = _note(deed, subject, occasion, code)
    else:
        return
    whose = (pattern, subject) if known else (occasion.origin, occasion.kind)
    await request.app[keys.AUDIT].refused(noted, (noted.deed, code, *whose), known=known)


def _note(deed: Deed, subject: str, occasion: Occasion, result: str = DONE) -> Note:
    return replace(note(deed, subject, result=result), details=occasion.details)


def _name(request: web.Request) -> bool:
    """Note who asks, if the gate knows; whether it does."""
    identity = request.get(keys.IDENTITY)
    if identity is None:
        return False
    request[keys.OCCASION].who, request[keys.OCCASION].via = identity.name, identity.shown_by
    return True


def _code_of(error: Exception) -> tuple[str, int]:
    problem = problem_of(error) if isinstance(error, MemoryDumpsError) else error
    return (problem.code, problem.status) if isinstance(problem, ProblemError) else ("internal-error", 500)
