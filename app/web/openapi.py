"""The OpenAPI 3.1 description: made from the route table and from the types that decode requests and encode answers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, get_args

import msgspec

from app import __version__
from app.web.answers import Record
from app.web.errors import PROBLEM_TYPE, REFERENCE, STATUS
from app.web.guard import PUBLIC, SESSION_COOKIE
from app.web.problems import Problem
from app.web.route import Group, Reply, Route

Json = dict[str, Any]

_COMPONENTS = "#/components/schemas/"
_VARIABLE = re.compile(r"\{(\w+)(?::[^}]*)?\}")
_ANYWHERE = (
    "host-not-allowed",
    "proxy-not-trusted",
    "request-invalid",
    "request-malformed",
    "internal-error",
    "expectation-failed",
)
_WITH_STATE = ("state-unwritable", "state-damaged", "state-in-use")
_WITH_BODY = ("origin-not-allowed", "body-too-large", "media-type-unsupported", "request-too-slow")
_ABOUT = (
    "Captures the memory of running KVM/QEMU guests and seals it as evidence. Times are RFC 3339, UTC, with microseconds. Errors "
    "are RFC 9457 problem documents with a stable `code`. Every GET but the feed answers HEAD, too. Whatever is answered with "
    "HTML says its problems on a page, or leads to the login."
)


def document(routes: Sequence[Route]) -> Json:
    """The whole description."""
    shapes = _Shapes(routes)
    paths: dict[str, Json] = {}
    for route in routes:
        paths.setdefault(path_of(route), {})[route.method.lower()] = _operation(route, shapes)
    whole = {
        "openapi": "3.1.0",
        "info": {"title": "Memory Dumps", "version": __version__, "description": _ABOUT},
        "servers": [{"url": "/"}],
        "security": [{"token": []}, {"session": []}],
        "tags": [{"name": name} for name in get_args(Group)],
        "paths": paths,
        "components": {
            "schemas": shapes.components,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "An API token, `mdt_…`."},
                "session": {"type": "apiKey", "in": "cookie", "name": SESSION_COOKIE, "description": "By a login URL."},
            },
        },
    }
    found: Json = msgspec.json.decode(msgspec.json.encode(whole))  # as JSON has it: the defaults of types are tuples
    return found


def path_of(route: Route) -> str:
    """The address as OpenAPI writes it: without the patterns of its variables."""
    return _VARIABLE.sub(r"{\1}", route.pattern)


def codes_of(route: Route) -> list[str]:
    """Every problem that the route may answer with."""
    codes = [*route.problems, *_ANYWHERE, *_WITH_STATE]
    if (route.method, path_of(route)) not in PUBLIC:
        codes += ["login-required", "not-allowed"]
    codes += _WITH_BODY if route.method == "POST" else ("media-type-unsupported", "body-too-large", "request-too-slow")
    return sorted(set(codes), key=lambda code: (STATUS.get(code, 500), code))


class _Shapes:
    """The schemas of all types that routes name. Those of query strings become parameters and stand nowhere else."""

    def __init__(self, routes: Sequence[Route]) -> None:
        queries: list[type] = [route.query for route in routes]
        named: list[type] = [Problem, *(route.body for route in routes if route.body is not None)]
        named += [shape for route in routes for reply in route.replies for shape in reply.shapes]
        named.append(Record)  # only referred to: records go out as they lie in the index
        types = list(dict.fromkeys([*named, *queries]))
        schemas, self.components = msgspec.json.schema_components(types, ref_template=_COMPONENTS + "{name}")
        self._schemas = dict(zip(types, schemas, strict=True))
        self._queries = {query: self.components.pop(self._name(query)) for query in dict.fromkeys(queries)}
        for component in self.components.values():
            if "description" in component:
                component["description"] = _one_line(component["description"])

    def _name(self, shape: type) -> str:
        return str(self._schemas[shape]["$ref"]).removeprefix(_COMPONENTS)

    def of(self, shapes: Sequence[type]) -> Json:
        """One of these."""
        schemas = [self._schemas[shape] for shape in shapes]
        return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}

    def parameters(self, query: type) -> Iterable[Json]:
        for name, schema in self._queries[query].get("properties", {}).items():
            yield _parameter("query", name, _without_null(schema))


def _without_null(schema: Json) -> Json:
    """In a query string there is no null: what may be left out is not there."""
    schema = dict(schema)
    if schema.get("default", "") in (None, ""):
        schema.pop("default", None)
    kinds = [dict(kind) for kind in schema.pop("anyOf", [])]
    for kind in kinds:
        if kind != {"type": "null"}:
            schema = {**kind, **schema}
    return schema


def _parameter(place: str, name: str, schema: Json, *, required: bool = False) -> Json:
    description = schema.pop("description", None)
    parameter: Json = {"name": name, "in": place, "required": required, "schema": schema}
    return parameter if description is None else {**parameter, "description": description}


def _operation(route: Route, shapes: _Shapes) -> Json:
    parameters = [_parameter("path", name, {"type": "string"}, required=True) for name in _VARIABLE.findall(route.pattern)]
    parameters += shapes.parameters(route.query)
    parameters += [_parameter("header", name, {"type": "string", "description": text}) for name, text in route.headers.items()]
    operation: Json = {"operationId": route.name, "tags": [route.group], "summary": route.what}
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        content = {route.body_type: {"schema": shapes.of([route.body])}}
        operation["requestBody"] = {"required": route.body_required, "content": content}
    operation["responses"] = _responses(route, shapes)
    if (route.method, path_of(route)) in PUBLIC:
        operation["security"] = []
    return operation


def _responses(route: Route, shapes: _Shapes) -> Json:
    responses = {str(reply.status): _response(reply, shapes) for reply in route.replies}
    by_status: dict[str, list[str]] = {}
    for code in codes_of(route):
        by_status.setdefault(str(STATUS.get(code, 500)), []).append(code)
    for status, codes in by_status.items():
        problem = _problem(codes, page=_for_people(route))
        if status in responses:  # an answer of its own has this status, too
            responses[status]["content"] = {**responses[status].get("content", {}), **problem["content"]}
        else:
            responses[status] = problem
    if _for_people(route) and "login-required" in codes_of(route):
        responses.setdefault("303", {"description": "Not logged in: to the login page."})
    return dict(sorted(responses.items()))


def _for_people(route: Route) -> bool:
    """Whether its problems are pages. What is no HTTP is a document everywhere."""
    return route.group == "Pages" or route.pattern == REFERENCE


def _response(reply: Reply, shapes: _Shapes) -> Json:
    response: Json = {"description": reply.what}
    if reply.content_type is not None:
        schema = shapes.of(reply.shapes) if reply.shapes else {"type": "string"}
        response["content"] = {reply.content_type: {"schema": schema}}
    return response


def _problem(codes: Sequence[str], *, page: bool) -> Json:
    meant: Json = {"allOf": [{"$ref": f"{_COMPONENTS}Problem"}, {"properties": {"code": {"enum": list(codes)}}}]}
    return {
        "description": ", ".join(f"`{code}`" for code in codes),
        "content": {PROBLEM_TYPE: {"schema": meant}, **({"text/html": {"schema": {"type": "string"}}} if page else {})},
    }


def _one_line(text: str) -> str:
    return " ".join(text.replace("``", "`").split())
