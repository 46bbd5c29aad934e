"""The counters and gauges of one consumer group."""

from collections.abc import Callable

from actors.metrics import Metrics


class ConsumerMetrics:
    """Every series exists from the start, at 0: an alarm on a counter needs its first increment."""

    def __init__(self, metrics: Metrics, group: str) -> None:
        self._metrics = metrics
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
        self._refused = metrics.counter(
            "weir_dead_letters_refused_total",
            "Dead letters that the log did not take; they are tried again",
            ("group",),
        )
        self._dead.inc(group, by=0)
        self._records.inc(group, "done", by=0)
        self._records.inc(group, "dead", by=0)
        self._failed.inc(group, by=0)
        self._refused.inc(group, by=0)

    def done(self, records: int = 1) -> None:
        self._records.inc(self._group, "done", by=records)

    def dead(self) -> None:
        self._records.inc(self._group, "dead")
        self.dead_letter()

    def dead_letter(self) -> None:
        """A dead letter that is no record of the group's topics: an exhausted delivery."""
        self._dead.inc(self._group)

    def dead_letter_refused(self) -> None:
        self._refused.inc(self._group)

    def failed_attempt(self) -> None:
        self._failed.inc(self._group)

    def watch(
        self,
        *,
        in_flight: Callable[[], float],
        oldest: Callable[[], float],
        waiting: Callable[[], float],
        paused: Callable[[], float],
    ) -> None:
        """Read the group's gauges from these; a new incarnation's replace those of the last."""
        for name, help, read in (
            ("weir_consumer_in_flight", "Records taken from the log and not finished", in_flight),
            ("weir_consumer_oldest_unfinished_seconds", "How long ago the oldest of them was taken", oldest),
            ("weir_consumer_waiting", "Records that wait for another attempt, or for their burial", waiting),
            ("weir_consumer_paused_partitions", "Partitions that are not fetched until work is done", paused),
        ):
            self._metrics.reading(name, help, ("group",), (self._group,), read)
