"""Accounts and tokens as those who ask here keep them; what each may is looked at in the transaction that does it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Literal, TypeVar

from app.access import accounts, sessions, tokens
from app.access.access import Access
from app.access.accounts import Account
from app.access.audit import Note, append, note
from app.access.identity import Identity
from app.access.secrets import TOKEN_PREFIX, hash_of, make_secret
from app.access.tokens import Token
from app.errors import AccountUnknown, BeyondOwnRights, RequestError, TokenUnknown
from app.model import rfc3339
from app.rights import ROLES, Role
from app.scope import Scope
from app.state import State

T = TypeVar("T")


class Keeping:
    """All of it raises ``StateError``; what cannot be is an ``AccessError`` or a ``RequestError``. Who may ask for what of
    accounts the caller has looked at; of tokens it is looked at here. ``by`` is who asks: what they give by a token that expires
    does not outlive it, or one that got out for a day would be there for ever. Each change counts at once."""

    def __init__(self, state: State, access: Access) -> None:
        self._state = state
        self._access = access

    async def accounts(self) -> tuple[Account, ...]:
        """By name."""
        return await self._state.read(accounts.every)

    async def make_account(self, by: Identity, name: str, role: Role, scope: Scope, password: str | None) -> Account:
        """Without a password nobody can log in as it yet."""
        hashed = None if password is None else await self._access.passwords.hash_of(password)
        noted, now = note("account-made", name, role=role, scope=str(scope)), _now()

        def work(connection: sqlite3.Connection) -> Account:
            if hashed is not None:
                tokens.check_lasting(connection, by.token)
            made = accounts.add(connection, name, role, scope, hashed, now)
            append(connection, noted)
            return made

        return await self._change(work)

    async def change_account(self, by: Identity, name: str, role: Role, scope: Scope) -> Account:
        """Tokens that reach further than it then does are revoked."""
        noted, now = note("account-changed", name, role=role, scope=str(scope)), _now()

        def work(connection: sqlite3.Connection) -> Account:
            before = accounts.named(connection, name)
            accounts.check(role, scope)  # first: to compare what has no bounds would take as long as one likes
            if not (ROLES[role] <= ROLES[before.role] and scope.within(before.scope)):
                tokens.check_lasting(connection, by.token)
            changed = accounts.change(connection, name, role, scope, now)
            append(connection, noted)
            return changed

        return await self._change(work)

    async def set_password(self, by: Identity | None, name: str, password: str) -> None:
        """Ends every session of the account. ``by`` None: who asks has given the password before, and can log in by that anyway."""
        hashed, noted = await self._access.passwords.hash_of(password), note("password-changed", name)

        def work(connection: sqlite3.Connection) -> None:
            if by is not None:
                tokens.check_lasting(connection, by.token)
            accounts.set_password(connection, name, hashed)
            append(connection, noted)

        await self._change(work)

    async def remove_account(self, name: str) -> None:
        """With its sessions and tokens."""
        noted, now = note("account-removed", name), _now()

        def work(connection: sqlite3.Connection) -> None:
            accounts.remove(connection, name, now)
            append(connection, noted)

        await self._change(work)

    async def end_sessions(self, name: str) -> int:
        """Whoever is logged in under this name, with an account or without one, no longer is; how many sessions that were."""
        noted = note("sessions-ended", name)

        def work(connection: sqlite3.Connection) -> int:
            ended = sessions.end_all(connection, name)
            append(connection, replace(noted, details={**noted.details, "ended": ended}))
            return ended

        return await self._change(work)

    async def tokens(self, by: Identity) -> tuple[Token, ...]:
        """Those that ``by`` may know of, newest first."""
        return tuple(token for token in await self._state.read(tokens.every) if _is_theirs(by, token))

    async def make_token(
        self, by: Identity, label: str, account: str | None, role: Role | None, scope: Scope, expires_at: str | None
    ) -> tuple[Token, str]:
        """And its secret, which nobody sees again. Of their own account for everybody, of another for administrators; with no more
        rights than ``by`` has, and no later end than the token that they show: one of less than its account makes none of more."""
        account, secret, now = account or by.account, make_secret(TOKEN_PREFIX), _now()
        if account is None and by.may("administer"):
            raise RequestError(f"Say of which account: {by.name} has none here, and tokens belong to accounts.", place="$.account")
        if account is None or account != by.account:
            if account is None or not by.may("administer"):
                raise AccountUnknown(account or by.name)
        else:
            role, scope = role or by.role, by.scope if scope.whole else scope
            accounts.check(role, scope)  # first: to compare what has no bounds would take as long as one likes
            if not _has(by, role, scope):
                raise BeyondOwnRights(by.name)
        noted = note("token-made")

        def work(connection: sqlite3.Connection) -> Token:
            end = tokens.end_of_another(connection, by.token, expires_at)
            made = tokens.add(connection, hash_of(secret), account, label, role, scope, now, end)
            append(connection, about_token(noted, made))
            return made

        return await self._change(work), secret

    async def revoke_token(self, by: Identity, number: int) -> Token:
        """One that ``by`` may not know of is as unknown as one that there is not."""
        noted, now = note("token-revoked"), _now()

        def work(connection: sqlite3.Connection) -> Token:
            if not _is_theirs(by, tokens.valid(connection, number)):
                raise TokenUnknown(number)
            revoked = tokens.withdraw(connection, number, now)
            append(connection, about_token(noted, revoked))
            return revoked

        return await self._change(work)

    async def _change(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await self._state.run(work)
        finally:
            self._access.forget()


def token_note(deed: Literal["token-made", "token-revoked"], token: Token) -> Note:
    """For the audit trail, where it is known at once which token."""
    return about_token(note(deed), token)


def about_token(noted: Note, token: Token) -> Note:
    """Which token, and what it may; never the secret."""
    expires = token.expires_at or "never"
    about = {"account": token.account, "label": token.label, "role": token.role, "scope": str(token.scope), "expires_at": expires}
    return replace(noted, subject=str(token.number), details={**noted.details, **about})


def _is_theirs(by: Identity, token: Token) -> bool:
    return by.may("administer") or (token.account == by.account and _has(by, token.role, token.scope))


def _has(by: Identity, role: Role, scope: Scope) -> bool:
    return ROLES[role] <= ROLES[by.role] and scope.within(by.scope)


def _now() -> str:
    return rfc3339(datetime.now(UTC))
