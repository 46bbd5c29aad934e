"""The events that are published but not yet in the log. Pure: a bounded queue that knows its sequence numbers.

Made by the composition root, so what it holds outlives a crash of the publisher. It lives in memory: at
kill -9 what is in it is lost, at most the last 50 ms while the log keeps up.
"""

from collections import deque
from itertools import islice
from typing import Literal

from backends.ports.cloudevents import to_record
from backends.ports.events import Event, NewRecord

OnFull = Literal["drop", "refuse"]


class EventBuffer:
    """At most *capacity* records, in order.

    *on_full*: `drop` loses the newest event, counted; `refuse` means that the gateway asks `refusing` and
    turns requests away before they do any work; what comes all the same is dropped and counted, too.
    """

    def __init__(self, capacity: int = 50_000, on_full: OnFull = "drop") -> None:
        if capacity < 1:
            raise ValueError(f"the buffer holds at least 1 event, got {capacity}")
        self.capacity = capacity
        self.on_full = on_full
        self.offered = 0
        """Events ever taken."""
        self.forgotten = 0
        """Of these, the ones that reached the log (or the spool, where there is one): the first `forgotten` ones."""
        self.shut = False
        """Nothing more is taken: the spool is full."""
        self._records: deque[NewRecord] = deque()

    def __len__(self) -> int:
        return len(self._records)

    @property
    def full(self) -> bool:
        return self.shut or len(self._records) >= self.capacity

    @property
    def refusing(self) -> bool:
        """Whether work whose audit could not be kept should be turned away now."""
        return self.on_full == "refuse" and self.full

    def offer(self, event: Event) -> bool:
        """Take *event* if there is room. Raises for an event that cannot be encoded (text that is not UTF-8)."""
        if self.full:
            return False
        self._records.append(to_record(event))
        self.offered += 1
        return True

    def head(self, limit: int) -> tuple[NewRecord, ...]:
        """The oldest records, at most *limit*; they stay until `forget`."""
        return tuple(islice(self._records, limit))

    def forget(self, count: int) -> None:
        """The oldest *count* records are in the log."""
        for _ in range(count):
            self._records.popleft()
        self.forgotten += count
