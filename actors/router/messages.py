"""What `router` understands."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Route:
    """One row of the route table.

    `target` is `service:NAME`, `asgi:package.module:app` or a tuple of upstream URLs; `auth` is
    `required`, `optional` or `none`; `scopes` maps a method (or `*`) to the scope it needs; `max_body` is the
    largest body in bytes, None: the server's; `balance` is how several upstreams share the requests.
    """

    prefix: str
    target: str | tuple[str, ...]
    auth: str = "required"
    scopes: Mapping[str, str] | None = None
    max_body: int | None = None
    balance: str = "least_outstanding"


@dataclass(frozen=True, slots=True)
class Resolve:
    """→ `Resolved`, or `Reject` with a `RoutingError`. *path* is canonical; *scopes* the caller's, None: nobody."""

    method: str
    path: str
    scopes: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class Resolved:
    """`rest` is the path below the prefix, `""` or starting with `/`."""

    route: Route
    rest: str


@dataclass(frozen=True, slots=True)
class NoRoute:
    path: str


@dataclass(frozen=True, slots=True)
class NotAuthenticated:
    """The route asks for a principal and there is none."""


@dataclass(frozen=True, slots=True)
class InsufficientScope:
    scope: str


RoutingError = NoRoute | NotAuthenticated | InsufficientScope


@dataclass(frozen=True, slots=True)
class Reload:
    """→ None. Replace the route table."""

    routes: tuple[Route, ...]
