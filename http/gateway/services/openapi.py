"""The OpenAPI 3.1 document, made from the tables that dispatch, and the service that shows it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from actors.metrics import Metrics
from gateway.problem import FieldError
from gateway.request import Response
from gateway.services.operation import JSON, Call, Operation, Parameter, Reply
from gateway.services.service import Service

_REF = "#/components/schemas/{name}"
_PROBLEM = "application/problem+json"

PROBLEMS = {
    400: "The request is malformed; `detail` says where.",
    401: "No token, or not a valid one; see WWW-Authenticate.",
    403: "The token lacks the scope that WWW-Authenticate names.",
    404: "There is nothing here.",
    405: "Not possible with this method; Allow has those that are.",
    412: "If-Match or If-None-Match does not hold.",
    413: "The body is too large.",
    415: "The body has another media type than the operation takes.",
    422: "The body is valid JSON that breaks the schema (`errors` has all faults), or an Idempotency-Key was reused.",
    429: "Over a limit: wait for Retry-After.",
    500: "An unexpected error; the log has it under `request_id`.",
    503: "Not available for the moment: repeat after Retry-After.",
    504: "Not finished in time.",
}
_ALWAYS = (429, 500, 503, 504)
_HEADERS: dict[str, Any] = {
    "ETag": {"description": "The version, a strong entity tag.", "schema": {"type": "string"}},
    "Location": {"description": "Where the new entity is.", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}},
    "WWW-Authenticate": {"description": "What is missing (RFC 6750).", "schema": {"type": "string"}},
    "RateLimit": {"description": "What is left of each limit.", "schema": {"type": "string"}},
    "RateLimit-Policy": {"description": "The limits.", "schema": {"type": "string"}},
}
_PROBLEM_HEADERS = {
    401: ("WWW-Authenticate",),
    403: ("WWW-Authenticate",),
    429: ("Retry-After",),
    503: ("Retry-After",),
}


class Problem(msgspec.Struct, frozen=True):
    """An error as RFC 9457 puts it. Other members may follow."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    request_id: str
    errors: list[FieldError] | msgspec.UnsetType = msgspec.UNSET


class OAuthProblem(msgspec.Struct, frozen=True):
    """An error of the OAuth endpoints (RFC 6749 §5.2)."""

    error: str
    error_description: str = ""


class OpenApi(Service):
    """Answers with the document of *services* and of itself."""

    prefix = "/openapi.json"
    noun = "document"

    def __init__(
        self,
        services: Sequence[type[Service]],
        *,
        new_id: Callable[[], str],
        now: Callable[[], float],
        metrics: Metrics,
        version: str = "0.1.0",
    ) -> None:
        super().__init__(new_id=new_id, now=now, metrics=metrics)
        self._document = msgspec.json.encode(document((*services, type(self)), version))

    async def read(self, call: Call) -> Response:
        headers = [(b"content-type", b"application/json"), (b"cache-control", b"public, max-age=300")]
        return Response(200, headers, self._document)

    operations = (
        Operation(
            method="GET",
            path="",
            name="getOpenApi",
            summary="This document.",
            handler=read,
            replies=(Reply(200, "An OpenAPI 3.1 document.", {"type": "object"}),),
            security="none",
        ),
    )


def document(services: Sequence[type[Service]], version: str = "0.1.0") -> dict[str, Any]:
    """The OpenAPI document of *services*, as JSON values."""
    schemas = _Schemas(services)
    paths: dict[str, dict[str, Any]] = {}
    for service in services:
        for operation in service.operations:
            item = paths.setdefault(service.prefix + operation.path, {})
            item[operation.method.lower()] = _operation(service, operation, schemas)
    scopes = sorted({operation.scope for service in services for operation in service.operations if operation.scope})
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Weir",
            "version": version,
            "description": "Errors are application/problem+json (RFC 9457), those of /oauth as RFC 6749 has them.",
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "headers": _HEADERS,
            "securitySchemes": {
                "bearer": {
                    "type": "oauth2",
                    "description": "A Bearer token of the Auth Service.",
                    "flows": {
                        "clientCredentials": {
                            "tokenUrl": "/oauth/token",
                            "scopes": {scope: _scope_description(scope) for scope in scopes},
                        }
                    },
                },
                "client": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "Client id and secret; also accepted in the body.",
                },
            },
        },
    }


