"""``influx``: where the tests of this folder find InfluxDB, the stand-in or, when the environment names one, a real server."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.influx.stand_in import StandIn


@dataclass(frozen=True, slots=True)
class Influx:
    url: str
    database: str
    token: str


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    """For tests that use its switches, which no real server has."""
    with StandIn(database=_fresh()) as started:
        yield started


@pytest.fixture
def influx(request: pytest.FixtureRequest) -> Influx:
    """A database that nobody has written to."""
    if url := os.environ.get("TEST_INFLUX_URL"):
        return Influx(url, _fresh(), os.environ["TEST_INFLUX_TOKEN"])
    started: StandIn = request.getfixturevalue("stand_in")
    return Influx(started.url, started.database, started.token)


def _fresh() -> str:
    return f"test-{uuid.uuid4().hex}"
