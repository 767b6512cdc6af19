"""Contract, section 7: the description of the API, held against the routes and against OpenAPI itself; and the page of it."""

from __future__ import annotations

import re

import aiohttp
from aiohttp import web
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from app.web import openapi
from app.web.errors import STATUS
from app.web.guard import PUBLIC
from app.web.routes import ROUTES, add_to
from tests.contract.described import PROBLEM, assert_shape, description
from tests.contract.speech import FINAL, Api

DESCRIPTION = "/api/openapi.json"
PAGE = "/api/docs"


async def test_it_is_openapi_and_what_the_program_has(api: Api) -> None:
    document = await api.get(DESCRIPTION)
    assert document == description()
    assert document["openapi"].startswith("3.1.")
    validate(document, cls=OpenAPIV31SpecValidator)


def test_it_has_every_route_and_no_other() -> None:
    app = web.Application()
    add_to(app)
    routes = {
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.method != "HEAD" and route.resource is not None
    }
    described = {(method.upper(), path) for path, methods in description()["paths"].items() for method in methods}
    assert described == routes
    assert routes >= PUBLIC


def test_every_problem_of_a_route_stands_at_its_status_with_its_code() -> None:
    for route in ROUTES:
        responses = description()["paths"][openapi.path_of(route)][route.method.lower()]["responses"]
        for code in openapi.codes_of(route):
            problem = responses[str(STATUS.get(code, 500))]["content"][PROBLEM]["schema"]
            assert problem["allOf"][0] == {"$ref": "#/components/schemas/Problem"}
            assert code in problem["allOf"][1]["properties"]["code"]["enum"]


def test_every_code_that_a_request_can_be_answered_with_stands_somewhere() -> None:
    described = {code for route in ROUTES for code in openapi.codes_of(route)}
    elsewhere = {"not-found", "method-not-allowed"}  # of addresses and methods that there are not
    assert described | elsewhere == {*STATUS, "internal-error"}


def test_what_needs_no_login_says_so() -> None:
    for path, methods in description()["paths"].items():
        for method, operation in methods.items():
            assert (operation.get("security") == []) is ((method.upper(), path) in PUBLIC)


def test_the_parameters_of_records_are_those_of_the_contract() -> None:
    parameters = {one["name"]: one for one in description()["paths"]["/api/memory-dumps/records"]["get"]["parameters"]}
    assert parameters.keys() == {"q", "date", "from", "to", "dom", "vmid", "order", "limit", "offset", "cursor"}
    assert parameters["limit"]["schema"] == {"type": "integer", "minimum": 1, "maximum": 10_000, "default": 1000}
    assert parameters["order"]["schema"] == {"enum": ["asc", "desc"], "default": "desc"}
    assert not any(one["required"] for one in parameters.values())


def test_a_body_is_described_by_the_shape_that_decodes_it() -> None:
    body = description()["paths"]["/api/memory-dumps/trigger"]["post"]["requestBody"]
    assert body == {"required": True, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/TriggerBody"}}}}
    shape = description()["components"]["schemas"]["TriggerBody"]
    assert list(shape["properties"]) == ["vm_ids", "all", "mode", "compression", "max_pause_ms", "reason", "case"]
    assert shape["additionalProperties"] is False


async def test_the_page_shows_every_address_code_and_shape_and_each_link_leads_somewhere(api: Api) -> None:
    async with api.session.get(PAGE) as answer:
        page = await answer.text()
        assert (answer.status, answer.content_type) == (200, "text/html")
    document = description()
    for text in (*document["paths"], *(code for route in ROUTES for code in openapi.codes_of(route))):
        assert f"<code>{text}</code>" in page
    places = set(re.findall(r' id="([^"]+)"', page))
    assert {f"shape-{name}" for name in document["components"]["schemas"]} <= places
    assert {operation["operationId"] for methods in document["paths"].values() for operation in methods.values()} <= places
    assert set(re.findall(r'href="#([^"]+)"', page)) <= places


async def test_both_need_a_login_and_a_person_is_led_to_it(nobody: aiohttp.ClientSession) -> None:
    async with nobody.get(DESCRIPTION) as answer:
        assert (answer.status, answer.content_type) == (401, PROBLEM)
    async with nobody.get(PAGE, allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (303, "/login?next=%2Fapi%2Fdocs")


async def test_what_the_feed_says_has_the_shapes_that_are_described(api: Api) -> None:
    async with api.feed() as feed:
        snapshot = await feed.next()
        assert_shape("Snapshot", snapshot)
        (job,) = (await api.trigger("alpha"))["jobs"]
        messages = await feed.until(lambda message: message["type"] == "job" and message["job"]["phase"] in FINAL)
    assert messages[-1]["job"]["job_id"] == job["job_id"]
    for message in messages:
        shape = {"job": "Job", "record": "Record", "stats": "Stats", "activity": "Activity", "room": "Room"}.get(message["type"])
        if message["type"] == "progress":
            assert_shape("ProgressMessage", message)
        elif shape is not None:
            assert_shape(shape, message[message["type"]])
