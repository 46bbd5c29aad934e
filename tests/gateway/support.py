"""A pipeline whose actors are functions: what was asked is kept, what is answered is given."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from actors.authenticator.bearer import digest
from actors.authenticator.messages import Authenticate, Failure, Principal
from actors.metrics import Metrics
from actors.publisher.messages import Publish
from actors.rate_limiter.messages import Check, Limit, LimitState, Verdict
from actors.router.messages import NoRoute, Resolve, Resolved, Route
from actors.router.table import RouteTable, RouteTableRef, refusal
from actors.runtime import Reject
from backends.ports.stores import AuditEntry
from gateway.cors import CorsPolicy
from gateway.limits import LimitPlan
from gateway.pipeline import Pipeline, Policy
from gateway.request import Headers, Request, Response

ALICE = Principal("alice", frozenset({"users:read"}), "cli", 2e9, digest(b"good"))
APP_ORIGIN = b"https://app.example"
ROUTES = (
    Route("/users", "service:users", scopes={"GET": "users:read", "*": "users:write"}),
    Route("/orders", ("http://127.0.0.1:1",)),
    Route("/open", "service:users", auth="none"),
    Route("/maybe", "service:users", auth="optional"),
)
LIMITS = (
    Limit("caller", "token", 600, 60, 60),
    Limit("address", "address", 3000, 60, 300),
    Limit("subject", "subject", 60, 60, 5),
)


class FakeActor:
    """Answers an ask with what *answer* returns (an exception instance is raised)."""

    def __init__(self, answer: Callable[[Any], Any]) -> None:
        self.asked: list[Any] = []
        self.answer = answer

    async def ask(self, message: Any, timeout: float | None = None) -> Any:
        self.asked.append(message)
        answer = self.answer(message)
        if hasattr(answer, "__await__"):
            answer = await answer
        if isinstance(answer, Exception):
            raise answer
        return answer


class FakePublisher:
    def __init__(self) -> None:
        self.audits: list[AuditEntry] = []

    def try_tell(self, message: Publish) -> bool:
        self.audits.append(msgspec.json.decode(message.event.data, type=AuditEntry))
        return True


@dataclass
class FakeTarget:
    """Every route's target. *audited* as the gateway asks for it."""

    answer: Callable[[Request], Any] = lambda request: Response(200, [], b"{}")
    audited: bool = False
    streams: bool = False
    seen: list[Request] = field(default_factory=list)

    async def handle(self, request: Request, resolved: Resolved) -> Response:
        self.seen.append(request)
        answer = self.answer(request)
        if hasattr(answer, "__await__"):
            answer = await answer
        if isinstance(answer, Exception):
            raise answer
        response: Response = answer
        return response

    def of(self, route: Route) -> "FakeTarget":
        return self


def admitted(message: Check) -> Verdict:
    return Verdict(0, (), tuple(LimitState(name, 600, 60, 59, 1) for name, _ in message.buckets))


def refused(message: Check) -> Verdict:
    names = tuple(name for name, _ in message.buckets)
    return Verdict(7, names[:1], tuple(LimitState(name, 600, 60, 0, 60) for name in names))


class World:
    """The pipeline and everything around it."""

    def __init__(self, **options: Any) -> None:
        self.table = RouteTableRef(RouteTable(ROUTES))
        self.limiter = FakeActor(admitted)
        self.authenticator = FakeActor(self._authenticate)
        self.router = FakeActor(self._resolve)
        self.publisher = FakePublisher()
        self.target = FakeTarget()
        self.metrics = Metrics()
        self.policy = Policy(LimitPlan(LIMITS), CorsPolicy(origins=frozenset({APP_ORIGIN.decode()})))
        arguments: dict[str, Any] = {
            "rate_limiter": self.limiter,
            "authenticator": self.authenticator,
            "router": self.router,
            "publisher": self.publisher,
            "table": self.table,
            "targets": self.target,
            "policy": self.policy,
            "metrics": self.metrics,
            "request_timeout": 10.0,
            "new_id": lambda: "new-id",
            "now": lambda: 1_700_000_000.0,
        }
        self.pipeline = Pipeline(**{**arguments, **options})

    def _authenticate(self, message: Authenticate) -> Principal | Failure:
        return ALICE if message.digest == ALICE.digest else Failure.INVALID_TOKEN

    def _resolve(self, message: Resolve) -> Resolved | Reject:
        found = self.table.current.lookup(message.path)
        if found is None:
            return Reject(NoRoute(message.path))
        why = refusal(found[0], message.method, message.scopes)
        return Resolved(*found) if why is None else Reject(why)

    async def get(
        self, path: str, token: str | None = "good", *headers: tuple[bytes, bytes], method: str = "GET"
    ) -> Response:
        sent: Headers = list(headers)
        if token is not None:
            sent.append((b"authorization", b"Bearer " + token.encode()))
        return await self.pipeline.handle(request(path, *sent, method=method))

    def count(self, route: str, status: int) -> float:
        return self.metrics.counter("weir_requests_total", "", ("route", "status")).values.get((route, str(status)), 0)


def request(path: str, *headers: tuple[bytes, bytes], method: str = "GET") -> Request:
    return Request(method, path, b"", list(headers), b"", "192.0.2.1", "req-1", peer="192.0.2.1")


def headers_of(response: Response) -> dict[bytes, bytes]:
    assert len({name for name, _ in response.headers}) == len(response.headers), "a header is there twice"
    return dict(response.headers)


def problem_of(response: Response) -> dict[str, Any]:
    assert headers_of(response)[b"content-type"] == b"application/problem+json"
    body: dict[str, Any] = msgspec.json.decode(response.body)
    assert body["status"] == response.status
    return body
