"""What the programs share: how long to measure, rates, and the line of JSON at the end."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

ASKERS = 64
CAPACITY = 1024  # of mailboxes and channels that are told


@dataclass(frozen=True)
class Times:
    """How long to warm up, then to measure, in seconds."""

    warmup: float
    seconds: float


class Meter:
    """A rate over the measured time: `running` until that is over, `count` grows all the while."""

    def __init__(self, times: Times) -> None:
        self.count = 0
        self._from = time.perf_counter() + times.warmup
        self._until = self._from + times.seconds
        self._begun: tuple[float, int] | None = None
        self._ended: tuple[float, int] | None = None

    def running(self) -> bool:
        """Look at the clock; called often (each turn of a loop), so that both ends are met closely."""
        now = time.perf_counter()
        if self._begun is None and now >= self._from:
            self._begun = now, self.count
        if self._ended is None and now >= self._until:
            self._ended = now, self.count
        return self._ended is None

    def rate(self) -> float:
        """What was counted a second. Call when `running` was False."""
        assert self._begun is not None
        assert self._ended is not None
        return (self._ended[1] - self._begun[1]) / (self._ended[0] - self._begun[0])


Work = Callable[[Times], Mapping[str, float]]


def main(works: Mapping[str, Work]) -> None:
    """Do the one piece of work that the command line names, and print its figure and details as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("work", choices=works)
    parser.add_argument("--seconds", type=float, default=0.8)
    parser.add_argument("--warmup", type=float, default=0.2)
    given = parser.parse_args()
    print(json.dumps(works[given.work](Times(given.warmup, given.seconds))), file=sys.stdout)
