"""The `introspector` actor: asks an Auth Service elsewhere, so much at once as it may, and nothing while it is away.

Nobody pays for an outage with a timeout of their own: a few failures in a row end the asking, and only probes of this
actor's own, about tokens that nobody has, begin it again. One load a token at a time is the cache manager's work.
"""

import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog
import trio

from actors.authenticator.bearer import digest
from actors.authenticator.introspection import Refused, read
from actors.authenticator.messages import AuthServiceAway, Introspect, NotValidated, Principal, UnusableAnswer
from actors.breaker import Health, HealthPolicy
from actors.metrics import Metrics
from actors.runtime import Actor, Later, Reject

log = structlog.get_logger(__name__)

# A probe costs no caller anything, so they are frequent.
POLICY = HealthPolicy(failures=3, base=0.5, cap=5.0)
_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class AuthService(Protocol):
    async def introspect(self, token: bytes) -> bytes:
        """The body of its answer. Raises AuthServiceAway or UnusableAnswer."""
        ...

    async def aclose(self) -> None: ...


@dataclass(slots=True)
class Standing:
    """What is known of the service at *place* (for people); it outlives incarnations.

    `reason`: why it is not asked. `unusable`: why its last answer about a token was.
    """

    place: str
    health: Health = field(default_factory=lambda: Health(POLICY))
    reason: str = ""
    unusable: str = ""

    @property
    def usable(self) -> bool:
        return self.health.ejected_until is None


@dataclass(frozen=True, slots=True)
class _Turn:
    """One question that waits for its turn. *since*: monotonic seconds."""

    digest: str
    token: bytes = field(repr=False)
    since: float
    later: Later


