"""The route table: longest prefix by whole segments, and who may use a route. Pure.

`/orders` matches `/orders` and `/orders/7`, not `/orderscsv`. Nothing is decoded here: paths are canonical.
"""

from collections.abc import Sequence

from actors.router.messages import InsufficientScope, NotAuthenticated, Route


class RouteTable:
    """Routes by prefix, immutable. Raises ValueError for a prefix that does not start with `/` or is there twice."""

    __slots__ = ("_by_prefix", "_depth", "routes")

    def __init__(self, routes: Sequence[Route]) -> None:
        self.routes = tuple(routes)
        self._by_prefix: dict[str, Route] = {}
        self._depth = 0
        for route in self.routes:
            if not route.prefix.startswith("/"):
                raise ValueError(f"a route's prefix starts with /, got {route.prefix!r}")
            prefix = route.prefix.rstrip("/")
            if prefix in self._by_prefix:
                raise ValueError(f"two routes have the prefix {route.prefix!r}")
            self._by_prefix[prefix] = route
            self._depth = max(self._depth, prefix.count("/"))

    def lookup(self, path: str) -> tuple[Route, str] | None:
        """The route of *path* and what is below its prefix (`""`, or starting with `/`); None: no route.

        Cost: one dict lookup a segment, no deeper than the deepest prefix, however long the path.
        """
        route = self._by_prefix.get("")
        cut = end = 0
        for _ in range(self._depth):
            end = path.find("/", end + 1)
            if end < 0:
                end = len(path)
            deeper = self._by_prefix.get(path[:end])
            if deeper is not None:
                route, cut = deeper, end
            if end == len(path):
                break
        return None if route is None else (route, path[cut:])


class RouteTableRef:
    """The table in force. The composition root makes one; the pipeline reads it, the router actor replaces it."""

    __slots__ = ("current",)

    def __init__(self, table: RouteTable) -> None:
        self.current = table


def required_scope(route: Route, method: str) -> str | None:
    """The scope that *method* needs: its own entry, else `*`'s, else none. HEAD is a GET without a body."""
    if not route.scopes:
        return None
    entry = route.scopes.get("GET" if method == "HEAD" else method)
    return entry if entry is not None else route.scopes.get("*")


def refusal(route: Route, method: str, scopes: frozenset[str] | None) -> NotAuthenticated | InsufficientScope | None:
    """Why a caller with *scopes* (None: nobody) may not use *route*; None: they may.

    A method that needs a scope needs somebody who has it, on an `optional` route too. Routes with
    `auth = "none"` ask nobody anything.
    """
    if route.auth == "none":
        return None
    needed = required_scope(route, method)
    if scopes is None:
        return NotAuthenticated() if route.auth == "required" or needed is not None else None
    if needed is not None and needed not in scopes:
        return InsufficientScope(needed)
    return None
