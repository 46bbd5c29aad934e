"""What a service can do, as a table: read by the dispatcher and by the OpenAPI document alike. Pure."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from gateway.problem import ProblemError
from gateway.request import Request, Response

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A query parameter or a request header. `schema` is a JSON Schema."""

    name: str
    description: str
    schema: Mapping[str, Any]
    where: str = "query"
    required: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """One documented answer. `shape` is a msgspec type, a JSON Schema, or None for an answer without a body."""

    status: int
    description: str
    shape: Any = None
    headers: tuple[str, ...] = ()
    example: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method on one path.

    `path` is below the service's prefix: a literal (`""`, `/token`), one segment (`/{id}`) or something of it
    (`/{id}/secret`). `action` and
    `entity` (`user/{id}`) name it in audits; an empty action is not audited. `writes`: its success is
    audited by its transaction. `cached`: answered from the cache, by `Service.present`. `problems` are its
    error statuses beyond those that every operation has.
    """

    method: str
    path: str
    name: str
    summary: str
    replies: tuple[Reply, ...]
    handler: Callable[[Any, "Call"], Awaitable[Response]]
    action: str = ""
    entity: str = ""
    scope: str = ""
    writes: bool = False
    cached: bool = False
    request: Any = None
    media: tuple[str, ...] = (JSON,)
    example: Any = None
    parameters: tuple[Parameter, ...] = ()
    problems: tuple[int, ...] = ()
    security: str = "bearer"


@dataclass(slots=True)
class Call:
    """One request on its way through an operation. `key` is the value of the path's segment, "" without one.

    `subject` is who audits will say it was. `replayed`: the answer is an earlier one, for an Idempotency-Key.
    """

    request: Request
    operation: Operation
    key: str
    subject: str
    replayed: bool = False


class Table:
    """The operations of one service, by path and method. HEAD is GET, its body being the server's to leave out."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self._literal: dict[str, dict[str, Operation]] = {}
        self._segment: dict[str, dict[str, Operation]] = {}
        """By what follows the segment: "" or `/secret`."""
        for operation in operations:
            paths, path = self._literal, operation.path
            if "{" in path:
                paths, path = self._segment, path.partition("}")[2]
            methods = paths.setdefault(path, {})
            if operation.method in methods:
                raise ValueError(f"two operations are {operation.method} {operation.path}")
            methods[operation.method] = operation
            if operation.method == "GET":
                methods["HEAD"] = operation

    def find(self, method: str, rest: str) -> tuple[Operation | None, str]:
        """The operation and the value of the path's segment; (None, "") when there is none: ask `refusal` why."""
        methods = self._literal.get(rest)
        if methods is not None:
            return methods.get(method), ""
        segment, after = _cut(rest)
        methods = self._segment.get(after) if segment else None
        if methods is None:
            return None, ""
        return methods.get(method), unquote(segment) if "%" in segment else segment

    def refusal(self, method: str, rest: str, path: str) -> ProblemError:
        """405 with Allow where other methods would do, else 404."""
        methods = self._literal.get(rest)
        segment, after = _cut(rest)
        if methods is None and segment:
            methods = self._segment.get(after)
        if not methods:
            return ProblemError(404, f"there is nothing at {path}")
        allow = ", ".join(sorted(methods))
        return ProblemError(
            405, f"{method} is not possible here; possible: {allow}", headers=[(b"allow", allow.encode())]
        )


def _cut(rest: str) -> tuple[str, str]:
    """The segment of `/SEGMENT…`, and what follows it."""
    cut = rest.find("/", 1)
    return (rest[1:], "") if cut < 0 else (rest[1:cut], rest[cut:])
