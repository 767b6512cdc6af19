"""``influx``: where the tests of this folder find InfluxDB, the stand-in or, when the environment names one, a real server."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
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
def influx(request: pytest.FixtureRequest) -> Iterator[Influx]:
    """A database that nobody has written to. It is deleted afterwards: Core holds no more than five."""
    if url := os.environ.get("TEST_INFLUX_URL"):
        found = Influx(url, _fresh(), os.environ["TEST_INFLUX_TOKEN"])
    else:
        started: StandIn = request.getfixturevalue("stand_in")
        found = Influx(started.url, started.database, started.token)
    yield found
    _delete(found)


def _fresh() -> str:
    return f"test-{uuid.uuid4().hex}"


def _delete(influx: Influx) -> None:
    address = f"{influx.url.rstrip('/')}/api/v3/configure/database?db={influx.database}&hard_delete_at=now"
    request = urllib.request.Request(address, method="DELETE", headers={"Authorization": f"Bearer {influx.token}"})  # noqa: S310
    try:
        urllib.request.urlopen(request, timeout=10).close()  # noqa: S310  # the address is the tester's own
    except urllib.error.HTTPError as answer:
        with answer:
            if answer.code != 404:  # the test never wrote to it
                raise
