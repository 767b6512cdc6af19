"""A flood of refusals: the first of each kind at once, the rest counted, strangers apart from whom we know."""

from app.access.audit import Note, Occasion, note, on_occasion
from app.access.refusals import MOST_KINDS, WHILE_SEC, Refusals


class Clock:
    passed_sec = 0.0

    def __call__(self) -> float:
        return self.passed_sec


def refusal(who: str = "unknown") -> Note:
    with on_occasion(Occasion(who, "", "192.0.2.1")):
        return note("refusal", "GET /", result="login-required")


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


def test_a_flood_from_everywhere_has_few_entries() -> None:
    refusals = Refusals(Clock())
    written = [each for number in range(10_000) for each in refusals.hear(refusal(), (str(number),), known=False)]
    assert len(written) == MOST_KINDS
    (rest,) = refusals.rest()
    assert (rest.who, rest.details["times"]) == ("several unknown", 10_000 - MOST_KINDS)


def test_strangers_do_not_crowd_out_an_account() -> None:
    refusals = Refusals(Clock())
    for number in range(1000):
        refusals.hear(refusal(), (str(number),), known=False)
    (written,) = refusals.hear(refusal("olga"), ("olga",), known=True)
    assert written.who == "olga"
