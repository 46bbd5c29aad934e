"""Readings in Prometheus' text format, rendered by prometheus-client at scrape time."""

from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from gateway.admin.readings import Reading

CONTENT_TYPE = CONTENT_TYPE_LATEST


class _Families(Collector):
    def __init__(self, readings: Sequence[Reading]) -> None:
        self._readings = readings

    def describe(self) -> Iterable[Metric]:
        return ()  # families appear as actors register them; nothing is fixed at registration

    def collect(self) -> Iterator[Metric]:
        for reading in self._readings:
            yield _metric(reading)


def _metric(reading: Reading) -> Metric:
    if reading.kind == "counter":
        # prometheus-client writes `_total` itself.
        counter = CounterMetricFamily(reading.name.removesuffix("_total"), reading.help, labels=reading.labels)
        for labels, (value,) in reading.rows:
            counter.add_metric(labels, value)
        return counter
    if reading.kind != "histogram":
        gauge = GaugeMetricFamily(reading.name, reading.help, labels=reading.labels)
        for labels, (value,) in reading.rows:
            gauge.add_metric(labels, value)
        return gauge
    histogram = HistogramMetricFamily(reading.name, reading.help, labels=reading.labels)
    for labels, row in reading.rows:
        cumulative = 0.0
        buckets: list[tuple[str, float]] = []
        for bound, count in zip((*map(str, reading.bounds), "+Inf"), row[:-1], strict=True):
            cumulative += count
            buckets.append((bound, cumulative))
        histogram.add_metric(labels, buckets, row[-1])
    return histogram


def render(readings: Sequence[Reading]) -> bytes:
    """The body of `/metrics`."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(readings))
    return generate_latest(registry)
