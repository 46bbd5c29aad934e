"""Counters and gauges as plain numbers, scraped on demand. Pure: knows no exporter.

One `Metrics` is made in the composition root and given to every actor, so counts outlive incarnations.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

Labels = tuple[str, ...]


@dataclass(slots=True)
class Counter:
    """A family of monotonic counters. Add with `family.values[labels] += 1` through `inc`."""

    name: str
    help: str
    labels: Labels = ()
    values: dict[Labels, float] = field(default_factory=dict)

    def inc(self, *labels: str, by: float = 1) -> None:
        self.values[labels] = self.values.get(labels, 0) + by


@dataclass(slots=True)
class Gauge:
    """A family whose values are read from *collect* at scrape time."""

    name: str
    help: str
    labels: Labels
    collect: Callable[[], Mapping[Labels, float]]


@dataclass(slots=True)
class Histogram:
    """Cumulative at scrape time, plain counts until then. `bounds` ascend; the last bucket is +Inf."""

    name: str
    help: str
    bounds: tuple[float, ...]
    labels: Labels = ()
    values: dict[Labels, list[float]] = field(default_factory=dict)

    def observe(self, value: float, *labels: str) -> None:
        """The row is one count a bucket, then the sum."""
        row = self.values.get(labels)
        if row is None:
            row = self.values[labels] = [0.0] * (len(self.bounds) + 2)
        index = 0
        for bound in self.bounds:
            if value <= bound:
                break
            index += 1
        row[index] += 1
        row[-1] += value


@dataclass(slots=True)
class HistogramReading:
    """Histograms that somebody else keeps: *collect* returns their rows, as those of `Histogram`, at scrape time."""

    name: str
    help: str
    bounds: tuple[float, ...]
    labels: Labels
    collect: Callable[[], Mapping[Labels, Sequence[float]]]


Family = Counter | Gauge | Histogram | HistogramReading
_F = TypeVar("_F", Counter, Histogram)


class Metrics:
    """The families of one process, by name; a second registration of a name returns the first."""

    def __init__(self) -> None:
        self._families: dict[str, Family] = {}
        self._readings: dict[str, dict[Labels, Callable[[], float]]] = {}

    def counter(self, name: str, help: str, labels: Labels = ()) -> Counter:
        return self._add(Counter(name, help, labels), Counter)

    def gauge(self, name: str, help: str, labels: Labels, collect: Callable[[], Mapping[Labels, float]]) -> Gauge:
        family = Gauge(name, help, labels, collect)
        self._families[name] = family  # a new incarnation's reading replaces the dead one's
        return family

    def reading(self, name: str, help: str, labels: Labels, values: Labels, read: Callable[[], float]) -> None:
        """One series of a gauge that several actors share; a second reading of the same series replaces the first."""
        readings = self._readings.setdefault(name, {})
        readings[values] = read
        if name not in self._families:
            self.gauge(name, help, labels, lambda: {series: reading() for series, reading in readings.items()})

    def histogram_reading(
        self,
        name: str,
        help: str,
        bounds: tuple[float, ...],
        labels: Labels,
        collect: Callable[[], Mapping[Labels, Sequence[float]]],
    ) -> None:
        self._families[name] = HistogramReading(name, help, bounds, labels, collect)

    def histogram(self, name: str, help: str, bounds: tuple[float, ...], labels: Labels = ()) -> Histogram:
        return self._add(Histogram(name, help, bounds, labels), Histogram)

    def families(self) -> Iterable[Family]:
        return tuple(self._families.values())

    def _add(self, family: _F, kind: type[_F]) -> _F:
        known = self._families.setdefault(family.name, family)
        if not isinstance(known, kind) or known.labels != family.labels:
            raise ValueError(f"metric {family.name} is already registered with another shape")
        return known
