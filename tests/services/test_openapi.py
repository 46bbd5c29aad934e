"""The OpenAPI document and the routes say what the services do."""

import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from actors.router.messages import Route
from gateway.services.openapi import OpenApi, document
from gateway.services.operation import Operation
from gateway.services.routes import BUILTIN_ROUTES, DOCUMENTED
from gateway.services.service import Service
from tests.services.fakes import World
from tests.services.fakes import document as decoded

SERVICES = (*DOCUMENTED, OpenApi)
OPERATIONS = [(service, operation) for service in SERVICES for operation in service.operations]
DOCUMENT = msgspec.json.decode(msgspec.json.encode(document(SERVICES)))


def described(service: type[Service], operation: Operation) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["paths"][service.prefix + operation.path][operation.method.lower()]
    return found


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_the_frame() -> None:
    assert DOCUMENT["openapi"].startswith("3.1.")
    assert DOCUMENT["info"].keys() >= {"title", "version"}
    assert set(DOCUMENT["paths"]) == {
        "/oauth/token", "/oauth/introspect", "/oauth/revoke", "/users", "/users/{id}", "/configuration/{key}",
        "/search", "/webhooks", "/webhooks/{id}", "/webhooks/{id}/secret", "/audit", "/openapi.json",
    }  # fmt: skip
    names = [operation["operationId"] for path in DOCUMENT["paths"].values() for operation in path.values()]
    assert len(names) == len(set(names)) == len(OPERATIONS)


def test_every_reference_leads_somewhere() -> None:
    found = set(references(DOCUMENT))
    assert found
    for reference in found:
        target: Any = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            assert step in target, reference
            target = target[step]


@pytest.mark.parametrize(("service", "operation"), OPERATIONS, ids=[item[1].name for item in OPERATIONS])
def test_every_operation_is_described_whole(service: type[Service], operation: Operation) -> None:
    found = described(service, operation)
    assert found["summary"].endswith(".")
    responses = found["responses"]
    assert any(status.startswith("2") for status in responses)
    assert {"429", "500", "503", "504"} <= responses.keys()
    for status, response in responses.items():
        assert response["description"]
        if int(status) >= 400:
            assert response["content"]
    if operation.security == "bearer":
        assert {"401", "403"} <= responses.keys()
        assert found["security"] == [{"bearer": [operation.scope]}]
        assert (
            operation.scope
            in DOCUMENT["components"]["securitySchemes"]["bearer"]["flows"]["clientCredentials"]["scopes"]
        )
    in_path = {step[1:-1] for step in operation.path.split("/") if step.startswith("{")}
    parameters = found.get("parameters", [])
    assert {parameter["name"] for parameter in parameters if parameter["in"] == "path"} == in_path
    assert all(parameter["required"] for parameter in parameters if parameter["in"] == "path")
    if operation.request is not None:
        assert found["requestBody"]["content"].keys() == set(operation.media)
        assert {"413"} <= responses.keys()


def test_schemas_tell_what_the_services_refuse() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    name = schemas["UserInput"]["properties"]["name"]["pattern"]
    assert re.search(name, "Zoë \U0001f600")
    assert not any(re.search(name, text) for text in ("two\nlines", "a\0", "\x85"))
    assert "user.*" in schemas["WebhookInput"]["properties"]["events"]["items"]["enum"]
    (key,) = (p for p in DOCUMENT["paths"]["/configuration/{key}"]["put"]["parameters"] if p["in"] == "path")
    assert re.search(key["schema"]["pattern"], "a.b_c-1")
    assert not re.search(key["schema"]["pattern"], "a b")


@pytest.mark.parametrize(("service", "operation"), OPERATIONS, ids=[item[1].name for item in OPERATIONS])
def test_examples_fit_their_schemas(service: type[Service], operation: Operation) -> None:
    for shape, example in [(operation.request, operation.example)] + [
        (reply.shape, reply.example) for reply in operation.replies
    ]:
        if isinstance(shape, type) and example is not None:
            msgspec.convert(example, shape)


@pytest.mark.parametrize(("service", "operation"), OPERATIONS, ids=[item[1].name for item in OPERATIONS])
def test_the_route_asks_for_the_scope_that_the_operation_names(service: type[Service], operation: Operation) -> None:
    (route,) = [route for route in BUILTIN_ROUTES if route.prefix == service.prefix]
    scopes = route.scopes or {}
    assert scopes.get(operation.method, scopes.get("*", "")) == operation.scope
    assert (route.auth == "none") == (operation.security != "bearer")


def test_the_routes() -> None:
    assert [(route.prefix, route.target, route.auth) for route in BUILTIN_ROUTES] == [
        ("/oauth", "service:oauth", "none"),
        ("/users", "service:users", "required"),
        ("/configuration", "service:configuration", "required"),
        ("/search", "service:search_service", "required"),
        ("/webhooks", "service:webhooks", "required"),
        ("/audit", "service:audit_service", "required"),
        ("/openapi.json", "service:openapi", "none"),
    ]
    assert all(isinstance(route, Route) for route in BUILTIN_ROUTES)


async def test_anyone_may_read_the_document(api: World) -> None:
    answer = await api.call("openapi", "GET", subject=None)
    assert answer.status == 200
    assert decoded(answer) == DOCUMENT
    assert await api.audit_trail() == [], "what is public is not audited"
    assert (await api.call("openapi", "GET", "/x", subject=None)).status == 404
