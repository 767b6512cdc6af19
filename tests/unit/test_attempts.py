"""How often a login may fail, by address and by name."""

from __future__ import annotations

import pytest

from app.access.attempts import MOST, REFILL_SEC, TRIES, Attempts
from app.errors import (
    TooManyLogins,
)


def test_after_ten_in_vain_an_address_and_a_name_have_to_wait_and_nobody_else() -> None:
    passed = [0.0]
    attempts = Attempts(lambda: passed[0])
    for _ in range(TRIES):
        attempts.take("10.0.0.1", "bob")
    for address, name in (("10.0.0.1", "ann"), ("10.0.0.2", "bob"), ("::ffff:10.0.0.1", "x"), ("10.0.0.1", None)):
        with pytest.raises(TooManyLogins) as refusal:
            attempts.take(address, name)
        assert refusal.value.retry_after_sec == REFILL_SEC
    attempts.take("10.0.0.2", "ann")
    passed[0] = REFILL_SEC
    attempts.take("10.0.0.1", "bob")
    with pytest.raises(TooManyLogins):
        attempts.take("10.0.0.1", "bob")


def test_one_network_of_version_6_is_one_address() -> None:
    attempts = Attempts(lambda: 0.0)
    for number in range(TRIES):
        attempts.take(f"2001:db8::{number:x}", str(number))
    with pytest.raises(TooManyLogins):
        attempts.take("2001:db8::ffff", "x")


def test_who_logs_in_has_used_nothing_up_and_what_is_remembered_is_bounded() -> None:
    attempts = Attempts(lambda: 0.0)
    for _ in range(TRIES * 3):
        attempts.take("10.0.0.1", "bob")
        attempts.give_back("10.0.0.1", "bob")
    assert not any(attempts._left.values())
    for number in range(MOST + 10):
        attempts.take(str(number), str(number))
    assert [len(known) for known in attempts._left.values()] == [MOST, MOST]


def test_a_name_stays_locked_however_many_addresses_come_without_one() -> None:
    attempts = Attempts(lambda: 0.0)
    for number in range(TRIES):
        attempts.take(f"10.0.0.{number}", "admin")
    for number in range(MOST + 10):
        attempts.take(f"2001:db8:{number >> 16:x}:{number & 0xFFFF:x}::1")
    with pytest.raises(TooManyLogins):
        attempts.take("10.0.1.1", "admin")
