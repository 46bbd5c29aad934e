"""What `/metrics` says, as values: read off one process, added up over several. Pure."""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import msgspec

from actors.metrics import Counter, Gauge, HistogramReading, Labels, Metrics

Kind = Literal["counter", "histogram", "sum", "max", "min"]
"""The last three are gauges, by how two processes' values become one."""


class Reading(msgspec.Struct, frozen=True):
    """A family at one moment. Rows: (labels, values), one value each, or a histogram's counts and its sum."""

    kind: Kind
    name: str
    help: str
    labels: Labels
    rows: list[tuple[Labels, list[float]]]
    bounds: tuple[float, ...] = ()


def read(metrics: Metrics) -> list[Reading]:
    readings: list[Reading] = []
    for family in metrics.families():
        if isinstance(family, Counter):
            values = family.values if family.values or family.labels else {(): 0.0}
            rows = [(labels, [value]) for labels, value in values.items()]
            readings.append(Reading("counter", family.name, family.help, family.labels, rows))
        elif isinstance(family, Gauge):
            rows = [(labels, [value]) for labels, value in family.collect().items()]
            readings.append(Reading(family.across, family.name, family.help, family.labels, rows))
        else:
            found = family.collect() if isinstance(family, HistogramReading) else family.values
            rows = [(labels, list(row)) for labels, row in found.items()]
            readings.append(Reading("histogram", family.name, family.help, family.labels, rows, family.bounds))
    return readings


def merged(processes: Iterable[Sequence[Reading]]) -> list[Reading]:
    """One reading a family. Families of one name that differ in shape (two versions, in a roll) stay the first's."""
    families: dict[str, tuple[Reading, dict[Labels, list[float]]]] = {}
    for readings in processes:
        for reading in readings:
            first, rows = families.setdefault(reading.name, (reading, {}))
            if (reading.kind, reading.labels, reading.bounds) != (first.kind, first.labels, first.bounds):
                continue
            for labels, values in reading.rows:
                known = rows.get(labels)
                if known is None:
                    rows[labels] = values
                else:
                    add = _ADD.get(first.kind, sum)
                    rows[labels] = [add(pair) for pair in zip(known, values, strict=True)]
    return [
        Reading(first.kind, first.name, first.help, first.labels, list(rows.items()), first.bounds)
        for first, rows in families.values()
    ]


_ADD: dict[str, Callable[[tuple[float, float]], float]] = {"max": max, "min": min}


def lasting(readings: Iterable[Reading]) -> list[Reading]:
    """What stays of a process that is gone: what it counted, not what it was."""
    return [reading for reading in readings if reading.kind in ("counter", "histogram")]