_SEGMENTS: Mapping[str, Mapping[str, str]] = {
    "id": {"format": "uuid"},
    "key": {"pattern": "^[A-Za-z0-9._-]{1,200}$"},
}
"""What the values of path segments look like, by their names."""


class _Schemas:
    """The components, and a schema or a reference to one for every shape that an operation names."""

    def __init__(self, services: Sequence[type[Service]]) -> None:
        shapes: list[Any] = [Problem, OAuthProblem]
        for service in services:
            for operation in service.operations:
                shapes.extend(shape for shape in _shapes(operation) if isinstance(shape, type) and shape not in shapes)
        found, self.components = msgspec.json.schema_components(shapes, ref_template=_REF)
        self._by_shape = dict(zip(shapes, found, strict=True))

    def of(self, shape: Any) -> Any:
        return self._by_shape[shape] if isinstance(shape, type) else shape


def _shapes(operation: Operation) -> Iterator[Any]:
    yield operation.request
    for reply in operation.replies:
        yield reply.shape


def _operation(service: type[Service], operation: Operation, schemas: _Schemas) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": [service.prefix.strip("/")],
        "responses": _responses(operation, schemas),
        "security": _security(operation),
    }
    parameters = [*_path_parameters(operation.path), *(_parameter(parameter) for parameter in operation.parameters)]
    if parameters:
        described["parameters"] = parameters
    if operation.request is not None:
        content: dict[str, Any] = {"schema": schemas.of(operation.request)}
        if operation.example is not None:
            content["example"] = operation.example
        described["requestBody"] = {"required": True, "content": dict.fromkeys(operation.media, content)}
    return described


def _security(operation: Operation) -> list[dict[str, list[str]]]:
    match operation.security:
        case "none":
            return []
        case "client":
            # The empty alternative: the credentials may be in the body instead.
            return [{"client": []}, {}]
        case _:
            return [{"bearer": [operation.scope] if operation.scope else []}]


def _responses(operation: Operation, schemas: _Schemas) -> dict[str, Any]:
    responses = {str(reply.status): _reply(reply, schemas) for reply in operation.replies}
    if operation.security == "client":
        content = {JSON: {"schema": schemas.of(OAuthProblem), "example": {"error": "invalid_client"}}}
        responses["400"] = {"description": "An error of RFC 6749 §5.2.", "content": content}
        responses["401"] = {
            "description": "The client could not be authenticated.",
            "headers": _header_refs(("WWW-Authenticate",)),
            "content": content,
        }
        statuses: set[int] = {*_ALWAYS, *operation.problems}
    elif operation.security == "none":
        statuses = {*_ALWAYS, *operation.problems}
    else:
        statuses = {400, 401, 403, *_ALWAYS, *operation.problems}
    if operation.request is not None:
        statuses.add(413)
    for status in sorted(statuses):
        responses[str(status)] = {
            "description": PROBLEMS[status],
            "headers": _header_refs(_PROBLEM_HEADERS.get(status, ())),
            "content": {_PROBLEM: {"schema": schemas.of(Problem)}},
        }
    return responses


def _reply(reply: Reply, schemas: _Schemas) -> dict[str, Any]:
    described: dict[str, Any] = {
        "description": reply.description,
        "headers": _header_refs((*reply.headers, "RateLimit", "RateLimit-Policy")),
    }
    if reply.shape is not None:
        content: dict[str, Any] = {"schema": schemas.of(reply.shape)}
        if reply.example is not None:
            content["example"] = reply.example
        described["content"] = {JSON: content}
    return described


def _header_refs(names: Sequence[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _path_parameters(path: str) -> list[dict[str, Any]]:
    if "{" not in path:
        return []
    name = path[path.index("{") + 1 : path.index("}")]
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string", **_SEGMENTS[name]}}]


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.where,
        "description": parameter.description,
        "required": parameter.required,
        "schema": parameter.schema,
    }


def _scope_description(scope: str) -> str:
    area, _, verb = scope.partition(":")
    return f"{'Change' if verb == 'write' else 'Read'} {area}."
