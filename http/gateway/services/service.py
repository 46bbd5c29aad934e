"""The base of the built-in services: dispatch, the cached fast path, guarded requests, writes, audits.

A service is stateless: all it knows is in the store, so a crash costs the requests in hand and nothing else.
"""

from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import msgspec
import structlog
import trio

from actors.cache_manager.messages import ABSENT, MISS, GetMany, Invalidate, Load
from actors.metrics import Metrics
from actors.publisher.messages import Publish
from actors.runtime import Actor, ActorError, Later, Reject
from actors.storage.messages import Transact
from backends.ports.entities import Entity, Write
from backends.ports.stores import AuditEntry
from gateway.problem import FieldError, ProblemError, problem
from gateway.request import Request, Response
from gateway.services import bodies, conditional
from gateway.services.answers import CONTENT_JSON, REVALIDATE, Absent, as_problem
from gateway.services.events import Cause, audit_event, outcome
from gateway.services.failures import problem_for
from gateway.services.messages import ServiceRequest
from gateway.services.operation import Call, Operation, Table

log = structlog.get_logger(__name__)

S = TypeVar("S", bound=msgspec.Struct)
Check = Callable[[Any], list[FieldError]]


class Service(Actor[Any]):
    """Answers every `ServiceRequest` with a `Response`, never with a `Reject`.

    Subclasses give the class attributes. Expects in the tree: `storage`, `storage_reader`, `storage_scans`,
    `cache_manager`, `publisher`. *now*: Unix seconds. *new_id*: UUIDv7 strings. Not safe under `retry_once`.
    """

    prefix: ClassVar[str]
    noun: ClassVar[str]
    operations: ClassVar[tuple[Operation, ...]]
    cache_kind: ClassVar[str] = ""
    task_timeout: ClassVar[float] = 30.0
    """Seconds after which a request that hangs is given up; the front end's deadline, the client's, is shorter."""

    def __init__(self, *, new_id: Callable[[], str], now: Callable[[], float], metrics: Metrics) -> None:
        self.new_id = new_id
        self.now = now
        self._table = Table(self.operations)
        self._dropped = metrics.counter(
            "weir_audit_dropped_total",
            "Events lost before the log (full: no room; invalid: not encodable).",
            ("reason",),
        )

    def handle_batch(self, messages: list[Any]) -> list[Any]:
        """Hits are answered here, with one question to the cache a batch; all else by a task of its own."""
        answers: list[Any] = [None] * len(messages)
        reads: list[tuple[int, Request, Operation, str]] = []
        for index, message in enumerate(messages):
            if type(message) is not ServiceRequest:
                answers[index] = self.receive(message)
                continue
            request = message.request
            operation, key = self._table.find(request.method, message.rest)
            if operation is None:
                answers[index] = self._refuse(message)
            elif operation.cached:
                reads.append((index, request, operation, key))
            else:
                answers[index] = self._begin(request, operation, key)
        if reads:
            values = self._cached(tuple([read[3] for read in reads]))
            for (index, request, operation, key), value in zip(reads, values, strict=True):
                if value is MISS:
                    answers[index] = self._begin(request, operation, key)
                else:
                    answers[index] = self._hit(request, operation, key, value)
        return answers

    def receive(self, message: Any) -> Any:
        """Answer a message that is no `ServiceRequest`."""
        return Reject(TypeError(f"{type(self).__name__} does not understand {type(message).__name__}"))

    def refusal(self, method: str, rest: str, path: str) -> ProblemError:
        """The answer to a request that is no operation."""
        return self._table.refusal(method, rest, path)

    # What subclasses build their operations from.

    async def read_through(self, call: Call) -> Response:
        """The handler of a cached read that missed."""
        if not self.valid_key(call.key):
            raise as_problem(Absent(self.noun, call.key))
        value = await self.lookup("cache_manager").ask(Load(self.cache_kind, call.key))
        return self.present(call.request, call.key, value)

    def valid_key(self, key: str) -> bool:
        """Whether an entity may have this id at all; if not, neither cache nor store is asked."""
        return True

    def present(self, request: Request, key: str, value: Any) -> Response:
        """The answer of a read: *value* is the `Entity` or ABSENT. Raises a ProblemError for the latter."""
        if value is ABSENT:
            raise as_problem(Absent(self.noun, key))
        entity: Entity = value
        tag = (b"etag", conditional.etag(entity.version))
        known = request.header(b"if-none-match")
        if known is not None and conditional.matches(known, entity.version, weak=True):
            return Response(304, [tag, REVALIDATE])
        return Response(200, [CONTENT_JSON, tag, REVALIDATE], entity.body)

    def json_body(self, call: Call) -> Any:
        """The JSON value of the request. Raises a 415 or a 400."""
        bodies.check_media_type(call.request.header(b"content-type"), call.operation.media)
        bodies.check_coding(call.request.header(b"content-encoding"))
        return bodies.parse_json(call.request.body)

    def body(self, call: Call, shape: type[S], check: Check) -> S:
        """The request's body as a *shape* that passes *check*; else a 422 with all faults."""
        value = self.json_body(call)
        errors = bodies.faults(value, shape) or check(bodies.convert(value, shape))
        if errors:
            raise bodies.invalid(errors)
        return bodies.convert(value, shape)

    def cause(self, call: Call) -> Cause:
        request = call.request
        ids = (self.new_id(), self.new_id(), self.new_id())
        return Cause(call.subject, request.id, self.now(), ids, request.client, request.traceparent)

    async def write(self, write: Write, *evict: tuple[str, str]) -> Any:
        """Commit *write* and evict what it made stale, so that who reads next here reads it; return its answer.

        However it ends (refused, unknown, cancelled), the entries are evicted: one miss costs less than a stale hit.
        """
        try:
            answer = await self.lookup("storage").ask(Transact(write))
        except BaseException:
            if evict:
                self.lookup("cache_manager").try_tell(Invalidate(evict))
            raise
        if evict:
            try:
                await self.lookup("cache_manager").ask(Invalidate(evict))
            except ActorError as error:
                # It is committed: the client must learn that. The cache.invalidate event evicts as well.
                log.warning("evicting after a write failed", keys=evict, error=repr(error))
        return answer

    def failure(self, call: Call, error: Exception) -> Response:
        """The answer to a request whose handler raised *error*."""
        return _error_response(call.request, call.operation.name, error)

    def audit(self, request: Request, subject: str, action: str, entity: str, status: int) -> None:
        """Publish an audit that no transaction carries. Waits for nothing, raises nothing."""
        entry = AuditEntry(
            id=self.new_id(),
            at=self.now(),
            subject=subject,
            action=action,
            entity=entity,
            outcome=outcome(status),
            request_id=request.id,
            status=status,
            client=request.client,
        )
        try:
            event = audit_event(entry, request.traceparent)
        except Exception:
            log.exception("an audit cannot be encoded", request_id=request.id)
            self._dropped.inc("invalid")
            return
        if not self.lookup("publisher").try_tell(Publish(event)):
            self._dropped.inc("mailbox")

    # One request.

    def _cached(self, keys: tuple[str, ...]) -> list[Any]:
        try:
            values: list[Any] = self.lookup("cache_manager").ask_now(GetMany(self.cache_kind, keys))
        except trio.WouldBlock:
            return [MISS] * len(keys)  # a load begins with another look
        return values

    def _hit(self, request: Request, operation: Operation, key: str, value: Any) -> Response:
        try:
            response = self.present(request, key, value)
        except Exception as error:
            response = _error_response(request, operation.name, error)
        self.audit(
            request, _subject(request), operation.action, operation.entity.replace("{key}", key), response.status
        )
        return response

    def _begin(self, request: Request, operation: Operation, key: str) -> Later:
        later = self.later()
        self.spawn(self._run, later, Call(request, operation, key, _subject(request)))
        return later

    async def _run(self, later: Later, call: Call) -> None:
        operation = call.operation
        try:
            with trio.fail_after(self.task_timeout):
                response = await operation.handler(self, call)
        except trio.TooSlowError:
            response = self.failure(call, TimeoutError())
        except Exception as error:
            response = self.failure(call, error)
        if operation.action and (call.replayed or not operation.writes or response.status >= 400):
            action = f"{operation.action}.replayed" if call.replayed else operation.action
            self.audit(call.request, call.subject, action, operation.entity.replace("{key}", call.key), response.status)
        later.answer(response)

    def _refuse(self, message: ServiceRequest) -> Response:
        request = message.request
        refusal = self.refusal(request.method, message.rest, request.path)
        self.audit(request, _subject(request), f"{request.method} {self.prefix}", request.path, refusal.status)
        return refusal.response(request.id)


def _subject(request: Request) -> str:
    return "" if request.principal is None else request.principal.subject


def _error_response(request: Request, operation: str, error: Exception) -> Response:
    known: ProblemError | None = problem_for(error)
    if known is not None:
        return known.response(request.id)
    log.error("a request failed", request_id=request.id, operation=operation, exc_info=error)
    return problem(500, "an unexpected error; the log has it under this request_id", request.id)
