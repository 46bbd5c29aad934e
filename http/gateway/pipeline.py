"""The stages of a request, in their order: limits, authentication, routing, target, answer.

Runs in the connection's task, free of ASGI. It owns one deadline a request; the actors it asks own the state.
"""

import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import structlog
import trio

from actors.authenticator.bearer import HeaderFault, parse_authorization
from actors.authenticator.bearer import digest as digest_of
from actors.authenticator.messages import Authenticate, Failure, Principal
from actors.metrics import Metrics
from actors.publisher.messages import Publish
from actors.rate_limiter.headers import RateLimitHeaders
from actors.rate_limiter.messages import Check, Verdict
from actors.router.messages import Resolve, Resolved, Route, RoutingError
from actors.router.table import RouteTableRef
from actors.runtime import Reject
from backends.ports.stores import AuditEntry
from gateway import ids
from gateway.address import limit_key
from gateway.cors import METHODS, CorsPolicy, decorate, is_preflight, preflight
from gateway.dressed_wire import DressedWire
from gateway.identity import without_identity
from gateway.limits import Buckets, LimitPlan, together
from gateway.problem import ProblemError, problem
from gateway.refusals import Challenges, of_failure, other_method, over_limit, timed_out, unavailable, unreadable
from gateway.request import ClientGone, Request, Response, Wire
from gateway.services.events import audit_event, outcome

log = structlog.get_logger(__name__)

NO_ROUTE = "-"
_METHODS = frozenset(METHODS.decode().split(", "))
# A target's own word on these would contradict ours.
_REPLACED = frozenset((b"ratelimit", b"ratelimit-policy"))
_LATENCY_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


_SHED = unavailable("the server has as many requests at work as it may have", 1.0)


class Asker(Protocol):
    """A `Ref`, as far as the pipeline uses one."""

    async def ask(self, message: Any, timeout: float | None = None) -> Any: ...


class Teller(Protocol):
    def try_tell(self, message: Any) -> bool: ...


class Target(Protocol):
    """Where a route leads. *audited*: its requests are audited by the gateway, as nobody else does it.

    *streams*: it reads the body and may write its answer through `request.wire`; others get the body whole.
    """

    audited: bool
    streams: bool

    async def handle(self, request: Request, resolved: Resolved) -> Response:
        """Answer, or raise: `ProblemError`, an `ActorError`, anything else for a 500. Cancelled at the deadline."""
        ...


class TargetLookup(Protocol):
    def of(self, route: Route) -> Target: ...


@dataclass(slots=True)
class Policy:
    """What a reload replaces, by assignment, between two requests."""

    limits: LimitPlan
    cors: CorsPolicy


@dataclass(slots=True)
class Exchange:
    """What one request has come to so far; read when it is answered, however it ended."""

    request: Request
    started: float
    route: str = NO_ROUTE
    verdict: Verdict | None = None
    refused: bool = False
    audited: bool = False
    status: int = 0
    """Of an answer that is on its way, streamed."""
    waits: bool = False
    """For its client, to send more of the body."""
    deadline: trio.CancelScope = field(default_factory=trio.CancelScope)


class _Refused(Exception):
    """A verdict of the gateway's own stages: nobody but the gateway can audit it."""

    def __init__(self, problem: ProblemError) -> None:
        super().__init__(problem)
        self.problem = problem