class Introspector(Actor[Introspect]):
    """Answers `Introspect` with a `Principal` or None, or `Reject` of a `NotValidated`. Safe under `retry_once`.

    Args:
        connect: makes the client; called at each start.
        audience: what a token's `aud` must name; empty: whatever it names.
        wall_clock: Unix seconds, for the tokens' expiry.
        timeout: seconds that a question may wait for its turn, and then for its answer.
        concurrency: how many are asked at once.
        waiting: how many more may wait for their turn.
    """

    def __init__(
        self,
        connect: Callable[[], AuthService],
        standing: Standing,
        metrics: Metrics,
        wall_clock: Callable[[], float],
        *,
        audience: str = "",
        timeout: float = 2.0,
        concurrency: int = 32,
        waiting: int = 1024,
    ) -> None:
        self._connect = connect
        self._standing = standing
        self._wall_clock = wall_clock
        self._audience = audience
        self._timeout = timeout
        self._concurrency = concurrency
        self._room = waiting
        self._queue: deque[_Turn] = deque()
        self._at_work = 0
        self._watching = False
        self._outcomes = metrics.counter(
            "weir_introspections_total",
            "Questions to the Auth Service by outcome (active, inactive, foreign: active but not for us, unusable, "
            "away: no answer, spared: not asked because it is away, busy: no turn in time).",
            ("outcome",),
        )
        self._seconds = metrics.histogram(
            "weir_introspection_seconds", "From a question to the Auth Service to its outcome.", _BOUNDS, ("outcome",)
        )
        metrics.gauge(
            "weir_auth_service_up", "Whether the Auth Service is asked.", (), lambda: {(): float(standing.usable)}
        )

    async def on_start(self) -> None:
        self._service = self._connect()
        # Nobody's start waits for it: a service that is away is found out beside the first requests.
        self._keep_watch()

    async def on_stop(self) -> None:
        await self._service.aclose()

    def describe(self) -> dict[str, Any]:
        standing = self._standing
        shown: dict[str, Any] = {"place": standing.place, "waiting": len(self._queue)}
        if not standing.usable:
            shown["degraded"] = f"the Auth Service {standing.place} is away: {standing.reason}"
        elif standing.unusable:
            shown["degraded"] = f"the Auth Service {standing.place} gives answers of no use: {standing.unusable}"
        return shown

    def handle(self, message: Introspect) -> Any:
        if message.token is None:
            raise Reject(ValueError("an Auth Service elsewhere is asked about a token, not about its digest"))
        if not self._standing.usable:
            self._outcomes.inc("spared")
            raise Reject(AuthServiceAway(self._standing.reason))
        if len(self._queue) >= self._room:
            self._outcomes.inc("busy")
            raise Reject(NotValidated("too many tokens wait to be validated"))
        later = self.later()
        self._queue.append(_Turn(message.digest, message.token, self.clock(), later))
        if self._at_work < self._concurrency:
            self._at_work += 1
            self.spawn(self._work)
        return later

    async def _work(self) -> None:
        """One of at most `concurrency` that take turns while there are any."""
        while self._queue:
            turn = self._queue.popleft()
            if self.clock() - turn.since >= self._timeout:
                self._outcomes.inc("busy")
                turn.later.fail(NotValidated("the token had no turn in time"))
            else:
                await self._take(turn)
        self._at_work -= 1

    async def _take(self, turn: _Turn) -> None:
        try:
            found = await self._ask(turn.token, turn.digest)
        except AuthServiceAway as error:
            self._failed(error, probe=False)
            turn.later.fail(error)
        except UnusableAnswer as error:
            self._unusable(str(error))
            turn.later.fail(error)
        else:
            if isinstance(found, Principal):
                self._standing.unusable = ""
            turn.later.answer(found if isinstance(found, Principal) else None)

    async def _ask(self, token: bytes, token_digest: str) -> Principal | Refused:
        """Raises AuthServiceAway or UnusableAnswer."""
        began, outcome = self.clock(), "away"
        try:
            with trio.move_on_after(self._timeout) as scope:
                body = await self._service.introspect(token)
            if scope.cancelled_caught:
                raise AuthServiceAway(f"it did not answer within {self._timeout:g} s")
            found = read(body, token_digest, self._wall_clock(), self._audience)
            outcome = found.value if isinstance(found, Refused) else "active"
        except UnusableAnswer:
            outcome = "unusable"
            self._answered()
            raise
        finally:
            self._outcomes.inc(outcome)
            self._seconds.observe(self.clock() - began, outcome)
        self._answered()
        return found

    # How the service is.

    def _answered(self) -> None:
        """A question that was asked before the service was given up changes nothing."""
        if self._standing.usable:
            self._standing.health.failures = 0

    def _failed(self, error: AuthServiceAway, *, probe: bool) -> None:
        """Count it, and when it was one too many let nobody wait for what is not asked any more."""
        standing, now = self._standing, self.clock()
        if probe or (error.refused and standing.usable):
            standing.health.eject(now)
        elif not standing.health.failed(now, probe=False):
            return
        if str(error) != standing.reason:  # once for each reason, not for each probe
            standing.reason = str(error)
            tell = log.error if error.refused else log.warning
            tell("auth_service.away", place=standing.place, reason=standing.reason)
        self._outcomes.inc("spared", by=len(self._queue))
        while self._queue:
            self._queue.popleft().later.fail(error)
        self._keep_watch()

    def _unusable(self, reason: str) -> None:
        if reason != self._standing.unusable:  # once for each reason, not for each token
            self._standing.unusable = reason
            log.warning("auth_service.unusable", place=self._standing.place, reason=reason)

    def _keep_watch(self) -> None:
        if not self._watching:
            self._watching = True
            self.spawn(self._watch)

    async def _watch(self) -> None:
        """Probe until it answers: at once at the start, else when it has been left alone for long enough."""
        health = self._standing.health
        while True:
            await trio.sleep(health.retry_after(self.clock()))
            if await self._probe():
                self._watching = False
                return

    async def _probe(self) -> bool:
        """Ask about a token that nobody has; whether it answered as it should."""
        standing, token = self._standing, secrets.token_urlsafe(32).encode()
        try:
            if isinstance(await self._ask(token, digest(token)), Principal):
                raise AuthServiceAway("it calls a token active that nobody was given")
        except AuthServiceAway as error:
            self._failed(error, probe=True)
            return False
        except UnusableAnswer as error:
            self._failed(AuthServiceAway(str(error)), probe=True)
            return False
        if standing.health.succeeded():
            log.info("auth_service.back", place=standing.place, after=standing.reason)
            standing.reason = ""
        return True
