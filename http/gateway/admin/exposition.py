"""Weir's plain counters in Prometheus' text format, rendered by prometheus-client at scrape time."""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from actors.metrics import Counter, Family, Gauge, HistogramReading, Metrics

CONTENT_TYPE = CONTENT_TYPE_LATEST


class _Families(Collector):
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def describe(self) -> Iterable[Metric]:
        return ()  # families appear as actors register them; nothing is fixed at registration

    def collect(self) -> Iterator[Metric]:
        for family in self._metrics.families():
            yield _metric(family)


def _metric(family: Family) -> Metric:
    if isinstance(family, Counter):
        # prometheus-client writes `_total` itself.
        counter = CounterMetricFamily(family.name.removesuffix("_total"), family.help, labels=family.labels)
        values = family.values if family.values or family.labels else {(): 0.0}
        for labels, value in list(values.items()):
            counter.add_metric(labels, value)
        return counter
    if isinstance(family, Gauge):
        gauge = GaugeMetricFamily(family.name, family.help, labels=family.labels)
        for labels, value in family.collect().items():
            gauge.add_metric(labels, value)
        return gauge
    histogram = HistogramMetricFamily(family.name, family.help, labels=family.labels)
    rows = family.collect() if isinstance(family, HistogramReading) else family.values
    for labels, row in list(rows.items()):
        cumulative = 0.0
        buckets: list[tuple[str, float]] = []
        for bound, count in zip((*map(str, family.bounds), "+Inf"), row[:-1], strict=True):
            cumulative += count
            buckets.append((bound, cumulative))
        histogram.add_metric(labels, buckets, row[-1])
    return histogram


def render(metrics: Metrics) -> bytes:
    """The body of `/metrics`."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(metrics))
    return generate_latest(registry)
