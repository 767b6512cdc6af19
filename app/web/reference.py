"""The description of the API: for programs, and as a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from app.web import keys, requests
from app.web.api import as_json
from app.web.errors import PROBLEM_TYPE
from app.web.templates import render_page

Json = Mapping[str, Any]

_SCHEMAS = "#/components/schemas/"


async def openapi_json(request: web.Request) -> web.StreamResponse:
    """``GET /api/openapi.json``."""
    requests.query(request.query, requests.Query)
    return as_json(request.app[keys.OPENAPI])


async def page(request: web.Request) -> web.StreamResponse:
    """``GET /api/docs``: the same, to read."""
    document = request.app[keys.OPENAPI]
    operations = [
        {"method": method.upper(), "path": path, **operation, "replies": _replies(operation), "problems": _problems(operation)}
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    context = {
        "page": "reference",
        "about": document["info"]["description"],
        "groups": [
            (tag["name"], [operation for operation in operations if tag["name"] in operation["tags"]]) for tag in document["tags"]
        ],
        "schemas": document["components"]["schemas"],
        "kind": kind_of,
    }
    return render_page(request, "reference.html", context)


def _replies(operation: Json) -> list[tuple[str, str, Json | None]]:
    """Answers that are no problem: status, what it is, and its JSON, if it is that."""
    return [
        (status, response["description"], response.get("content", {}).get("application/json", {}).get("schema"))
        for status, response in operation["responses"].items()
        if set(response.get("content", {})) != {PROBLEM_TYPE}
    ]


def _problems(operation: Json) -> list[tuple[str, list[str]]]:
    """Each status, and the codes of its problem documents."""
    return [
        (status, response["content"][PROBLEM_TYPE]["schema"]["allOf"][1]["properties"]["code"]["enum"])
        for status, response in operation["responses"].items()
        if PROBLEM_TYPE in response.get("content", {})
    ]


def kind_of(schema: Json) -> str:
    """A schema in a few words: ``text``, ``whole number, 1 to 10000``, ``gzip | zstd``, ``list of Job``, ``Job or null``."""
    if "$ref" in schema:
        return str(schema["$ref"]).removeprefix(_SCHEMAS)
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(kind_of(part) for part in schema["anyOf"]))
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    match schema.get("type"):
        case "array":
            return f"list of {kind_of(schema['items'])}" if "items" in schema else "list"
        case "object":
            values = schema.get("additionalProperties")
            return f"{kind_of(values)} by name" if isinstance(values, Mapping) else "object"
        case "string":
            return {"date-time": "time", "date": "date"}.get(schema.get("format", ""), "text") + _longest(schema)
        case "integer" | "number" as number:
            return {"integer": "whole number", "number": "number"}[number] + _limits(schema)
        case "boolean":
            return "true or false"
        case kind:
            return str(kind or "anything")


def _longest(schema: Json) -> str:
    return f", at most {schema['maxLength']} characters" if "maxLength" in schema else ""


def _limits(schema: Json) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f", {low} to {high}"
    return "" if low is None else f", from {low}"
