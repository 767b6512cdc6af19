"""Errors on their way out: a stable code becomes a status and an RFC 9457 problem document, or a page for a person.

The only place where the exception tree of ``app.errors`` meets HTTP.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler
from msgspec import UNSET

from app.errors import (
    AlreadyDumping,
    AmbiguousVm,
    DomainBusy,
    MemoryDumpsError,
    RequestError,
    TooManyFeeds,
    TooManyLogins,
    TooManyWaiting,
    VmError,
    VmErrors,
)
from app.web.answers import encode
from app.web.problems import Candidate, Problem, VmFault
from app.web.requests import MAX_BODY_BYTES
from app.web.templates import render_page

log = structlog.get_logger()

PROBLEM_TYPE = "application/problem+json"

REFERENCE = "/api/docs"
"""The one page for people among the addresses for programs."""

STATUS: Mapping[str, int] = {
    "request-invalid": 400,
    "request-malformed": 400,
    "password-wrong": 400,
    "login-required": 401,
    "host-not-allowed": 403,
    "origin-not-allowed": 403,
    "not-allowed": 403,
    "proxy-not-trusted": 403,
    "beyond-own-rights": 403,
    "vm-unknown": 404,
    "job-unknown": 404,
    "record-unknown": 404,
    "account-unknown": 404,
    "token-unknown": 404,
    "not-found": 404,
    "method-not-allowed": 405,
    "request-too-slow": 408,
    "ambiguous-vm": 409,
    "vm-not-running": 409,
    "already-dumping": 409,
    "domain-busy": 409,
    "vm-not-responding": 409,
    "nothing-to-dump": 409,
    "idempotency-key-reused": 409,
    "account-exists": 409,
    "last-administrator": 409,
    "too-many-tokens": 409,
    "body-too-large": 413,
    "media-type-unsupported": 415,
    "expectation-failed": 417,
    "upgrade-required": 426,
    "too-many-waiting": 429,
    "too-many-logins": 429,
    "too-many-feeds": 429,
    "hypervisor-refused": 502,
    "hypervisor-unreachable": 503,
    "hypervisor-not-responding": 503,
    "login-provider-unreachable": 503,
    "state-unwritable": 503,
    "state-damaged": 503,
    "state-in-use": 503,
}
"""Every code that a request can be answered with, and its status; any other error is ours, and 500."""


class ProblemError(Exception):
    """An answer that is not a success. ``members`` join the problem document; ``headers`` the response."""

    def __init__(
        self, code: str, detail: str, *, members: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.members = dict(members or {})
        self.headers = dict(headers or {})

    @property
    def status(self) -> int:
        return STATUS.get(self.code, 500)

    @property
    def title(self) -> str:
        return HTTPStatus(self.status).phrase

    def document(self) -> Problem:
        """The RFC 9457 problem document."""
        return Problem(title=self.title, status=self.status, detail=self.detail, code=self.code, **self.members)


def login_required(
    detail: str = "Log in first: send an API token as 'Authorization: Bearer …', or open a login URL.",
) -> ProblemError:
    """Nobody we know is asking."""
    return ProblemError("login-required", detail, headers={"WWW-Authenticate": 'Bearer realm="memory-dumps"'})


@web.middleware
async def answer_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn whatever goes wrong behind this into a problem document (API) or an error page (everything else)."""
    try:
        return await handler(request)
    except ProblemError as problem:
        return _answer(request, problem)
    except MemoryDumpsError as error:
        return _answer(request, problem_of(error) or unexpected(error))
    except web.HTTPException as answer:
        if answer.status < 400:
            raise
        return _answer(request, _from_aiohttp(request, answer))
    except web.RequestPayloadError:
        return _answer(request, ProblemError("request-malformed", "The body cannot be read: it is not valid HTTP/1.1."))
    except Exception as error:  # noqa: BLE001 - the edge: whatever it is, the caller gets an answer and the log the cause
        if isinstance(error, ConnectionError) and request.transport is None:
            return _answer(request, ProblemError("request-malformed", "The connection ended before the request did."))
        return _answer(request, unexpected(error))


