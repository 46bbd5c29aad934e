"""How far each consumer group is behind, and what it has still to deliver, as gauges read before a scrape."""

from collections.abc import Mapping

from actors.consumers.notification.messages import Backlog, Waiting
from actors.event_log.messages import Lag
from actors.metrics import Labels, Metrics
from actors.runtime import ActorError
from gateway.admin.operations import Lookup


class LagGauge:
    """Scraping is synchronous and the log is asked in a message, so the numbers are fetched first."""

    def __init__(self, metrics: Metrics) -> None:
        self._lag: Mapping[Labels, float] = {}
        metrics.gauge(
            "weir_consumer_lag",
            "Records between a group's committed offset and the end of the partition.",
            ("group", "topic", "partition"),
            lambda: self._lag,
        )
        self._waiting: Waiting | None = None
        metrics.gauge(
            "weir_deliveries_pending",
            "E-mails and webhook calls still to be made; consumed, so no part of the lag.",
            (),
            lambda: {(): float(self._waiting.deliveries)} if self._waiting else {},
        )
        metrics.gauge(
            "weir_deliveries_oldest_seconds",
            "How long the delivery that has been pending longest has been so; 0 when there is none.",
            (),
            lambda: {(): self._waiting.oldest} if self._waiting else {},
        )
        metrics.gauge(
            "weir_delivery_endpoints",
            "Webhooks and lanes of the relay that are worked for, held by their Retry-After, or resting.",
            ("state",),
            lambda: {(state,): float(n) for state, n in self._waiting.endpoints.items()} if self._waiting else {},
        )

    async def refresh(self, lookup: Lookup) -> None:
        """Ask the log and the deliveries. While one does not answer, its last numbers stay."""
        try:
            self._waiting = await lookup("deliveries").ask(Backlog(), timeout=2.0)
        except ActorError:
            pass
        try:
            lag = await lookup("event_log").ask(Lag(), timeout=2.0)
        except ActorError:
            return
        self._lag = {(group, topic, str(partition)): float(behind) for (group, topic, partition), behind in lag.items()}
