"""The counters of one consumer group."""

from actors.metrics import Metrics


class ConsumerMetrics:
    """Every series exists from the start, at 0: an alarm on a counter needs its first increment."""

    def __init__(self, metrics: Metrics, group: str) -> None:
        self._group = group
        self._dead = metrics.counter(
            "weir_dead_letters_total", "Events and deliveries given up, once stored as dead letters", ("group",)
        )
        self._records = metrics.counter(
            "weir_consumer_records_total", "Records finished: done, or dead", ("group", "outcome")
        )
        self._failed = metrics.counter(
            "weir_consumer_failed_attempts_total", "Attempts at a record that failed", ("group",)
        )
        self._dead.inc(group, by=0)
        self._records.inc(group, "done", by=0)
        self._records.inc(group, "dead", by=0)
        self._failed.inc(group, by=0)

    def done(self) -> None:
        self._records.inc(self._group, "done")

    def dead(self) -> None:
        self._records.inc(self._group, "dead")
        self.dead_letter()

    def dead_letter(self) -> None:
        """A dead letter that is no record of the group's topics: an exhausted delivery."""
        self._dead.inc(self._group)

    def failed_attempt(self) -> None:
        self._failed.inc(self._group)