def problem_of(error: MemoryDumpsError) -> ProblemError | None:
    """The problem that a refused request is, or None when ``error`` is a failure of ours."""
    if isinstance(error, VmErrors):
        return _several(error.errors)
    if isinstance(error, VmError):
        return _several([error])
    if error.code not in STATUS:
        return None
    members = {"place": error.place} if isinstance(error, RequestError) and error.place is not None else None
    return ProblemError(error.code, str(error), members=members, headers=_when_to_come_again(error))


def _when_to_come_again(error: MemoryDumpsError) -> Mapping[str, str] | None:
    if isinstance(error, TooManyLogins):
        return {"Retry-After": str(error.retry_after_sec)}
    later = isinstance(error, TooManyFeeds) or (isinstance(error, TooManyWaiting) and error.asked <= error.limit)
    return {"Retry-After": "10"} if later else None


def vm_faults(errors: Sequence[VmError]) -> tuple[VmFault, ...]:
    """Every VM at fault, with its code and what helps to mend it."""
    return tuple(_vm_fault(error) for error in errors)


def _several(errors: Sequence[VmError]) -> ProblemError:
    """The lowest status answers and gives its code; the list names every VM."""
    leading = min(errors, key=lambda error: STATUS[error.code])
    return ProblemError(leading.code, str(VmErrors(errors)), members={"errors": vm_faults(errors)})


def _vm_fault(error: VmError) -> VmFault:
    candidates = [Candidate(uuid=uuid_, name=name) for uuid_, name in error.candidates] if isinstance(error, AmbiguousVm) else None
    return VmFault(
        vm_id=error.vm,
        code=error.code,
        detail=str(error),
        candidates=UNSET if candidates is None else tuple(candidates),
        job_id=error.job_id if isinstance(error, AlreadyDumping) else UNSET,
        operation=error.operation if isinstance(error, DomainBusy) else UNSET,
    )


def _from_aiohttp(request: web.Request, answer: web.HTTPException) -> ProblemError:
    if isinstance(answer, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(answer.allowed_methods))
        return ProblemError(
            "method-not-allowed", f"{request.method} is not possible here, only {allowed}.", headers={"Allow": allowed}
        )
    if isinstance(answer, web.HTTPRequestEntityTooLarge):
        return ProblemError("body-too-large", f"The body is longer than {MAX_BODY_BYTES} bytes.")
    if answer.status == HTTPStatus.NOT_FOUND:
        return ProblemError("not-found", f"Nothing is at {request.path}.")
    return ProblemError("request-invalid", answer.text or answer.reason)


def unexpected(error: BaseException | None) -> ProblemError:
    """A failure of ours: the log has the cause, the answer where to find it there."""
    error_id = uuid.uuid4().hex
    log.error("request_failed", error_id=error_id, exc_info=error)
    return ProblemError(
        "internal-error",
        f"Something went wrong in the service. Its log tells more, at error_id {error_id}.",
        members={"error_id": error_id},
    )


def _answer(request: web.Request, problem: ProblemError) -> web.StreamResponse:
    answer = as_document(problem) if is_api(request) else _as_page(request, problem)
    if problem.code == "request-too-slow":
        answer.force_close()
    return answer


def _as_page(request: web.Request, problem: ProblemError) -> web.Response:
    if problem.code == "login-required":
        # The gate stands before ``address.utf8_only``: there may be halves of surrogate pairs in it.
        query = urlencode({"next": request.path_qs}, errors="replace") if request.path != "/" else ""
        return web.Response(status=303, headers={"Location": f"/login?{query}" if query else "/login"})
    page: dict[str, Any] = {"status": problem.status, "title": problem.title, "detail": problem.detail}
    return render_page(request, "problem.html", page, status=problem.status, headers=problem.headers)


def as_document(problem: ProblemError) -> web.Response:
    """The problem as a program reads it."""
    body = encode(problem.document())
    return web.Response(body=body, status=problem.status, content_type=PROBLEM_TYPE, headers=problem.headers)


def is_api(request: web.Request) -> bool:
    """Whether a program is asking: it gets problem documents. A person gets pages."""
    return (request.path.startswith("/api/") and request.path != REFERENCE) or request.path in ("/api", "/healthz", "/readyz")
