"""Who may come in: tokens, login codes and sessions, for how long, and that nothing of them stands in the file."""

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Set
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.access import SCHEMA, SESSION_SEC, Access, Identity, sessions, tokens
from app.access.access import CACHE_ENTRIES, CACHE_SEC, CODE_SEC, IDLE_SEC
from app.access.attempts import REFILL_SEC, TRIES
from app.access.presence import Key, Presence, Stay
from app.access.secrets import hash_of
from app.errors import TooManyLogins
from app.scope import WHOLE
from app.state import READERS, State
from tests.other_process import run

PATIENCE_SEC = 20.0
HERE = "127.0.0.1"
NOT_SECRETS = ["", "x", "mdt_", "mdt_" + "A" * 43, "\udc80", "\ud800", "\0", "' OR 1=1 --", "ü" * 8000]

OTHER_MAKES_A_CODE = """
import pathlib, sys
from app.access import SCHEMA, Access
from app.state import State
state = State.open(pathlib.Path(sys.argv[1]), SCHEMA)
print(Access(state, "token").make_login_code())
state.close()
"""
OTHER_ENDS_EVERYTHING = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("UPDATE tokens SET withdrawn_at = '2026-01-01T00:00:00.000000Z'")
connection.execute("DELETE FROM sessions")
connection.commit()
"""


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.passed_sec = 0.0

    def now(self) -> datetime:
        return datetime(2026, 11, 23, tzinfo=UTC) + timedelta(seconds=self.passed_sec)

    def monotonic(self) -> float:
        return self.passed_sec


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "memory-dumps.sqlite3"


@pytest.fixture
async def state(file: Path) -> AsyncIterator[State]:
    with contextlib.closing(State.open(file, SCHEMA)) as state:
        yield state


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def access(state: State, clock: Clock) -> Iterator[Access]:
    with contextlib.closing(Access(state, "token", now=clock.now, monotonic=clock.monotonic)) as access:
        yield access


async def session_of(access: Access) -> str:
    session = await access.redeem(access.make_login_code(), HERE)
    assert session is not None
    return session


def count(state: State, table: str) -> int:
    found: int = state.run_now(lambda connection: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608
    return found


@contextlib.asynccontextmanager
async def watching(watch: Awaitable[None]) -> AsyncIterator[None]:
    task = asyncio.ensure_future(watch)
    try:
        async with asyncio.timeout(PATIENCE_SEC):
            yield
    finally:
        task.cancel()
        await asyncio.wait([task])


# --- tokens -------------------------------------------------------------------------------------------------------


async def test_the_first_token_of_a_state_directory_is_made_once_and_lets_in(file: Path, state: State, access: Access) -> None:
    token = access.first_token()
    assert token is not None
    assert token.startswith("mdt_")
    assert len(token) >= 4 + 43
    assert await access.who(token, None) == Identity("admin", "token")
    assert access.first_token() is None
    state.close()
    with contextlib.closing(State.open(file, SCHEMA)) as later:
        assert Access(later, "token").first_token() is None
        assert await Access(later, "token").who(token, None) == Identity("admin", "token")


async def test_withdrawing_the_first_token_does_not_bring_forth_another(file: Path, access: Access) -> None:
    access.first_token()
    assert run(OTHER_ENDS_EVERYTHING, file).returncode == 0
    assert access.first_token() is None


@pytest.mark.parametrize("secret", NOT_SECRETS)
async def test_what_is_no_secret_of_ours_is_nobody_and_no_error(access: Access, secret: str) -> None:
    access.first_token()
    await session_of(access)
    assert await access.who(secret, None) is None
    assert await access.who(None, secret) is None
    assert await access.redeem(secret, HERE) is None
    await access.logout(secret)


async def test_nobody_who_shows_nothing_comes_in(access: Access) -> None:
    assert await access.who(None, None) is None


async def test_each_secret_opens_its_own_door_only(access: Access) -> None:
    token = access.first_token()
    assert token is not None
    code, session = access.make_login_code(), await session_of(access)
    assert await access.who(None, token) is None
    assert await access.who(session, None) is None
    assert await access.who(code, code) is None
    assert await access.redeem(token, HERE) is None
    assert await access.redeem(session, HERE) is None


async def test_a_wrong_token_is_not_made_good_by_a_session(access: Access) -> None:
    assert await access.who("mdt_wrong", await session_of(access)) is None


async def test_an_open_service_knows_everybody_as_the_same_and_makes_no_token(state: State) -> None:
    access = Access(state, "none")
    assert access.first_token() is None
    assert await access.who(None, None) == await access.who("x", "y") == Identity("anonymous", "open")
    assert Access(state, "token").first_token() is not None


# --- login codes --------------------------------------------------------------------------------------------------


async def test_a_code_works_once(access: Access) -> None:
    code = access.make_login_code()
    session = await access.redeem(code, HERE)
    assert session is not None
    assert await access.who(None, session) == Identity("admin", "session")
    assert await access.redeem(code, HERE) is None
    assert await access.who(None, session) is not None


async def test_a_code_works_for_ten_minutes(access: Access, clock: Clock) -> None:
    early, late = access.make_login_code(), access.make_login_code()
    clock.passed_sec = CODE_SEC - 1
    assert await access.redeem(early, HERE) is not None
    clock.passed_sec = CODE_SEC
    assert await access.redeem(late, HERE) is None
    assert CODE_SEC == 600


async def test_codes_are_not_guessed_at_without_end_and_a_right_one_costs_no_try(access: Access, clock: Clock) -> None:
    for _ in range(2 * TRIES):
        assert await access.redeem(access.make_login_code(), HERE) is not None
    for _ in range(TRIES):
        assert await access.redeem("never-made", HERE) is None
    code = access.make_login_code()
    with pytest.raises(TooManyLogins):
        await access.redeem(code, HERE)
    assert await access.redeem(access.make_login_code(), "192.0.2.7") is not None
    clock.passed_sec += REFILL_SEC
    assert await access.redeem(code, HERE) is not None


async def test_one_wins_when_many_redeem_the_same_code_even_over_several_connections(file: Path, access: Access) -> None:
    with contextlib.ExitStack() as opened:
        states = [opened.enter_context(contextlib.closing(State.open(file, SCHEMA))) for _ in range(3)]
        others = [Access(state, "token") for state in states]
        for _ in range(10):
            code = Access(states[0], "token").make_login_code()
            sessions = await asyncio.gather(*(other.redeem(code, f"192.0.2.{number}") for number, other in enumerate(others * 4)))
            assert len([session for session in sessions if session is not None]) == 1


async def test_a_code_from_the_command_line_logs_in_at_the_running_service(file: Path, state: State) -> None:
    made = run(OTHER_MAKES_A_CODE, file)
    assert made.returncode == 0, made.stderr
    assert await Access(state, "token").redeem(made.stdout.strip(), HERE) is not None


# --- sessions -----------------------------------------------------------------------------------------------------


async def test_a_session_ends_after_its_time(access: Access, clock: Clock) -> None:
    session = await session_of(access)
    for clock.passed_sec in (*range(0, SESSION_SEC, IDLE_SEC - 1), SESSION_SEC - 1):
        assert await access.who(None, session) is not None
    clock.passed_sec = SESSION_SEC + CACHE_SEC
    assert await access.who(None, session) is None
    assert SESSION_SEC == 7 * 24 * 3600


async def test_a_session_ends_when_nobody_asks_for_anything(access: Access, clock: Clock) -> None:
    session = await session_of(access)
    clock.passed_sec = 1000
    assert await access.who(None, session) is not None
    clock.passed_sec = 1000 + IDLE_SEC - 1
    assert await access.who(None, session, quiet=True) is not None  # a page that only listens
    clock.passed_sec = 1000 + IDLE_SEC + CACHE_SEC
    assert await access.who(None, session) is None


async def test_what_a_token_was_last_used_for_is_written_once_a_minute(state: State, access: Access, clock: Clock) -> None:
    token = access.first_token()
    uses = []
    for clock.passed_sec in (0, 30, 59, 61, 100):
        await access.who(token, None)
        (first,) = await state.read(tokens.every)
        uses.append(first.used_at)
    assert len(set(uses)) == 2
    assert uses[0] == uses[2] == "2026-11-23T00:00:00.000000Z"


async def test_logging_out_counts_at_once_and_for_this_session_alone(access: Access) -> None:
    ended, other = await session_of(access), await session_of(access)
    assert await access.who(None, ended) is not None
    await access.logout(ended)
    assert await access.who(None, ended) is None
    assert await access.who(None, other) is not None


async def test_a_look_up_under_way_does_not_bring_back_a_session_that_logs_out(
    state: State, access: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, read = await session_of(access), state.read
    has_read, may_answer = asyncio.Event(), asyncio.Event()

    async def read_and_wait(work: Callable[[sqlite3.Connection], object], *, slow: bool = False) -> object:
        found = await read(work, slow=slow)
        has_read.set()
        await may_answer.wait()
        return found

    monkeypatch.setattr(state, "read", read_and_wait)
    looking = asyncio.create_task(access.who(None, session))
    await has_read.wait()
    await access.logout(session)
    may_answer.set()
    await looking
    assert await access.who(None, session) is None


async def test_what_another_process_ends_counts_within_a_second(file: Path, access: Access, clock: Clock) -> None:
    token, session = access.first_token(), await session_of(access)
    assert await access.who(token, None) is not None
    assert await access.who(None, session) is not None
    assert run(OTHER_ENDS_EVERYTHING, file).returncode == 0
    clock.passed_sec = CACHE_SEC
    assert await access.who(token, None) is None
    assert await access.who(None, session) is None
    assert CACHE_SEC <= 1


async def hear_questions(state: State, asked: list[str]) -> None:
    """From now on, whichever thread reads."""
    all_here = threading.Barrier(READERS)

    def work(connection: sqlite3.Connection) -> None:
        connection.set_trace_callback(asked.append)
        all_here.wait(20)

    await asyncio.gather(*(state.read(work) for _ in range(READERS)))


async def test_who_asks_often_is_looked_up_once_a_second(state: State, access: Access, clock: Clock) -> None:
    session, asked = await session_of(access), list[str]()
    await hear_questions(state, asked)
    for tenth in range(20):
        clock.passed_sec = tenth / 10
        assert await access.who(None, session) is not None
    assert len([question for question in asked if "FROM sessions" in question]) == 2


async def test_guesses_take_no_place_among_those_who_are_known(state: State, access: Access) -> None:
    session, asked = await session_of(access), list[str]()
    await access.who(None, session)
    for number in range(CACHE_ENTRIES + 1):
        assert await access.who(f"mdt_{number}", None) is None
    await hear_questions(state, asked)
    assert await access.who(None, session) is not None
    assert set(asked) == {"COMMIT"}  # the ends of the transactions that began to listen
    assert len(asked) == READERS


async def test_what_is_remembered_is_bounded_and_nobody_is_locked_out_by_that(state: State, access: Access) -> None:
    names = [str(number) for number in range(CACHE_ENTRIES + 10)]

    def work(connection: sqlite3.Connection) -> None:
        for name in names:
            now, later = "2026-11-23T00:00:00.000000Z", "2026-11-24T00:00:00.000000Z"
            sessions.begin_for(connection, hash_of(name), name, "administrator", WHOLE, now, later)

    await state.run(work)
    for _ in range(2):
        assert [await access.who(None, name) for name in names] == [Identity(name, "session") for name in names]
    assert len(access._cache) == CACHE_ENTRIES


async def test_a_person_of_elsewhere_is_not_taken_for_the_account_of_that_name(access: Access) -> None:
    own = await access.who(None, await session_of(access))
    foreign = await access.who(None, await access.begin_for("admin", "viewer", WHOLE, sub="7"))
    token = await access.who(access.first_token(), None)
    told = [(each.name, each.shown_by) for each in (own, foreign, token) if each is not None]
    assert told == [("admin", "session"), ("admin", "oidc"), ("admin", "token")]


async def test_what_is_over_is_swept_when_something_new_is_made(state: State, access: Access, clock: Clock) -> None:
    for _ in range(3):
        await session_of(access)
        access.make_login_code()
    assert (count(state, "sessions"), count(state, "login_codes")) == (3, 3)
    clock.passed_sec = CODE_SEC
    access.make_login_code()
    assert (count(state, "sessions"), count(state, "login_codes")) == (3, 1)
    clock.passed_sec = SESSION_SEC
    await session_of(access)
    assert (count(state, "sessions"), count(state, "login_codes")) == (1, 0)


# --- secrets ------------------------------------------------------------------------------------------------------


async def test_no_secret_stands_in_any_file_only_its_hash(file: Path, access: Access) -> None:
    token, code, session = access.first_token(), access.make_login_code(), await session_of(access)
    content = b"".join(path.read_bytes() for path in file.parent.iterdir())
    for secret in (token, code, session):
        assert secret is not None
        assert secret.removeprefix("mdt_").encode() not in content
        assert hash_of(secret) in content


async def test_no_two_secrets_are_alike(access: Access) -> None:
    assert len({access.make_login_code() for _ in range(100)}) == 100


@given(st.text(st.characters(exclude_categories=())), st.text())
def test_any_text_has_a_hash_and_different_texts_have_different_ones(one: str, other: str) -> None:
    assert len(hash_of(one)) == 32
    assert (hash_of(one) == hash_of(other)) == (one == other)


# --- watching


async def test_what_is_open_ends_with_its_login_though_a_look_at_it_broke() -> None:
    looks: list[Set[Key]] = []

    async def look(keys: Set[Key]) -> Mapping[Key, Identity | None]:
        looks.append(keys)
        if len(looks) == 1:
            raise ValueError("nobody thought of this")
        return dict.fromkeys(keys)

    presence, left = Presence(look), asyncio.Event()
    with presence.of(("session", b"x"), Stay(Identity("ann", "session"), left.set)):
        async with watching(presence.watch()):
            await left.wait()
