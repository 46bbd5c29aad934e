"""The `rate_limiter` actor: the clock, the mailbox and the counters around `store.py`."""

from typing import Any, assert_never

from actors.metrics import Metrics
from actors.rate_limiter.gcra import US
from actors.rate_limiter.messages import Check, Reload, Verdict
from actors.rate_limiter.store import Buckets
from actors.runtime import Actor, Reject


class RateLimiter(Actor[Check | Reload]):
    """Answers `Check` with a `Verdict`, `Reload` with None (`Reject` of a ValueError: the old limits stay).

    Safe under `retry_once`: at worst a check that was in hand at a crash is charged twice.
    """

    def __init__(self, buckets: Buckets, metrics: Metrics) -> None:
        self._buckets = buckets
        self._checks = metrics.counter(
            "weir_rate_limit_checks_total", "Checked limits by outcome (admitted, refused).", ("limit", "outcome")
        )
        metrics.gauge(
            "weir_rate_limit_buckets",
            "Buckets in memory.",
            ("limit",),
            lambda: {(name,): float(count) for name, count in buckets.size().items()},
        )

    def handle_batch(self, messages: list[Check | Reload]) -> list[Any]:
        # One reading of the clock a batch: what waited in the mailbox together arrived together.
        now_us = round(self.clock() * US)
        return [self._handle(message, now_us) for message in messages]

    def _handle(self, message: Check | Reload, now_us: int) -> Verdict | Reject | None:
        match message:
            case Check(buckets=buckets):
                verdict = self._buckets.check(buckets, now_us)
                self._count(verdict)
                return verdict
            case Reload(limits=limits):
                try:
                    self._buckets.reload(limits)
                except ValueError as error:
                    return Reject(error)
                return None
            case _:
                assert_never(message)

    def _count(self, verdict: Verdict) -> None:
        if verdict.violated:
            for name in verdict.violated:
                self._checks.inc(name, "refused")
        else:
            for state in verdict.states:
                self._checks.inc(state.name, "admitted")
