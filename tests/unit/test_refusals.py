"""A flood of refusals: the first of each kind at once, the rest counted, each caller's apart from what others tried."""

import pytest

from app.access.audit import Note, Occasion, note, on_occasion
from app.access.network import network_of
from app.access.refusals import MOST_KINDS, MOST_OF_ONE, WHILE_SEC, Refusals


class Clock:
    passed_sec = 0.0

    def __call__(self) -> float:
        return self.passed_sec


def refusal(who: str = "unknown", origin: str = "192.0.2.1") -> Note:
    with on_occasion(Occasion(who, "", origin)):
        return note("refusal", "GET /", result="login-required")


def guess(name: str, origin: str) -> Note:
    """A password that is not that of ``name``, who is somebody; '' for anybody else."""
    with on_occasion(Occasion("unknown", "", origin)):
        return note("login-refused", name, result="refused")


def flood(refusals: Refusals, origin: str, times: int = 1000) -> list[Note]:
    """As many kinds, from one address."""
    return [each for number in range(times) for each in refusals.hear(refusal(origin=origin), (str(number),), known=False)]


def test_the_first_is_written_at_once_and_the_same_again_when_a_while_has_passed() -> None:
    clock = Clock()
    refusals = Refusals(clock)
    assert [len(refusals.hear(refusal(), ("a",), known=False)) for _ in range(1000)] == [1] + [0] * 999
    assert refusals.due() == []
    clock.passed_sec = WHILE_SEC
    (counted,) = refusals.due()
    assert (counted.details["times"], counted.result, counted.subject) == (999, "login-required", "GET /")
    assert len(refusals.hear(refusal(), ("a",), known=False)) == 1


def test_what_was_refused_once_is_not_counted_again() -> None:
    clock = Clock()
    refusals = Refusals(clock)
    refusals.hear(refusal(), ("a",), known=False)
    clock.passed_sec = WHILE_SEC
    assert refusals.due() == []


def test_a_flood_from_one_network_has_few_entries_and_a_count_of_its_own() -> None:
    refusals = Refusals(Clock())
    assert len(flood(refusals, "192.0.2.1")) == MOST_OF_ONE
    assert flood(refusals, "192.0.2.254") == []
    assert len(flood(refusals, "2001:db8:1:2::3")) == MOST_OF_ONE
    assert flood(refusals, "2001:db8:1:ffff::1") == []
    rest = [each for each in refusals.rest() if each.result == "several"]
    assert [(each.who, each.details["network"], each.details["times"]) for each in rest] == [
        ("several unknown", "192.0.2.0/24", 2000 - 2 * MOST_OF_ONE),
        ("several unknown", "2001:db8:1::/48", 2000 - 2 * MOST_OF_ONE),
    ]


def test_a_flood_from_everywhere_has_few_entries() -> None:
    refusals = Refusals(Clock())
    written = [each for number in range(200) for each in flood(refusals, f"10.0.{number}.1", 20)]
    assert len(written) == MOST_KINDS
    rest = refusals.rest()
    assert len(rest) == MOST_KINDS // MOST_OF_ONE + 1
    assert sum(int(each.details["times"] or 0) for each in rest) == 200 * 20 - MOST_KINDS
    assert {each.details.get("network") for each in rest} == {*(f"10.0.{number}.0/24" for number in range(8)), None}


def test_strangers_crowd_out_neither_an_account_nor_a_stranger_elsewhere() -> None:
    refusals = Refusals(Clock())
    flood(refusals, "192.0.2.1")
    (written,) = refusals.hear(refusal("olga"), ("olga",), known=True)
    assert written.who == "olga"
    (written,) = refusals.hear(refusal(origin="198.51.100.1"), ("a",), known=False)
    assert written.occasion.origin == "198.51.100.1"


def test_an_account_does_not_crowd_out_another() -> None:
    refusals = Refusals(Clock())
    for number in range(1000):
        refusals.hear(refusal("olga"), (str(number),), known=True)
    (written,) = refusals.hear(refusal("bob"), ("x",), known=True)
    assert written.who == "bob"
    (rest,) = refusals.rest()
    assert (rest.who, rest.result, rest.details["times"]) == ("olga", "several", 1000 - MOST_OF_ONE)


def test_a_name_that_is_guessed_at_is_told_however_much_came_before_and_never_while_the_guesser_waits() -> None:
    refusals = Refusals(Clock())
    flood(refusals, "192.0.2.1")
    for _ in range(3):
        assert refusals.hear(guess("admin", "192.0.2.1"), ("admin",), known=False) == []
        assert refusals.hear(guess("", "192.0.2.1"), ("nobody",), known=False) == []
    (late,) = refusals.due()
    assert (late.deed, late.subject, late.occasion.origin) == ("login-refused", "admin", "192.0.2.1")
    assert refusals.due() == []
    counted = [(each.subject, each.details["times"]) for each in refusals.rest() if each.deed == "login-refused"]
    assert counted == [("admin", 2)]


def test_a_name_that_all_the_world_guesses_at_has_few_entries() -> None:
    refusals = Refusals(Clock())
    for number in range(100):
        flood(refusals, f"10.0.{number}.1", MOST_OF_ONE)
        assert refusals.hear(guess("admin", f"10.0.{number}.1"), ("admin", str(number)), known=False) == []
    rest = refusals.rest()
    assert len([each for each in rest if each.subject == "admin" and each.result == "refused"]) == MOST_OF_ONE
    (several,) = [each for each in rest if each.subject == "admin" and each.result == "several"]
    assert (several.deed, several.details["times"]) == ("login-refused", 100 - MOST_OF_ONE)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.0/24"),
        ("::ffff:192.0.2.7", "192.0.2.0/24"),
        ("2001:db8:1:2::3", "2001:db8:1::/48"),
        ("::1", "::/48"),
        ("fe80::1%eth0", "fe80::/48"),
        ("evil", "evil"),
        ("", ""),
    ],
)
def test_neighbours_are_one_network(address: str, network: str) -> None:
    assert network_of(address, v4_bits=24, v6_bits=48) == network
