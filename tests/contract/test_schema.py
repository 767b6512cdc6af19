"""Schemathesis: whatever the description lets one ask, as each role and as nobody, is answered as it says, and never with 5xx.

A few hundred cases each time, thousands in ``make test-deep``; the same ones in each run, so that what fails here fails again.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

from app.access import accounts, tokens
from app.access.secrets import hash_of
from app.config import Settings
from app.foundation import open_beside
from app.rights import ROLES, Role
from app.scope import WHOLE
from tests.contract.conftest import OFF, OFF_ONE
from tests.contract.described import description
from tests.nodes import node
from tests.service import Service, running_service
from tests.thorough import thorough

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
FAR = 10**12
"""From here on tokens are numbered, so that no case revokes the one that it is asked with."""

NOBODY = "nobody"
LONG_AGO = "2001-01-01T00:00:00.000000Z"
FIXED: dict[str, dict[str, Any]] = {"/api/memory-dumps/changes": {"wait": 0}}
"""Of what would only take time."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One whose VMs are shut off: nothing that is asked of it begins a dump."""
    folder = tmp_path_factory.mktemp("service")
    with running_service(folder, LIBVIRT_URI=node(folder / "node.xml", [OFF, OFF_ONE])) as started:
        with contextlib.closing(open_beside(Settings.from_environment(started.environment))) as state:
            for role in ROLES:
                state.run_now(partial(_add, role=role))
            state.run_now(lambda connection: connection.execute("UPDATE tokens SET number = number + ?", (FAR,)))
        yield started


def _add(connection: sqlite3.Connection, role: Role) -> None:
    accounts.add(connection, f"a-{role}", role, WHOLE, None, LONG_AGO)
    tokens.add(connection, hash_of(f"token-{role}"), f"a-{role}", "x", None, WHOLE, LONG_AGO, None)


def _ask_everything(service: Service, examples: int) -> Counter[str]:
    """Each case as every role and as nobody; how many were asked by whom. Raises what the first wrong answer was."""
    schema = schemathesis.openapi.from_dict(description())
    asked: Counter[str] = Counter()
    how = settings(
        max_examples=examples, derandomize=True, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    with requests.Session() as session:
        for found in schema.get_all_operations():
            operation = found.ok()  # type: ignore[union-attr]  # the description is valid: a test of its own says so
            # To nobody, readyz tells the status code alone, which OpenAPI cannot say beside what others get.
            callers: list[str] = [*ROLES] if operation.path == "/readyz" else [*ROLES, NOBODY]
            modes = [GenerationMode.POSITIVE]
            if operation.body or operation.query:
                modes.append(GenerationMode.NEGATIVE)
            ask = _asked_by(callers, service, session, asked)
            for mode in modes:
                how(given(case=operation.as_strategy(mode, query=FIXED.get(operation.path)))(ask))()
        for role in ROLES:  # no case has ended the token that it was asked with
            status = session.get(f"{service.url}/api/memory-dumps/status", headers=_headers(role), timeout=30).status_code
            assert (role, status) == (role, 200)
    return asked


def _asked_by(callers: list[str], service: Service, session: requests.Session, asked: Counter[str]) -> Callable[[Case[Any]], None]:
    def ask(case: Case[Any]) -> None:
        for caller in callers:
            asked[caller] += 1
            answer = case.call(service.url, session=session, headers=_headers(caller), allow_redirects=False, timeout=30)
            case.validate_response(answer, checks=CHECKS)

    return ask


def _headers(caller: str) -> dict[str, str]:
    return {} if caller == NOBODY else {"Authorization": f"Bearer token-{caller}"}


@thorough
def test_every_answer_is_one_that_the_description_has(service: Service) -> None:
    asked = _ask_everything(service, examples=2)
    assert asked.keys() == {*ROLES, NOBODY}
    assert min(asked.values()) > 50


@pytest.mark.deep
@pytest.mark.timeout(3600)
def test_every_answer_of_thousands_is_one_that_the_description_has(service: Service) -> None:
    assert min(_ask_everything(service, examples=40).values()) > 1000
