"""What comes in: the shapes of bodies, and how bodies and query strings become them. The description of the API is made from
them, too.

Unknown fields, wrong types and what is given twice are refused with the place where they stand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from app.config import MAX_WAITING, MOST_PAUSE_MS
from app.errors import RequestError
from app.model import ALGORITHMS, MODES, Algorithm, Mode
from app.rights import ROLES, Role
from app.scope import Scope
from app.web.plain import not_json, plain

MAX_BODY_BYTES = 128 * 1024
"""Room for a thousand VMs by their uuid, twice over."""

MOST_NAMES = 2 * MAX_WAITING
"""Of VMs in one request: more than can wait, for some may run at once, and be named twice."""

T = TypeVar("T")

_PLACE = re.compile(r"(?P<what>.*?)(?: - at `(?P<place>[^`]+)`)?", re.DOTALL)
_WORDS = {"$.mode": MODES, "$.compression": ALGORITHMS, "$.role": tuple(ROLES)}
_UNKNOWN_FIELD = re.compile(r"unknown field `(?P<name>[^`]*)`")
_WHOLE = re.compile(r"[0-9]{1,15}")

# Ends up in a program's arguments, in a manifest and on a page: a text for people, so no control characters but line ends and tabs.
Note = Annotated[str, Meta(max_length=1000, pattern=r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*$", description="For the manifest.")]


class TriggerBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which VMs, and how."""

    vm_ids: (
        Annotated[
            list[Annotated[str, Meta(min_length=1, max_length=255)]],
            Meta(max_length=MOST_NAMES, description="VMs, each by uuid, vmid, name or libvirt ID. Either this or `all`."),
        ]
        | None
    ) = None
    all: Annotated[bool | None, Meta(description="True: every running VM that is not being dumped.")] = None
    mode: Annotated[Mode | None, Meta(description="Default: `MEMDUMP_MODE`.")] = None
    compression: Annotated[Algorithm | None, Meta(description="Default: `MEMDUMP_COMPRESSION`.")] = None
    max_pause_ms: (
        Annotated[int, Meta(ge=1, le=MOST_PAUSE_MS, description="The longest last stop that a live capture may plan for.")] | None
    ) = None
    reason: Note | None = None
    case: Note | None = None

    def __post_init__(self) -> None:
        if self.vm_ids is not None and self.all:
            raise ValueError("Give either `vm_ids` or `all`, not both")
        if self.vm_ids == []:
            raise ValueError("Name at least one VM - at `$.vm_ids`")
        if self.vm_ids is None and not self.all:
            raise ValueError('Give `vm_ids`, a list of VMs, or `"all": true`')


class EmptyBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Nothing to say."""


class LoginForm(msgspec.Struct, frozen=True, kw_only=True):
    """A name and its password, or a login code (or the whole link that it came in), and where to go then."""

    name: str | None = None
    password: str | None = None
    code: str | None = None
    next: str | None = None


Entries = Annotated[list[str], Meta(max_length=100)]


class _Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """To what an account or a token is limited; of each kind that is named one has to fit, nothing named is no limit."""

    hypervisors: Annotated[Entries, Meta(description="Names of hypervisors.")] = []
    vms: Annotated[Entries, Meta(description="Patterns of VM names, with `*`, `?` and `[…]`.")] = []
    groups: Annotated[Entries, Meta(description="OpenNebula groups.")] = []

    @property
    def scope(self) -> Scope:
        return Scope(hypervisors=tuple(self.hypervisors), vms=tuple(self.vms), groups=tuple(self.groups))


Name = Annotated[str, Meta(max_length=64)]
Secret = Annotated[str, Meta(max_length=1024)]


class AccountBody(_Limits, frozen=True, kw_only=True):
    """A new account."""

    name: Name
    role: Role
    password: Annotated[Secret, Meta(description="12 characters or more. Without one nobody can log in as it yet.")] | None = None


class AccountChangeBody(_Limits, frozen=True, kw_only=True):
    """Another role and scope."""

    role: Role


class PasswordBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new password."""

    password: Annotated[Secret, Meta(description="12 characters or more.")]


class OwnPasswordBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The password of one's own account, as it was and as it is to be."""

    old: Secret
    new: Annotated[Secret, Meta(description="12 characters or more.")]


class SessionsBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose sessions."""

    name: Annotated[str, Meta(min_length=1, max_length=255, description="An account's, or one that the login provider told.")]


class TokenBody(_Limits, frozen=True, kw_only=True):
    """A new token. What is not said is as the account has it."""

    label: Annotated[str, Meta(max_length=100, description="What it is for.")]
    account: Annotated[Name, Meta(description="Whose, for administrators. Default: one's own.")] | None = None
    role: Role | None = None
    expires_at: Annotated[str, Meta(description="RFC 3339. Default: when the token that asks does, else never.")] | None = None


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """A query string: nothing may stand in it, unless a shape of its own says so."""


class ActivityQuery(Query, frozen=True, kw_only=True):
    """How much of the activity log."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 20


Q = TypeVar("Q", bound=Query)


def body(text: bytes, shape: type[T]) -> T:
    """``text`` as ``shape``. Raises ``RequestError`` that names the place."""
    if not text.strip():
        raise RequestError("The body is empty; a JSON object is expected.", place="$")
    try:
        decoded = msgspec.json.decode(text, type=shape)
    except msgspec.ValidationError as error:
        raise _at_its_place(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(not_json(text, error), place="$") from None
    json.loads(text, object_pairs_hook=_each_once)
    return decoded


def _each_once(members: list[tuple[str, object]]) -> None:
    """Refuse a name that is given twice: which one counts would be a guess. msgspec takes the last without a word.

    No shape of a request has an object inside, so the members are those of the body itself.
    """
    seen: set[str] = set()
    for name, _ in members:
        if name in seen:
            raise RequestError(f"`{name}` is given twice (at $.{name}).", place=f"$.{name}")
        seen.add(name)


def _at_its_place(message: str) -> RequestError:
    found = _PLACE.fullmatch(message)
    what, place = (found["what"], found["place"] or "$") if found else (message, "$")
    if "matching regex" in what:  # there is one, that of a ``Note``
        what = "Control characters, other than line ends and tabs, cannot be in this text"
    if what.startswith("Invalid enum value") and place in _WORDS:
        what = f"{plain(what)}; there are {', '.join(_WORDS[place])}"
    unknown = _UNKNOWN_FIELD.search(what)
    if unknown:
        place = f"{place}.{unknown['name']}"
    return RequestError(f"{plain(what)} (at {place}).", place=place)


def query(given: Mapping[str, str], shape: type[Q]) -> Q:
    """A query string as ``shape``. Raises ``RequestError`` that names the parameter."""
    parameters = _parameters_of(shape)
    values: dict[str, Any] = {}
    for name, text in given.items():
        if name not in parameters:
            wanted = f"known are: {', '.join(parameters)}" if parameters else "there are none here"
            raise RequestError(f"{name!r} is not a parameter of this address; {wanted}.", place=name)
        if name in values:  # a multidict has each key once, but an item each time it was given
            raise RequestError(f"{name!r} is given twice.", place=name)
        values[name] = _value(name, text, parameters[name])
    return msgspec.convert(values, shape)


@cache
def _parameters_of(shape: type[Query]) -> Mapping[str, msgspec.inspect.Type]:
    """What may stand in a query string, and of which type. Finding that out takes nearly as long as an answer."""
    return {field.encode_name: msgspec.inspect.type_info(field.type) for field in msgspec.structs.fields(shape)}


def _value(name: str, text: str, wanted: msgspec.inspect.Type) -> str | int:
    """``text`` as one of the few types that a parameter can have: a text, a whole number, one of some words."""
    match wanted:
        case msgspec.inspect.Metadata():
            return _value(name, text, wanted.type)
        case msgspec.inspect.UnionType():
            return _value(name, text, wanted.types[0])
        case msgspec.inspect.IntType(ge=low, le=high):
            if not _WHOLE.fullmatch(text) or not (low or 0) <= int(text) <= (high or 0):
                raise RequestError(f"{name}={text!r} is not a whole number from {low} to {high}.", place=name)
            return int(text)
        case msgspec.inspect.LiteralType():
            if text not in wanted.values:
                raise RequestError(f"{name}={text!r} is not one of {', '.join(map(str, wanted.values))}.", place=name)
    return text
