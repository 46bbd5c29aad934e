"""The `router` actor: decides on the current route table which target a request goes to, and whether it may."""

from typing import Any, assert_never

from actors.metrics import Metrics
from actors.router.messages import NoRoute, Reload, Resolve, Resolved
from actors.router.table import RouteTable, RouteTableRef, refusal
from actors.runtime import Actor, Reject


class Router(Actor[Resolve | Reload]):
    """Answers `Resolve` with `Resolved` or `Reject(RoutingError)`, `Reload` with None (`Reject` of a ValueError:
    the old table stays). Safe under `retry_once`. *table* outlives it, so a reload outlives a crash."""

    def __init__(self, table: RouteTableRef, metrics: Metrics) -> None:
        self._table = table
        self._resolved = metrics.counter(
            "weir_routed_total",
            "Routing decisions by outcome (ok, NoRoute, NotAuthenticated, InsufficientScope).",
            ("outcome",),
        )

    def handle_batch(self, messages: list[Resolve | Reload]) -> list[Any]:
        return [self._handle(message) for message in messages]

    def _handle(self, message: Resolve | Reload) -> Resolved | Reject | None:
        match message:
            case Resolve():
                answer = self._resolve(message)
                self._resolved.inc("ok" if isinstance(answer, Resolved) else type(answer.error).__name__)
                return answer
            case Reload(routes=routes):
                try:
                    self._table.current = RouteTable(routes)
                except ValueError as error:
                    return Reject(error)
                return None
            case _:
                assert_never(message)

    def _resolve(self, message: Resolve) -> Resolved | Reject:
        found = self._table.current.lookup(message.path)
        if found is None:
            return Reject(NoRoute(message.path))
        route, rest = found
        refused = refusal(route, message.method, message.scopes)
        return Resolved(route, rest) if refused is None else Reject(refused)
