"""Accounts and tokens from a command line, beside a service or without one. Blocks."""

from __future__ import annotations

import argparse
import getpass
import re
import sqlite3
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from app.access import accounts, sessions, tokens
from app.access.audit import append, note
from app.access.keeping import token_note
from app.access.passwords import password_hash
from app.access.secrets import TOKEN_PREFIX, hash_of, make_secret
from app.errors import RequestError
from app.model import rfc3339
from app.rights import ROLES
from app.scope import WHOLE, Scope
from app.state import State

_DAYS = re.compile(r"([1-9][0-9]{0,4})d")
_NUMBER = re.compile(r"[0-9]{1,15}")


def access_by_hand(arguments: Sequence[str], opened: Callable[[], State]) -> list[str]:
    """Do what ``account …`` or ``token …`` asks for; what to tell. Raises ``AccessError``, ``RequestError``, ``StateError``, and
    ``SystemExit`` for wrong usage."""
    asked = _parser().parse_args(arguments)
    # Before the file is opened: nobody else waits for its lock while a person types.
    asked.hash = password_hash(_typed_password()) if asked.deed is _password else None
    state = opened()
    try:
        told: list[str] = state.run_now(lambda connection: asked.deed(connection, asked))
    finally:
        state.close()
    return told


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m app", allow_abbrev=False)
    kinds = parser.add_subparsers(required=True, metavar="account | token")
    account = kinds.add_parser("account", help="who may log in").add_subparsers(required=True, metavar="DEED")
    _deed(account, "list", _list_accounts, "all accounts")
    adding = _deed(account, "add", _add_account, "make an account, without a password", "NAME")
    _add_rights(adding, role_required=True)
    changing = _deed(account, "change", _change_account, "another role and scope; tokens that reach further are revoked", "NAME")
    _add_rights(changing)
    changing.add_argument(
        "--whole", action="store_true", help="without the limits that it has; else those of a kind that is not named stay"
    )
    _deed(account, "password", _password, "set the password, typed or the first line of the input; ends its sessions", "NAME")
    _deed(account, "end-sessions", _end_sessions, "end every session of this name, also of who has no account here", "NAME")
    _deed(account, "remove", _remove_account, "remove it, its sessions and its tokens", "NAME")
    token = kinds.add_parser("token", help="what programs show").add_subparsers(required=True, metavar="DEED")
    listing = _deed(token, "list", _list_tokens, "all tokens that are valid or have expired")
    listing.add_argument("--account", help="those of one account")
    making = _deed(token, "add", _add_token, "make a token; shown this once", "LABEL")
    making.add_argument("--account", default=accounts.FIRST_NAME, help="whose it is (%(default)s)")
    _add_rights(making)
    making.add_argument("--expires", type=_moment, metavar="30d | 2026-12-31 | never", help="default: never")
    _deed(token, "revoke", _revoke_token, "from now on it opens nothing", "NUMBER")
    return parser


def _deed(
    parsers: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    deed: Callable[[sqlite3.Connection, argparse.Namespace], list[str]],
    what: str,
    positional: str | None = None,
) -> argparse.ArgumentParser:
    parser = parsers.add_parser(name, help=what, description=what, allow_abbrev=False)
    parser.set_defaults(deed=deed)
    if positional is not None:
        parser.add_argument(positional.lower(), metavar=positional, type=_number if positional == "NUMBER" else str)
    return parser


def _add_rights(parser: argparse.ArgumentParser, *, role_required: bool = False) -> None:
    parser.add_argument("--role", choices=ROLES, required=role_required)
    parser.add_argument("--hypervisor", action="append", default=[], help="only VMs of this hypervisor; may be repeated")
    parser.add_argument(
        "--vm", action="append", default=[], metavar="PATTERN", help="only VMs of such a name: shop-*; may be repeated"
    )
    parser.add_argument("--group", action="append", default=[], help="only VMs of this OpenNebula group; may be repeated")