class Pipeline:
    """One for the whole process; requests run through it concurrently.

    Args:
        request_timeout: seconds from here to the answer; then 504.
        overloaded: whether audits could not be kept now; then 503 before any work.
        introspected: whether the authenticator needs tokens themselves, for an Auth Service elsewhere.
        now: Unix seconds, for audits.
    """

    def __init__(
        self,
        *,
        rate_limiter: Asker,
        authenticator: Asker,
        router: Asker,
        publisher: Teller,
        table: RouteTableRef,
        targets: TargetLookup,
        policy: Policy,
        metrics: Metrics,
        realm: str = "weir",
        request_timeout: float = 10.0,
        overloaded: Callable[[], bool] = lambda: False,
        introspected: bool = False,
        new_id: Callable[[], str] = ids.new_id,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._rate_limiter = rate_limiter
        self._authenticator = authenticator
        self._router = router
        self._publisher = publisher
        self._table = table
        self.targets = targets
        self._policy = policy
        self._challenges = Challenges(realm)
        self._timeout = request_timeout
        self.at_work = 0
        """Requests whose answer has not begun, without those that wait for their client: a slow one takes up a
        connection, of which each address has so many, and nobody else's turn."""
        self._overloaded = overloaded
        self._introspected = introspected
        self._new_id = new_id
        self._now = now
        self._limit_headers = RateLimitHeaders()
        self._requests = metrics.counter("weir_requests_total", "Answered requests.", ("route", "status"))
        self._latency = metrics.histogram(
            "weir_request_seconds", "Time from a complete request to its answer.", _LATENCY_BOUNDS, ("route",)
        )

    async def handle(self, request: Request) -> Response:
        """Answer *request*. Raises ClientGone, and nothing else but for cancellation; work that actors were asked
        for goes on then. A response that is `sent` was streamed."""
        exchange = Exchange(request, trio.current_time())
        if is_preflight(request):
            return self.count(exchange, self._with_id(request, preflight(self._policy.cors, request)))
        self.at_work += 1
        try:
            response = await self.answer(exchange, partial(self._stages, exchange))
        except BaseException:  # cancelled, or nobody is there: what was forwarded may have happened
            if exchange.audited:
                self.audit(exchange, "failed", 0)
            raise
        finally:
            if not exchange.status:
                self.at_work -= 1
        if response.sent:
            if exchange.audited:
                self.audit(exchange, outcome(response.status), response.status)
            return response
        return self.finish(exchange, response)

    def leads_upstream(self, path: str) -> bool:
        """Whether the route of *path* leads out of this process."""
        found = self._table.current.lookup(path)
        return found is not None and not isinstance(found[0].target, str)

    def refuse(self, request: Request, error: ProblemError) -> Response:
        """The answer to a request that is none: it could not be read. Dressed like any other answer."""
        return self.finish(Exchange(request, trio.current_time()), error.response(request.id))

    def unreadable(self, status: int, request_id: str) -> Response:
        """The answer to what no parser could read as a request."""
        self._requests.inc(NO_ROUTE, str(status))
        return unreadable(status, request_id)

    def shed(self, request_id: str, origin: bytes | None) -> Response:
        """The answer to a request that is one too many: 503, before anything is done for it. Cheap, for a server that
        is offered twice what it can do must not spend itself on refusals."""
        response = _SHED.response(request_id)
        self._requests.inc(NO_ROUTE, "503")
        headers = decorate(self._policy.cors, origin, response.headers)
        headers.append((b"x-request-id", request_id.encode()))
        return Response(503, headers, response.body)

    # The stages.

    async def answer(self, exchange: Exchange, stages: Callable[[], Awaitable[Response]]) -> Response:
        """What *stages* answer within the deadline, or the answer to how they failed, bare. Raises ClientGone."""
        request = exchange.request
        exchange.deadline.deadline = exchange.started + self._timeout
        try:
            with exchange.deadline:
                return await stages()
            return timed_out(self._timeout).response(request.id)
        except _Refused as refused:
            exchange.refused = True
            return refused.problem.response(request.id)
        except ClientGone:
            raise
        except Exception as error:
            if exchange.status:
                return self._cut(exchange, error)
            foreseen = of_failure(error)
            if foreseen is not None:
                return foreseen.response(request.id)
            log.exception("a request failed", request_id=request.id, route=exchange.route)
            return problem(500, "the server failed; the request's id is in its log", request.id)

    async def admit(self, exchange: Exchange) -> Resolved:
        """Limits, authentication, routing."""
        request = exchange.request
        request.headers = without_identity(request.headers)
        if request.method not in _METHODS:
            raise other_method(request.method, METHODS)
        if self._overloaded():
            raise unavailable("audits cannot be kept now, so nothing is done", 1.0)
        found = self._table.current.lookup(request.path)
        # What no route claims is asked for a token first: strangers learn nothing about which paths exist.
        auth = "required" if found is None else found[0].auth
        exchange.route = NO_ROUTE if found is None else found[0].prefix
        credentials = parse_authorization([value for name, value in request.headers if name == b"authorization"])
        digest = digest_of(credentials) if isinstance(credentials, bytes) else None
        plan = self._policy.limits
        await self._limit(exchange, plan.before_authentication(limit_key(request.client), digest))
        if auth != "none":
            request.principal = await self._authenticate(credentials, digest, required=auth == "required")
            if request.principal is not None:
                await self._limit(exchange, plan.after_authentication(request.principal.subject))
        resolved = await self._resolve(request)
        exchange.route = resolved.route.prefix
        return resolved

    async def _stages(self, exchange: Exchange) -> Response:
        request = exchange.request
        if request.path == "*" and request.method == "OPTIONS":
            return Response(204, [(b"allow", METHODS)])
        resolved = await self.admit(exchange)
        target = self.targets.of(resolved.route)
        exchange.audited = target.audited
        if request.wire is not None:
            if resolved.route.max_body is not None:
                request.wire.body_limit = resolved.route.max_body
            await self._connect_wire(exchange, request.wire, target.streams)
        return await target.handle(request, resolved)

    async def _connect_wire(self, exchange: Exchange, wire: Wire, streams: bool) -> None:
        if streams:
            exchange.request.wire = DressedWire(self, exchange, wire)
        elif wire.has_body:
            exchange.request.body = await self.upload(exchange, wire.read)

    async def _limit(self, exchange: Exchange, buckets: Buckets) -> None:
        if not buckets:
            return
        verdict: Verdict = await self._rate_limiter.ask(Check(buckets))
        exchange.verdict = together(exchange.verdict, verdict)
        if verdict.retry_after_s:
            raise _Refused(over_limit(verdict))

    async def _authenticate(
        self, credentials: bytes | HeaderFault | None, digest: str | None, *, required: bool
    ) -> Principal | None:
        """The caller; None: nobody, which only an `optional` route admits. Bad credentials it refuses, too."""
        match credentials:
            case HeaderFault.MALFORMED_HEADER:
                raise _Refused(self._challenges.malformed())
            case HeaderFault.MALFORMED_TOKEN:
                raise _Refused(self._challenges.invalid())
        if credentials is None or digest is None:
            if required:
                raise _Refused(self._challenges.missing())
            return None
        token = credentials if self._introspected else None
        answer: Principal | Failure = await self._authenticator.ask(Authenticate(digest, token))
        match answer:
            case Failure.INVALID_TOKEN:
                raise _Refused(self._challenges.invalid())
            case Failure.UNAVAILABLE:
                raise unavailable("tokens cannot be checked now", 1.0)
        return answer

    async def _resolve(self, request: Request) -> Resolved:
        scopes = None if request.principal is None else request.principal.scopes
        try:
            resolved: Resolved = await self._router.ask(Resolve(request.method, request.path, scopes))
        except Reject as refused:
            if not isinstance(refused.error, RoutingError):
                raise
            raise _Refused(self._challenges.of_routing(refused.error)) from None
        return resolved

    async def upload(self, exchange: Exchange, take: Callable[[], Awaitable[bytes]]) -> bytes:
        """A part of the body. A slow upload has deadlines of its own: the request's counts from the part on."""
        if exchange.status:
            return await take()
        exchange.deadline.deadline = math.inf
        exchange.waits = True
        self.at_work -= 1
        try:
            return await take()
        finally:
            exchange.waits = False
            if not exchange.status:  # an answer that has begun meanwhile takes as long as it does
                exchange.deadline.deadline = trio.current_time() + self._timeout
                self.at_work += 1

    # The answer.

    def dress(self, exchange: Exchange, response: Response) -> Response:
        """The head of an answer that is streamed, as it goes out. From here on it may take as long as it does."""
        if not exchange.status and not exchange.waits:
            self.at_work -= 1
        exchange.status = response.status
        exchange.deadline.deadline = math.inf
        return self._dressed(exchange, response)

    def _cut(self, exchange: Exchange, error: Exception) -> Response:
        """Too late for another answer: what the client got must not look whole."""
        log.warning("an answer was cut short", request_id=exchange.request.id, route=exchange.route, error=repr(error))
        if exchange.request.wire is not None:
            exchange.request.wire.cut()
        return Response(exchange.status, sent=True)

    def finish(self, exchange: Exchange, response: Response) -> Response:
        """*response* as it goes out, counted and audited."""
        if exchange.refused:
            self.audit(exchange, "denied", response.status)
        elif exchange.audited:
            self.audit(exchange, outcome(response.status), response.status)
        return self._dressed(exchange, response)

    def _dressed(self, exchange: Exchange, response: Response) -> Response:
        request, headers = exchange.request, response.headers
        if exchange.verdict is not None:
            kept = [item for item in headers if item[0] not in _REPLACED]
            headers = kept + self._limit_headers.build(exchange.verdict)
        headers = decorate(self._policy.cors, request.header(b"origin"), headers)
        return self.count(exchange, self._with_id(request, Response(response.status, headers, response.body)))

    def _with_id(self, request: Request, response: Response) -> Response:
        headers = [item for item in response.headers if item[0] != b"x-request-id"]
        headers.append((b"x-request-id", request.id.encode()))
        return Response(response.status, headers, response.body)

    def count(self, exchange: Exchange, response: Response) -> Response:
        self._requests.inc(exchange.route, str(response.status))
        self._latency.observe(trio.current_time() - exchange.started, exchange.route)
        return response

    def audit(self, exchange: Exchange, outcome: str, status: int) -> None:
        request = exchange.request
        entry = AuditEntry(
            id=self._new_id(),
            at=self._now(),
            subject="" if request.principal is None else request.principal.subject,
            action=f"{request.method} {exchange.route}",
            entity=request.path,
            outcome=outcome,
            request_id=request.id,
            status=status,
            client=request.client,
        )
        self._publisher.try_tell(Publish(audit_event(entry, request.traceparent)))
