"""An address is text: what is percent-encoded in it has to be UTF-8.

aiohttp would hand on the rest as it came: ``%FF`` as these three characters, which a search would then look for. (A bare byte
that is no ASCII its parser of C refuses by itself; its parser of Python makes half a surrogate pair of it, which neither SQLite
nor JSON takes.)
"""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from aiohttp import web
from aiohttp.typedefs import Handler

from app.errors import RequestError
from app.web.errors import ProblemError

_SHOWN = 200


def shown(request: web.BaseRequest) -> str:
    """The path as it is written down: a long one, which anybody may send, would push out of the logs what stands there."""
    return request.path[:_SHOWN]


@web.middleware
async def utf8_only(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse other addresses, before anybody reads them; of a query string the parameter is named. Behind the gate, which reads
    none: who is not let in is told no more than that, and who is counts as who they are."""
    if not _is_text(request.rel_url.raw_path):
        raise ProblemError("not-found", "Nothing is at this address: it is not UTF-8.")
    for pair in request.rel_url.raw_query_string.split("&"):
        name, _, value = pair.partition("=")
        if not (_is_text(name) and _is_text(value)):
            shown = _bytes_of(name).decode(errors="backslashreplace")
            raise RequestError(f"The parameter {shown} is not UTF-8, percent-encoded.", place=shown)
    return await handler(request)


def _is_text(raw: str) -> bool:
    if raw.isascii() and "%" not in raw:
        return True
    try:
        _bytes_of(raw).decode()
    except UnicodeDecodeError:
        return False
    return True


def _bytes_of(raw: str) -> bytes:
    """What was sent; bytes that are no UTF-8 aiohttp reads as halves of surrogate pairs."""
    return unquote_to_bytes(raw.encode(errors="surrogateescape"))
