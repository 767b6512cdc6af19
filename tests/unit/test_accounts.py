"""Accounts, passwords and tokens: what each may, what ends what, and how they are kept from a command line."""

from __future__ import annotations

import contextlib
import functools
import io
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from app.access import RIGHTS, ROLES, SCHEMA, Access, Identity, accounts, tokens, upgrade
from app.access.attempts import REFILL_SEC, TRIES
from app.access.audit import DEEDS, entries_in
from app.access.by_hand import access_by_hand
from app.access.passwords import password_hash
from app.access.secrets import hash_of
from app.config import Settings
from app.errors import (
    AccountExists,
    AccountUnknown,
    BeyondOwnRights,
    LastAdministrator,
    MemoryDumpsError,
    RequestError,
    TokenUnknown,
    TooManyLogins,
)
from app.foundation import vouching_of
from app.rights import Role
from app.scope import WHOLE, Scope
from app.state import State
from tests.thorough import thorough

NOW, LATER = "2026-11-23T00:00:00.000000Z", "2999-01-01T00:00:00.000000Z"
SHOP = Scope(vms=("shop-*",))
_ANY = "mdt_any"
PASSWORD = "correct horse battery"
FIRST_FORMAT = """
CREATE TABLE tokens (hash BLOB PRIMARY KEY, name TEXT NOT NULL, created_at TEXT NOT NULL, withdrawn_at TEXT) STRICT, WITHOUT ROWID;
CREATE TABLE sessions (hash BLOB PRIMARY KEY, name TEXT NOT NULL, expires_at TEXT NOT NULL) STRICT, WITHOUT ROWID;
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "memory-dumps.sqlite3"


@pytest.fixture
async def state(file: Path) -> AsyncIterator[State]:
    with contextlib.closing(State.open(file, SCHEMA)) as state:
        state.run_now(lambda connection: accounts.add_first(connection, NOW))
        yield state


@pytest.fixture
async def access(state: State) -> AsyncIterator[Access]:
    with contextlib.closing(Access(state, "token")) as access:
        yield access


hashed_once = functools.cache(password_hash)
"""Each takes a tenth of a second, on purpose."""


def make(state: State, name: str, role: Role = "operator", scope: Scope = WHOLE, password: str | None = None) -> None:
    hashed = None if password is None else hashed_once(password)
    state.run_now(lambda connection: accounts.add(connection, name, role, scope, hashed, NOW))


def make_token(
    state: State,
    account: str,
    role: Role | None = None,
    scope: Scope = WHOLE,
    *,
    secret: str = _ANY,
    expires_at: str | None = None,
) -> tokens.Token:
    return state.run_now(lambda connection: tokens.add(connection, hash_of(secret), account, "x", role, scope, NOW, expires_at))


def refused(state: State, work: Callable[[sqlite3.Connection], object]) -> MemoryDumpsError:
    with pytest.raises(MemoryDumpsError) as refusal:
        state.run_now(work)
    return refusal.value


# --- accounts


async def test_a_first_start_makes_one_administrator_without_a_password(state: State, access: Access) -> None:
    (first,) = state.run_now(accounts.every)
    assert (first.name, first.role, first.scope, first.has_password) == ("admin", "administrator", WHOLE, False)
    assert await access.log_in("admin", PASSWORD, "::1") is None


async def test_a_name_and_its_password_log_in_with_the_accounts_role_and_scope(state: State, access: Access) -> None:
    make(state, "bob", "operator", SHOP, PASSWORD)
    session = await access.log_in("bob", PASSWORD, "127.0.0.1")
    assert await access.who(None, session) == Identity("bob", "session", "operator", SHOP)


@pytest.mark.parametrize(("name", "password"), [("bob", "another password"), ("eve", PASSWORD), ("bob", "x" * 5000), ("bob", "")])
async def test_what_does_not_belong_together_does_not_log_in(state: State, access: Access, name: str, password: str) -> None:
    make(state, "bob", password=PASSWORD)
    assert await access.log_in(name, password, "127.0.0.1") is None


async def test_a_new_password_ends_every_session_of_this_account_and_no_other(state: State, access: Access) -> None:
    make(state, "bob", password=PASSWORD)
    make(state, "ann", password=PASSWORD)
    bobs, anns = [await access.log_in(name, PASSWORD, "127.0.0.1") for name in ("bob", "ann")]
    state.run_now(lambda connection: accounts.set_password(connection, "bob", password_hash("something else")))
    assert await access.who(None, bobs) is None
    assert await access.who(None, anns) is not None
    assert await access.log_in("bob", PASSWORD, "127.0.0.1") is None
    assert await access.log_in("bob", "something else", "127.0.0.1") is not None


async def test_with_an_account_go_its_sessions_and_tokens(state: State, access: Access) -> None:
    make(state, "bob", password=PASSWORD)
    session = await access.log_in("bob", PASSWORD, "127.0.0.1")
    make_token(state, "bob", secret="mdt_bob")
    state.run_now(lambda connection: accounts.remove(connection, "bob", NOW))
    assert await access.who(None, session) is None
    assert await access.who("mdt_bob", None) is None
    make(state, "bob")  # another bob
    assert await access.who("mdt_bob", None) is None
    assert state.run_now(tokens.every) == ()


async def test_a_session_follows_its_account(state: State, access: Access) -> None:
    make(state, "bob", "operator", WHOLE, PASSWORD)
    session = await access.log_in("bob", PASSWORD, "127.0.0.1")
    state.run_now(lambda connection: accounts.change(connection, "bob", "viewer", SHOP, NOW))
    assert await access.who(None, session) == Identity("bob", "session", "viewer", SHOP)


async def test_the_last_administrator_stays(state: State) -> None:
    assert isinstance(refused(state, lambda connection: accounts.remove(connection, "admin", NOW)), LastAdministrator)
    assert isinstance(
        refused(state, lambda connection: accounts.change(connection, "admin", "viewer", WHOLE, NOW)), LastAdministrator
    )
    make(state, "ann", "administrator")
    state.run_now(lambda connection: accounts.remove(connection, "admin", NOW))
    state.run_now(lambda connection: accounts.add_first(connection, NOW))  # as every start does
    assert [one.name for one in state.run_now(accounts.every)] == ["ann"]


@pytest.mark.parametrize("name", ["", "Bob", "a b", "../x", "ä", "a" * 65, "a\n", ".a", "a'b"])
async def test_a_name_that_could_be_mistaken_is_refused(state: State, name: str) -> None:
    error = refused(state, lambda connection: accounts.add(connection, name, "viewer", WHOLE, None, NOW))
    assert isinstance(error, RequestError)
    assert error.place == "$.name"


async def test_what_cannot_be_is_refused(state: State) -> None:
    make(state, "bob")
    for error, work in (
        (AccountExists, lambda connection: accounts.add(connection, "bob", "viewer", WHOLE, None, NOW)),
        (AccountUnknown, lambda connection: accounts.change(connection, "eve", "viewer", WHOLE, NOW)),
        (AccountUnknown, lambda connection: accounts.remove(connection, "eve", NOW)),
        (AccountUnknown, lambda connection: accounts.set_password(connection, "eve", "x")),
        (RequestError, lambda connection: accounts.add(connection, "eve", "administrator", SHOP, None, NOW)),
        (RequestError, lambda connection: accounts.add(connection, "eve", "viewer", Scope(vms=("",)), None, NOW)),
        (RequestError, lambda connection: accounts.add(connection, "eve", "viewer", Scope(groups=("x",) * 101), None, NOW)),
    ):
        assert isinstance(refused(state, work), error)


@pytest.mark.parametrize("password", ["", "short", "x" * 11, "x" * 1025])
def test_a_password_is_neither_short_nor_endless(password: str) -> None:
    with pytest.raises(RequestError):
        password_hash(password)


# --- tokens


async def test_a_token_has_its_accounts_rights_unless_it_is_given_less(state: State, access: Access) -> None:
    make(state, "bob", "operator", SHOP)
    make_token(state, "bob", secret="mdt_all")
    make_token(state, "bob", "viewer", Scope(vms=("shop-web-?",)), secret="mdt_less")
    assert await access.who("mdt_all", None) == Identity("bob", "token", "operator", SHOP)
    assert await access.who("mdt_less", None) == Identity("bob", "token", "viewer", Scope(vms=("shop-web-?",)))


@pytest.mark.parametrize(
    ("role", "scope"),
    [("administrator", WHOLE), ("investigator", SHOP), ("viewer", Scope(vms=("*",))), ("viewer", Scope(groups=("blue",)))],
)
async def test_a_token_never_has_more_than_its_account(state: State, role: Role, scope: Scope) -> None:
    make(state, "bob", "operator", SHOP)
    with pytest.raises((BeyondOwnRights, RequestError)):
        make_token(state, "bob", role, scope)


async def test_tokens_that_reach_further_than_their_account_now_may_are_withdrawn(state: State) -> None:
    make(state, "bob", "operator")
    kept = make_token(state, "bob", "viewer", SHOP, secret="1").number
    make_token(state, "bob", "operator", SHOP, secret="2")
    make_token(state, "bob", "viewer", WHOLE, secret="3")
    state.run_now(lambda connection: accounts.change(connection, "bob", "viewer", SHOP, LATER))
    assert [one.number for one in state.run_now(tokens.every)] == [kept]


async def test_a_token_expires(state: State, access: Access) -> None:
    make_token(state, "admin", secret="mdt_past", expires_at="2026-11-23T00:00:00.000001Z")
    make_token(state, "admin", secret="mdt_valid", expires_at=LATER)
    assert await access.who("mdt_past", None) is None
    assert await access.who("mdt_valid", None) is not None
    with pytest.raises(RequestError, match="expired"):
        make_token(state, "admin", secret="x", expires_at=NOW)


async def test_another_ones_token_is_as_unknown_as_none(state: State) -> None:
    make(state, "bob")
    number = make_token(state, "admin").number
    others = refused(state, lambda connection: tokens.withdraw(connection, number, NOW, account="bob"))
    none = refused(state, lambda connection: tokens.withdraw(connection, 99, NOW, account="bob"))
    assert isinstance(others, TokenUnknown)
    assert str(others).replace(str(number), "99") == str(none)
    state.run_now(lambda connection: tokens.withdraw(connection, number, NOW, account="admin"))
    assert isinstance(refused(state, lambda connection: tokens.withdraw(connection, number, NOW)), TokenUnknown)


async def test_a_token_of_the_first_versions_is_still_the_administrators(file: Path) -> None:
    file.parent.mkdir()
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.executescript(FIRST_FORMAT)
        connection.execute("INSERT INTO tokens VALUES (?, 'admin', ?, NULL)", (hash_of("mdt_old"), NOW))
        connection.execute("INSERT INTO tokens VALUES (?, 'admin', ?, ?)", (hash_of("mdt_gone"), NOW, NOW))
        connection.commit()
    for _ in range(2):
        with contextlib.closing(State.open(file, SCHEMA)) as state, contextlib.closing(Access(state, "token")) as access:
            state.run_now(upgrade)
            assert access.first_token() is None
            assert await access.who("mdt_old", None) == Identity("admin", "token")
            assert await access.who("mdt_gone", None) is None
            assert await access.redeem(access.make_login_code(), "127.0.0.1") is not None


async def test_whoever_is_vouched_for_stays_logged_in_over_a_start_with_the_same_settings_alone(
    state: State, access: Access
) -> None:
    make(state, "ann", password=PASSWORD)
    anns = await access.log_in("ann", PASSWORD, "127.0.0.1")
    access.keep_sessions("provider one")
    carols = await access.begin_for("carol", "viewer", WHOLE)
    access.keep_sessions("provider one")
    assert await access.who(None, carols) is not None
    access.keep_sessions("provider two")
    found = state.run_now(lambda connection: [(row[0]) for row in connection.execute("SELECT name FROM sessions")])
    assert found == ["ann"]
    assert await access.who(None, anns) is not None
    (written,) = [one for one in state.run_now(lambda connection: list(entries_in(connection))) if one.deed == "sessions-ended"]
    assert (written.who, written.details["ended"]) == ("service", 1)


async def test_nobody_stays_logged_in_over_a_start_in_another_mode(state: State, access: Access) -> None:
    make(state, "ann", password=PASSWORD)
    access.keep_sessions("")
    anns = await access.log_in("ann", PASSWORD, "127.0.0.1")
    access.keep_sessions("")
    assert await access.who(None, anns) is not None
    with contextlib.closing(Access(state, "oidc")) as by_provider:
        by_provider.keep_sessions("provider one")
        assert await by_provider.who(None, anns) is None
        carols = await by_provider.begin_for("carol", "viewer", WHOLE)
        by_provider.keep_sessions("provider one")
        assert await by_provider.who(None, carols) is not None
    written = [one for one in state.run_now(lambda connection: list(entries_in(connection))) if one.deed == "sessions-ended"]
    assert [(one.who, one.subject, one.details["ended"]) for one in written] == [("service", "all who were logged in", 1)]


def test_what_decides_whom_a_provider_vouches_for_is_told_apart() -> None:
    oidc = {
        "MEMDUMP_AUTH": "oidc", "MEMDUMP_PUBLIC_URL": "https://dumps.example", "MEMDUMP_OIDC_ISSUER": "https://login.example",
        "MEMDUMP_OIDC_CLIENT_ID": "dumps", "MEMDUMP_GROUP_ROLES": '{"a": "viewer", "b": "operator"}',
    }  # fmt: skip
    found = {vouching_of(Settings.from_environment(oidc | change)) for change in (
        {}, {"MEMDUMP_PORT": "9000"}, {"MEMDUMP_GROUP_ROLES": '{ "a":"viewer","b":"operator" }'},
    )}  # fmt: skip
    assert len(found) == 1
    for change in (
        {"MEMDUMP_OIDC_ISSUER": "https://other.example"},
        {"MEMDUMP_GROUP_ROLES": '{"a": "viewer"}'},
        {"MEMDUMP_GROUP_ROLES": '{"b": "operator", "a": "viewer"}'},  # who is in both is an operator by this one
    ):
        assert vouching_of(Settings.from_environment(oidc | change)) not in found
    assert vouching_of(Settings.from_environment({})) == ""


# --- rights


def test_whatever_is_done_with_dumps_has_a_right_and_a_word_in_the_trail_also_before_it_can_be_done() -> None:
    assert {"dump", "cancel", "download", "delete"} <= set(RIGHTS) & set(DEEDS)
    assert [role for role in ROLES if "download" in ROLES[role]] == ["investigator", "administrator"]
    assert [role for role in ROLES if "delete" in ROLES[role]] == ["administrator"]


# --- how often a login may fail


@thorough
async def test_right_or_wrong_a_login_waits_where_too_many_failed(state: State, access: Access) -> None:
    make(state, "bob", password=PASSWORD)
    for number in range(TRIES):
        assert await access.log_in("bob", "wrong password", f"10.0.0.{number}") is None
    with pytest.raises(TooManyLogins):
        await access.log_in("bob", PASSWORD, "10.0.1.1")


async def test_a_password_that_nobody_had_time_to_look_at_is_no_try(
    state: State, access: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(state, "bob", password=PASSWORD)
    with monkeypatch.context() as busy:
        busy.setattr("app.access.passwords.MOST_WAITING", 0)
        for _ in range(TRIES + 1):
            with pytest.raises(TooManyLogins) as refusal:
                await access.log_in("bob", PASSWORD, "10.0.0.1")
            assert refusal.value.retry_after_sec < REFILL_SEC
    assert await access.log_in("bob", PASSWORD, "10.0.0.1") is not None


# --- from a command line


def by_hand(file: Path, *arguments: str) -> str:
    return "\n".join(access_by_hand(arguments, lambda: State.open(file, SCHEMA)))


async def test_accounts_and_tokens_are_kept_from_a_command_line(
    file: Path, state: State, access: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_hand(file, "account", "add", "bob", "--role", "operator", "--vm", "shop-*", "--vm", "cart-*", "--group", "blue")
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{PASSWORD}\n"))
    by_hand(file, "account", "password", "bob")
    scope = Scope(vms=("shop-*", "cart-*"), groups=("blue",))
    session = await access.log_in("bob", PASSWORD, "127.0.0.1")
    assert await access.who(None, session) == Identity("bob", "session", "operator", scope)
    assert "bob    operator       VMs shop-* cart-*, groups blue  yes" in by_hand(file, "account", "list")
    secret = by_hand(file, "token", "add", "nightly", "--account", "bob", "--role", "viewer", "--expires", "30d").split()[-1]
    assert await access.who(secret, None) == Identity("bob", "token", "viewer", scope)
    assert secret not in by_hand(file, "token", "list")
    by_hand(file, "account", "change", "bob", "--role", "viewer")
    assert state.run_now(accounts.every)[1].scope == scope
    by_hand(file, "account", "change", "bob", "--whole")
    assert state.run_now(accounts.every)[1].scope == WHOLE
    by_hand(file, "token", "revoke", "1")
    assert "nightly" not in by_hand(file, "token", "list", "--account", "bob")
    assert "viewer of VMs x." in by_hand(file, "account", "change", "bob", "--whole", "--vm", "x")
    assert "viewer of VMs x, groups red." in by_hand(file, "account", "change", "bob", "--group", "red")
    by_hand(file, "account", "remove", "bob")
    assert [one.name for one in state.run_now(accounts.every)] == ["admin"]
    written = await state.read(lambda connection: list(entries_in(connection)))
    assert {entry.via for entry in written} == {"command-line"}  # the login, too: no request asked for it
    assert [entry.deed for entry in written if entry.deed != "login"] == [
        "account-made", "password-changed", "token-made", "account-changed", "account-changed", "token-revoked", "account-changed",
        "account-changed", "account-removed",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "arguments",
    [["account"], ["account", "add", "bob"], ["account", "add", "bob", "--role", "king"], ["token", "revoke", "x"],
     ["token", "add", "x", "--expires", "soon"], ["token", "sell", "1"],
     ["token", "add", "x", "--expires", "9999-12-31T23:59:59-14:00"], ["token", "revoke", "9" * 20], ["token", "revoke", "-1"]],
)  # fmt: skip
def test_wrong_usage_says_what_is_meant(file: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        by_hand(file, *arguments)
    assert ended.value.code == 2
    assert "usage: python -m app" in capsys.readouterr().err
