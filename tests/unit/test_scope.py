"""Scopes: what one covers, and what is within another."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import scope as scope_module
from app.access.schema import scope_from_text
from app.scope import WHOLE, Scope

SHOP = Scope(vms=("shop-*",))
NAMES = st.text("ab-", max_size=4)
PATTERNS = st.text("ab*?", min_size=1, max_size=4)


@given(st.lists(st.text("ab*?[!-]\n|(", min_size=1, max_size=5), min_size=1, max_size=4), st.text("ab-\n|(", max_size=5))
def test_a_scope_covers_what_one_of_its_patterns_fits(patterns: list[str], name: str) -> None:
    assert Scope(vms=tuple(patterns)).covers("h", name, None) == any(fnmatchcase(name, pattern) for pattern in patterns)


def test_what_a_scope_covers_is_looked_at_once_however_often_it_is_asked_and_read() -> None:
    patterns = [f"*-looked-at-once-{number}-*" for number in range(50)]
    for _ in range(3):
        assert not scope_from_text(json.dumps({"vms": patterns})).covers("h", "looked-at-once", None)
    looked, asked = scope_module._fits.cache_info().misses, scope_module._fits.cache_info().hits
    assert not scope_from_text(json.dumps({"vms": patterns})).covers("h", "looked-at-once", None)
    assert (scope_module._fits.cache_info().misses, scope_module._fits.cache_info().hits) == (looked, asked + 1)


@given(PATTERNS, PATTERNS, NAMES)
def test_what_is_within_covers_nothing_more(one: str, other: str, name: str) -> None:
    narrow, wide = Scope(vms=(one,)), Scope(vms=(other,))
    if narrow.within(wide) and narrow.covers("h", name, None):
        assert wide.covers("h", name, None)


@pytest.mark.parametrize(
    ("narrow", "wide", "fits"),
    [
        (SHOP, WHOLE, True),
        (WHOLE, SHOP, False),
        (SHOP, SHOP, True),
        (Scope(vms=("shop-1",)), SHOP, True),
        (Scope(vms=("shop-*", "x")), SHOP, False),
        (Scope(groups=("a",)), Scope(groups=("a", "b")), True),
        (Scope(groups=("a", "b")), Scope(groups=("a",)), False),
        (Scope(vms=("shop-1",)), Scope(vms=("shop-*",), hypervisors=("kvm-07",)), False),
    ],
)
def test_within_is_seen_of_every_kind(narrow: Scope, wide: Scope, fits: bool) -> None:
    assert narrow.within(wide) is fits
