"""The `rate_limiter` actor: the clock, the mailbox and the counters around `store.py`, or around shared counters."""

from typing import Any, NamedTuple, assert_never

from actors.metrics import Metrics
from actors.rate_limiter.fallback import Fallback
from actors.rate_limiter.messages import Check, Reload, Verdict
from actors.rate_limiter.store import Buckets
from actors.runtime import Actor, Reject
from actors.shared_store.standing import Standing
from backends.ports.gcra import US
from backends.ports.limits import Limiter, LimitsUnavailable
from backends.ports.shared import SharedStoreAway


class SharedCounting(NamedTuple):
    """Where limits are counted for all instances, and what is done while that is away."""

    limiter: Limiter
    standing: Standing
    fallback: Fallback


class RateLimiter(Actor[Check | Reload]):
    """Answers `Check` with a `Verdict`, `Reload` with None (`Reject` of a ValueError: the old limits stay).

    With *shared* the checks of one moment are one round trip, and the next batch waits for it, at most for the
    store's budget; while the store is away each limit does as its `fail` says, and nothing waits.

    Safe under `retry_once`: at worst a check that was in hand at a crash is charged twice.
    """

    def __init__(self, buckets: Buckets, metrics: Metrics, shared: SharedCounting | None = None) -> None:
        self._buckets = buckets
        self._shared = shared
        self._checks = metrics.counter(
            "weir_rate_limit_checks_total", "Checked limits by outcome (admitted, refused).", ("limit", "outcome")
        )
        self._alone = metrics.counter(
            "weir_rate_limit_fallbacks_total",
            "Checks while the shared counters were away (decided here, unavailable).",
            ("outcome",),
        )
        metrics.gauge(
            "weir_rate_limit_buckets",
            "Buckets in memory.",
            ("limit",),
            lambda: {(name,): float(count) for name, count in buckets.size().items()},
        )

    async def handle_batch(self, messages: list[Check | Reload]) -> list[Any]:
        if self._shared is not None:
            return await self._handle_shared(messages, self._shared)
        # One reading of the clock a batch: what waited in the mailbox together arrived together.
        now_us = round(self.clock() * US)
        return [self._handle(message, now_us) for message in messages]

    def _handle(self, message: Check | Reload, now_us: int) -> Verdict | Reject | None:
        match message:
            case Check(buckets=buckets):
                verdict = self._buckets.check(buckets, now_us)
                self._count(verdict)
                return verdict
            case Reload():
                return self._reload(message, self._buckets)
            case _:
                assert_never(message)

    async def _handle_shared(self, messages: list[Check | Reload], shared: SharedCounting) -> list[Any]:
        checks = [message.buckets for message in messages if isinstance(message, Check)]
        verdicts = iter(await self._count_together(checks, shared) if checks else ())
        answers: list[Any] = []
        for message in messages:
            match message:
                case Check():
                    verdict = next(verdicts)
                    if isinstance(verdict, Verdict):
                        self._count(verdict)
                    answers.append(verdict if isinstance(verdict, Verdict) else Reject(verdict))
                case Reload():
                    answers.append(self._reload(message, shared.limiter, shared.fallback))
                case _:
                    assert_never(message)
        return answers

    async def _count_together(self, checks: list[Any], shared: SharedCounting) -> list[Verdict | LimitsUnavailable]:
        if shared.standing.usable:
            try:
                counted = await shared.limiter.check(checks)
            except SharedStoreAway as error:
                shared.standing.failed(error, self.clock())
            else:
                shared.standing.answered()
                return list(counted)
        now_us = round(self.clock() * US)
        verdicts = [shared.fallback.check(check, now_us, shared.standing.instances) for check in checks]
        for verdict in verdicts:
            self._alone.inc("decided" if isinstance(verdict, Verdict) else "unavailable")
        return verdicts

    def _reload(self, message: Reload, *counting: Limiter | Fallback | Buckets) -> Reject | None:
        try:
            for each in counting:
                each.reload(message.limits)
        except ValueError as error:
            return Reject(error)
        return None

    def _count(self, verdict: Verdict) -> None:
        if verdict.violated:
            for name in verdict.violated:
                self._checks.inc(name, "refused")
        else:
            for state in verdict.states:
                self._checks.inc(state.name, "admitted")
