"""The target kind `http(s)://…`: a proxied upstream, or several that share the requests."""

from collections.abc import Sequence
from itertools import count

import structlog
import trio

from actors.router.messages import Resolved
from gateway.problem import ProblemError
from gateway.proxy.balance import Balance, choose
from gateway.proxy.exchange import Exchange
from gateway.proxy.metrics import Outcome
from gateway.proxy.origin import Busy, Connection, Origin, Unreached
from gateway.proxy.outgoing import Outgoing
from gateway.proxy.reader import BadAnswer
from gateway.proxy.retries import RetryBudget
from gateway.proxy.transport import Broken, TooSlow
from gateway.refusals import unavailable
from gateway.request import Request, Response

log = structlog.get_logger(__name__)

_AWAY = "the service behind this path cannot be reached"
_SLOW = "the service behind this path did not answer in time"
_FULL = "the service behind this path has as many requests as it can take"
_EJECTED = "the service behind this path keeps failing and is left alone for now"


class _Failed(Exception):
    """One try failed, and nothing has gone to the client. *sent*: the upstream may have acted on it."""

    def __init__(self, problem: ProblemError, outcome: Outcome, *, sent: bool) -> None:
        super().__init__(problem.detail)
        self.problem = problem
        self.outcome = outcome
        self.sent = sent


class UpstreamTarget:
    """Forwards to *origins*, and streams both ways where there is a wire.

    The path goes on as it is, prefix included, in its canonical form. Redirects are the caller's business. A request
    that failed goes to another upstream when it was not sent, or can be sent twice (`retries.py`), within the budget.
    """

    audited = True
    streams = True

    def __init__(
        self, origins: Sequence[Origin], balance: Balance = "least_outstanding", budget: RetryBudget | None = None
    ) -> None:
        if not origins:
            raise ValueError("an upstream target needs at least one URL")
        self._origins = tuple(origins)
        self._balance = balance
        self._budget = RetryBudget() if budget is None else budget
        self._turn = count()

    async def handle(self, request: Request, resolved: Resolved) -> Response:
        """Raises ProblemError: 504 when the upstream is too slow, 502 when it cannot be reached or understood, 503
        with Retry-After when it has enough in hand or is ejected. Once the answer has begun, whatever cut it short.

        Cancelled: the upstream's connection is closed; what it does with the request is unknown.
        """
        outgoing = Outgoing(request, resolved)
        await outgoing.load(request, self._origins[0].limits.whole)
        self._budget.count()
        turn = next(self._turn)
        tried: list[Origin] = []
        failed: _Failed | None = None
        while (origin := self._next(turn, tried)) is not None:
            if failed is not None and not self._budget.take(trio.current_time()):
                break
            try:
                return await self._try(origin, outgoing, request)
            except _Failed as failure:
                failed = failure
            if not outgoing.may_repeat(sent=failed.sent):
                break
            tried.append(origin)
        if failed is None:
            now = trio.current_time()
            raise unavailable(_EJECTED, min(origin.health.retry_after(now) for origin in self._origins))
        raise failed.problem from None

    def _next(self, turn: int, tried: list[Origin]) -> Origin | None:
        origins = self._origins
        if len(origins) == 1 and not tried and origins[0].health.ejected_until is None:
            return origins[0]
        now = trio.current_time()
        index = choose(
            [
                origin.outstanding if origin not in tried and origin.health.available(now) else None
                for origin in origins
            ],
            turn,
            self._balance,
        )
        return None if index is None else origins[index]

    async def _try(self, origin: Origin, outgoing: Outgoing, request: Request) -> Response:
        probe = origin.health.begin() if origin.health.ejected_until is not None else False
        origin.outstanding += 1
        origin.requests += 1
        outcome: Outcome = "abandoned"
        try:
            response = await self._ask(origin, outgoing, request, probe)
            outcome = "answered"
            return response
        except _Failed as failure:
            outcome = failure.outcome
            raise
        except (Broken, BadAnswer, TooSlow):  # in the middle of its answer
            outcome = "failed"
            raise
        finally:
            origin.ended(outcome)
            if probe:
                origin.health.abandon()

    async def _ask(self, origin: Origin, outgoing: Outgoing, request: Request, probe: bool) -> Response:
        first = outgoing.first(origin.authority)
        fresh = False
        while True:
            try:
                connection = await origin.acquire(fresh=fresh)
            except Busy:
                raise _Failed(unavailable(_FULL, 1.0), "refused", sent=False) from None
            except Unreached as error:
                raise self._failed(origin, request, error, probe, sent=False) from None
            exchange = Exchange(origin, connection, outgoing, request.wire)
            try:
                response = await exchange.run(first)
            except (Broken, BadAnswer, TooSlow) as error:
                origin.discard(connection)
                if exchange.begun:
                    raise
                if (
                    not fresh
                    and self._was_stale(connection, error)
                    and outgoing.may_repeat(sent=connection.transport.sent)
                ):
                    fresh = True  # it closed an idle connection while the request was on its way
                    continue
                raise self._failed(origin, request, error, probe, sent=connection.transport.sent) from None
            except BaseException:
                origin.discard(connection)
                raise
            origin.release(connection)
            return response

    def _was_stale(self, connection: Connection, error: Exception) -> bool:
        return connection.used and not connection.reader.heard and not isinstance(error, TooSlow)

    def _failed(self, origin: Origin, request: Request, error: Exception, probe: bool, *, sent: bool) -> _Failed:
        slow = isinstance(error, TooSlow)
        why = str(error) or ("it did not answer in time" if slow else repr(error))
        log.warning("an upstream failed", upstream=origin.url, request_id=request.id, problem=why)
        origin.failure(why, probe=probe)
        if slow:
            return _Failed(ProblemError(504, _SLOW), "timed_out", sent=sent)
        return _Failed(ProblemError(502, _AWAY), "failed", sent=sent)
