"""What goes out when a request is refused or fails: RFC 9457 problem documents."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from app.web.answers import Answer


class Candidate(Answer, frozen=True, kw_only=True):
    """A VM that may be meant."""

    uuid: str
    name: str


class VmFault(Answer, frozen=True, kw_only=True, omit_defaults=True):
    """What is wrong with one VM of a request, and what helps to mend it."""

    vm_id: str
    code: str
    detail: str
    candidates: tuple[Candidate, ...] | UnsetType = UNSET
    job_id: str | UnsetType = UNSET
    operation: str | UnsetType = UNSET


class Problem(Answer, frozen=True, kw_only=True):
    """An RFC 9457 problem document."""

    type: Literal["about:blank"] = "about:blank"
    title: str
    status: int
    detail: Annotated[str, Meta(description="A sentence for a person.")]
    code: Annotated[str, Meta(description="Stable; programs may rely on it.")]
    place: Annotated[str, Meta(description="What of the request is at fault.")] | UnsetType = UNSET
    errors: Annotated[tuple[VmFault, ...], Meta(description="Every VM at fault.")] | UnsetType = UNSET
    error_id: Annotated[str, Meta(description="Where to find the cause in the service's log.")] | UnsetType = UNSET
