"""Histograms of what an actor's messages go through: plain integers, read on demand.

Pure: numbers in, numbers out. Counts are kept by the cell, so they outlive incarnations.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actors.runtime.envelope import Envelope

DEPTHS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Histogram:
    """`counts[i]` values were at most `bounds[i]` and above the bound before; the last count is of those above all
    bounds. `total` is the sum of all values."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float


@dataclass(frozen=True, slots=True)
class ActorMetrics:
    """What the messages of one actor have gone through since the system was opened.

    Attributes:
        mailbox_depth: messages that the actor finds in its mailbox, those included that it takes; looked at for
            every batch, or on every fourth turn of at most 16 messages that are handled one by one; 1 for those
            that are handled in their asker's turn.
        message_age: seconds from being taken in hand to the answer, of every message handled; one whose answer
            is given later is in hand until then.
        latency: seconds from being sent to the answer, of the same messages: waiting for room, queueing and
            restarts included.

    Of those handled in their asker's turn, one in sixteen is measured and stands for all.
    """

    mailbox_depth: Histogram
    message_age: Histogram
    latency: Histogram


class Counts:
    """A histogram that grows."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float, times: int = 1) -> None:
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    def add_all(self, values: Sequence[float]) -> None:
        """Several, at little more than the price of one where they are alike. At least one."""
        bounds, counts = self.bounds, self.counts
        lowest, highest = bisect_left(bounds, min(values)), bisect_left(bounds, max(values))
        if lowest == highest:
            counts[lowest] += len(values)
        else:
            for value in values:
                counts[bisect_left(bounds, value)] += 1
        self.total += sum(values)

    def read(self) -> Histogram:
        return Histogram(self.bounds, tuple(self.counts), self.total)


class Measured:
    """The histograms of one actor."""

    __slots__ = ("age", "ages", "depth", "latencies", "latency")

    def __init__(self) -> None:
        self.depth = Counts(DEPTHS)
        self.age = Counts(SECONDS)
        self.latency = Counts(SECONDS)
        self.ages: list[float] = []
        """Of messages that came one by one, still to be put into their buckets; `latencies` belong to the same."""
        self.latencies: list[float] = []

    def one(self, envelope: Envelope, since: float, now: float) -> None:
        """A message that was taken in hand at *since* has been handled."""
        self.age.add(now - since)
        self.latency.add(now - envelope.sent)

    def many(self, envelopes: Sequence[Envelope], since: float, now: float) -> None:
        """Several that were taken together have been handled together."""
        if envelopes:
            self.age.add(now - since, len(envelopes))
            self.latency.add_all([now - envelope.sent for envelope in envelopes])

    def at_once(self, age: float, times: int) -> None:
        """A message was handled in its asker's turn, and stands for *times* of them: each found an empty mailbox."""
        self.depth.add(1, times)
        self.age.add(age, times)
        self.latency.add(age, times)

    def sort_in(self) -> None:
        """Put what is still to be into its buckets."""
        if self.ages:
            self.age.add_all(self.ages)
            self.latency.add_all(self.latencies)
            self.ages.clear()
            self.latencies.clear()

    def read(self) -> ActorMetrics:
        self.sort_in()
        return ActorMetrics(self.depth.read(), self.age.read(), self.latency.read())
