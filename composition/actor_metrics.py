"""The runtime's histograms of every actor, as families of `/metrics`."""

from collections.abc import Callable, Mapping, Sequence

from actors.metrics import Labels, Metrics
from actors.runtime import ActorMetrics, Histogram, System
from actors.runtime.measures import DEPTHS, SECONDS


def expose(metrics: Metrics, system: System) -> None:
    """Have *metrics* read *system*, which was opened with `metrics=True`, at every scrape."""

    def rows(of: Callable[[ActorMetrics], Histogram]) -> Callable[[], Mapping[Labels, Sequence[float]]]:
        def collect() -> Mapping[Labels, Sequence[float]]:
            read = {id: of(measured) for id, measured in system.metrics().items()}
            return {(id,): (*histogram.counts, histogram.total) for id, histogram in read.items()}

        return collect

    for name, help, bounds, of in (
        (
            "weir_actor_mailbox_depth",
            "Messages that an actor found in its mailbox, on every batch or every fourth turn",
            DEPTHS,
            lambda measured: measured.mailbox_depth,
        ),
        (
            "weir_actor_message_age_seconds",
            "From a message being taken in hand to its answer",
            SECONDS,
            lambda measured: measured.message_age,
        ),
        (
            "weir_actor_latency_seconds",
            "From a message being sent to its answer",
            SECONDS,
            lambda measured: measured.latency,
        ),
    ):
        metrics.histogram_reading(name, help, bounds, ("actor",), rows(of))