def _moment(text: str) -> str | None:
    if text == "never":
        return None
    if days := _DAYS.fullmatch(text):
        return rfc3339(datetime.now(UTC) + timedelta(days=int(days[1])))
    try:
        moment = datetime.fromisoformat(text)
        return rfc3339(moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of days (30d) nor a date (2026-12-31)") from None


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not the number of a token")
    return int(text)


def _typed_password() -> str:
    """Never an argument: others on this machine see those."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != password:
        raise RequestError("These were two different passwords.", place="$.password")
    return password


def _scope_of(asked: argparse.Namespace) -> Scope:
    return Scope(hypervisors=tuple(asked.hypervisor), vms=tuple(asked.vm), groups=tuple(asked.group))


def _now() -> str:
    return rfc3339(datetime.now(UTC))


def _list_accounts(connection: sqlite3.Connection, _asked: argparse.Namespace) -> list[str]:
    accounts.add_first(connection, _now())
    rows = [("NAME", "ROLE", "SCOPE", "PASSWORD")]
    rows += [(one.name, one.role, str(one.scope), "yes" if one.has_password else "no") for one in accounts.every(connection)]
    return _table(rows)


def _add_account(connection: sqlite3.Connection, asked: argparse.Namespace) -> list[str]:
    accounts.add_first(connection, _now())
    made = accounts.add(connection, asked.name, asked.role, _scope_of(asked), None, _now())
    append(connection, note("account-made", made.name, role=made.role, scope=str(made.scope)))
    return [
        f"{made.name} is {made.role} of {made.scope}.",
        f"Nobody can log in as {made.name} yet: set a password with python -m app account password {made.name}",
    ]


def _change_account(connection: sqlite3.Connection, asked: argparse.Namespace) -> list[str]:
    before = accounts.named(connection, asked.name)
    base, named = WHOLE if asked.whole or asked.role == "administrator" else before.scope, _scope_of(asked)
    scope = Scope(hypervisors=named.hypervisors or base.hypervisors, vms=named.vms or base.vms, groups=named.groups or base.groups)
    changed = accounts.change(connection, asked.name, asked.role or before.role, scope, _now())
    append(connection, note("account-changed", changed.name, role=changed.role, scope=str(changed.scope)))
    return [f"{changed.name} is {changed.role} of {changed.scope}."]


def _password(connection: sqlite3.Connection, asked: argparse.Namespace) -> list[str]:
    accounts.add_first(connection, _now())
    accounts.set_password(connection, asked.name, asked.hash)
    append(connection, note("password-changed", asked.name))
    return [f"The password of {asked.name} is set; whoever was logged in as {asked.name} no longer is. Tokens stay."]


def _end_sessions(connection: sqlite3.Connection, asked: argparse.Namespace) -> list[str]:
    ended = sessions.end_all(connection, asked.name)
    append(connection, note("sessions-ended", asked.name, ended=ended))
    return [f"{ended} {'session' if ended == 1 else 'sessions'} of {asked.name} ended. Tokens stay."]


def _remove_account(connection: sqlite3.Connection, asked: argparse.Namespace) -> list[str]:
    accounts.remove(connection, asked.name, _now())
    append(connection, note("account-removed", asked.name))
    return [f"{asked.name} is removed, with its sessions and tokens."]


def _list_tokens(connection: sqlite3.Connection, asked: argparse.Namespace) -> list[str]:
    rows = [("NUMBER", "LABEL", "ACCOUNT", "ROLE", "SCOPE", "EXPIRES", "LAST USED")]
    rows += [
        (str(one.number), one.label, one.account, one.role, str(one.scope), one.expires_at or "never", one.used_at or "never")
        for one in tokens.every(connection, asked.account)
    ]
    return _table(rows)


def _add_token(connection: sqlite3.Connection, asked: argparse.Namespace) -> list[str]:
    accounts.add_first(connection, _now())
    secret = make_secret(TOKEN_PREFIX)
    scope = _scope_of(asked)
    made = tokens.add(connection, hash_of(secret), asked.account, asked.label, asked.role, scope, _now(), asked.expires)
    append(connection, token_note("token-made", made))
    return [f"Token {made.number} of {made.account} is {made.role} of {made.scope}. Shown this once: {secret}"]


def _revoke_token(connection: sqlite3.Connection, asked: argparse.Namespace) -> list[str]:
    revoked = tokens.withdraw(connection, asked.number, _now())
    append(connection, token_note("token-revoked", revoked))
    return [f"Token {revoked.number} ({revoked.label}) of {revoked.account} is revoked."]


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
