"""A rate of what is consumed, and the processor time of it. Without dependencies: every side's program uses it."""

import argparse
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

TOPIC = "audit"


@dataclass(frozen=True)
class Given:
    """The command line. `total`: how many records there are."""

    warmup: float
    seconds: float
    total: int
    bootstrap: str
    dsn: str


class Tally:
    """Counts from the first on; measures from *warmup* seconds later until *seconds* are over or *total* came.

    `ended` is called then, once.
    """

    def __init__(self, given: Given, ended: Callable[[], object]) -> None:
        self.count = 0
        self._given, self._tell = given, ended
        self._from: float | None = None
        self._begun: tuple[float, float, int] | None = None
        self._ended: tuple[float, float, int] | None = None

    def add(self, count: int) -> None:
        self.count += count
        now = time.perf_counter()
        if self._from is None:
            self._from = now + self._given.warmup
        if self._begun is None:
            if now >= self._from:
                self._begun = now, time.process_time(), self.count
        elif self._ended is None and (now >= self._begun[0] + self._given.seconds or self.count >= self._given.total):
            self._ended = now, time.process_time(), self.count
            self._tell()

    def figures(self) -> dict[str, float]:
        """Events a second, and own processor time of each in µs."""
        assert self._begun is not None
        assert self._ended is not None
        seconds, cpu, count = (end - begin for end, begin in zip(self._ended, self._begun, strict=True))
        return {"figure": count / seconds, "own_cpu_us": cpu / count * 1e6, "counted": count}


Work = Callable[[Given], Mapping[str, float]]


def main(works: Mapping[str, Work]) -> None:
    """Do the one piece of work that the command line names, and print its figure and details as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("work", choices=works)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--warmup", type=float, default=0.5)
    parser.add_argument("--total", type=int, default=60_000)
    given = parser.parse_args()
    where = os.environ.get("BENCH_KAFKA", ""), os.environ.get("BENCH_POSTGRES", "")
    print(json.dumps(works[given.work](Given(given.warmup, given.seconds, given.total, *where))))
