"""What the service's description of itself promises, held against what it answers."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.protocols import Validator

from app.web import openapi
from app.web.routes import ROUTES

JSON = "application/json"
PROBLEM = "application/problem+json"


@cache
def description() -> dict[str, Any]:
    """The description, as ``/api/openapi.json`` gives it."""
    return openapi.document(ROUTES)


@cache
def _paths() -> list[tuple[re.Pattern[str], str]]:
    """Patterns of all addresses, those without variables first."""
    found = sorted(description()["paths"], key=lambda path: "{" in path)
    return [(re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path))), path) for path in found]


@cache
def _validator(path: str, method: str, status: int, content_type: str) -> Validator:
    responses = description()["paths"][path][method]["responses"]
    assert str(status) in responses, f"{method} {path} is not described with {status}"
    return _of(responses[str(status)]["content"][content_type]["schema"])


def _of(schema: dict[str, Any]) -> Validator:
    components = {name: _closed(shape) for name, shape in description()["components"]["schemas"].items()}
    return Draft202012Validator({**schema, "components": {"schemas": components}})


def _closed(shape: dict[str, Any]) -> dict[str, Any]:
    """Without room for members that are not described. (The description leaves it: a later version may add some.)"""
    return {**shape, "additionalProperties": False} if "properties" in shape else shape


def assert_described(method: str, address: str, status: int, content_type: str, document: object) -> None:
    """The answer is one that the description has for this address; an address that there is not has none."""
    path = next((path for pattern, path in _paths() if pattern.fullmatch(address.partition("?")[0])), None)
    if path is None or method.lower() not in description()["paths"][path]:
        assert status in (404, 405)
        return
    errors = sorted(_validator(path, method.lower(), status, content_type).iter_errors(document), key=str)
    assert not errors, f"{method} {address}: {errors[0]}"


def assert_shape(name: str, value: object) -> None:
    """It is one of the shapes that the description names."""
    errors = sorted(_of({"$ref": f"#/components/schemas/{name}"}).iter_errors(value), key=str)
    assert not errors, f"{name}: {errors[0]}"
