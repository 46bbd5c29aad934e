"""What a consumer holds of each of its partitions, and which records may be handed over next. Pure.

Order holds per key: a record that is in hand, or that waits for its next attempt, holds its key alone; what comes
after it with the same key waits behind it. Records without a key share an order, as do all of a partition with
`by_key=False`. (A key belongs to one partition of one topic, so the topic is part of it.)

The usual case costs next to nothing: with one call at a time and nothing that failed, no key is looked at.
"""

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from actors.consumers.failure import Failure
from actors.consumers.tracker import PartitionTracker
from backends.ports.event_log import Attempt
from backends.ports.events import Event, Partition, Record
from backends.ports.groups import Start


class Delivered(NamedTuple):
    """A record and the event in it."""

    record: Record
    event: Event


@dataclass(slots=True)
class Waiting:
    """A record that holds its key until `due_at` (Unix seconds).

    `failure` None: it is to be tried again, after `attempt`. Else it was given up and is to be stored as a dead
    letter; `burials` counts how often that failed.
    """

    record: Record
    attempt: Attempt
    due_at: float
    failure: Failure | None = None
    burials: int = 0


Key = bytes | None


@dataclass(slots=True)
class _Held:
    """A key that is not free: a record of it is in hand, or waits, or those behind one may go on now."""

    in_hand: bool = False
    waiting: Waiting | None = None
    behind: deque[Record] = field(default_factory=deque)


class Taken(NamedTuple):
    """Records for one call. `alone`: the one record may have been in hand when a process ended."""

    records: list[Record]
    alone: bool = False


class Lane:
    """One assigned partition.

    Args:
        exclusive: the owner makes one call of the handler at a time, so what is in hand need hold no key.
        resume: what becomes of a record that an earlier life tried.

    `attempts` are those that an earlier life persisted, by offset; nothing is handed over before they are known.
    `calls`: how many calls have records of it in hand. `closing`: it is being given up.
    """

    def __init__(
        self,
        partition: Partition,
        start: Start,
        *,
        by_key: bool,
        exclusive: bool,
        resume: Callable[[Record, Attempt], Waiting],
    ) -> None:
        self.partition = partition
        self.tracker = PartitionTracker(start)
        self.attempts: dict[int, Attempt] | None = None
        self.calls = 0
        self.closing = False
        self.paused = False
        self.handed = start.offset
        """All records below it were handed over, or wait."""
        self._by_key = by_key
        self._exclusive = exclusive
        self._resume = resume
        self._ready: deque[Record] = deque()  # by offset; some of their keys may be held
        self._held: dict[Key, _Held] = {}
        self._released: deque[Key] = deque()  # held by nothing any more, but with records behind
        self._due: list[tuple[float, int, Key]] = []  # a heap; entries of what no longer waits are passed over

    def add(self, records: Sequence[Record], at: float) -> None:
        """Records of this partition in offset order, taken at the time *at*; those done before are left out."""
        tracker = self.tracker
        if records[0].offset < tracker.position:
            self._rewind(records[0].offset)
        begin = tracker.begin
        self._ready.extend([record for record in records if begin(record.offset, at)])

    def _rewind(self, offset: int) -> None:
        self.tracker.rewind(offset)
        self.handed = min(self.handed, offset)
        for anything in (self._ready, self._released, self._due):
            anything.clear()
        # Those in hand hold their keys to the end, so that the order still holds.
        self._held = {key: _Held(in_hand=True) for key, held in self._held.items() if held.in_hand}

    # What may be handed over.

    @property
    def open(self) -> bool:
        return self.attempts is not None and not self.closing

    def ready(self) -> int:
        """About how many records may be handed over: some may turn out to have to wait."""
        return len(self._ready) + len(self._released)

    def suspects(self) -> bool:
        """Whether there are unfinished records that may have been in hand when a process ended."""
        return self.tracker.committable() < self.tracker.suspect_below

    def take_due(self, now: float) -> Waiting | None:
        """A record whose wait is over; its key stays held until `settle`."""
        while self._due and self._due[0][0] <= now:
            _, offset, key = heapq.heappop(self._due)
            held = self._held.get(key)
            waiting = None if held is None or held.in_hand else held.waiting
            if held is not None and waiting is not None and waiting.record.offset == offset:
                held.in_hand = True
                return waiting
        return None

    def next_due(self) -> float | None:
        """When the first waiting record is due, Unix seconds."""
        return self._due[0][0] if self._due else None

    def take(self, most: int) -> Taken:
        """Up to *most* records for one call, in order within each key; a suspect comes alone."""
        ready = self._ready
        suspects = self.suspects()
        if self._exclusive and not self._held and not self.attempts and not suspects:
            if len(ready) <= most:
                records = list(ready)
                ready.clear()
            else:
                records = [ready.popleft() for _ in range(most)]
        else:
            own: set[Key] = set()
            records = []
            while len(records) < most and (record := self._pop(own)) is not None:
                if suspects and record.offset < self.tracker.suspect_below:
                    if not records:
                        return Taken([record], alone=True)
                    self._return(record, own)
                    break
                records.append(record)
                own.add(self.key(record))
        if records:
            self.handed = max(self.handed, records[-1].offset + 1)
        return Taken(records)

    def _pop(self, own: set[Key]) -> Record | None:
        """The next record whose key is free. *own*: the keys of those that this call has already."""
        while (record := self._next_of_free_key(own)) is not None:
            attempt = self.attempts.get(record.offset) if self.attempts else None
            if attempt is None or self.attempts is None:
                return record
            if self.key(record) in own:
                self._return(record, own)  # one before it with its key is not done yet
                return None
            del self.attempts[record.offset]
            self.handed = max(self.handed, record.offset + 1)
            self.wait(self._resume(record, attempt))
            self.finish([record])
        return None

    def _return(self, record: Record, own: set[Key]) -> None:
        """*record* was popped, and is not for this call."""
        self.put_back([record])
        if self.key(record) not in own:
            self.finish([record])

    def _next_of_free_key(self, own: set[Key]) -> Record | None:
        if self._released:
            key = self._released[0]
            held = self._held[key]
            record = held.behind.popleft()
            if not self._exclusive:
                held.in_hand = True
                self._released.popleft()
            elif not held.behind:
                del self._held[key]
                self._released.popleft()
            return record
        while self._ready:
            record = self._ready.popleft()
            key = self.key(record)
            found = self._held.get(key)
            if found is None:
                if not self._exclusive:
                    self._held[key] = _Held(in_hand=True)
                return record
            if key in own and not found.behind and found.waiting is None:
                return record
            found.behind.append(record)
        return None

    def key(self, record: Record) -> Key:
        return record.key if self._by_key else None

    # What became of it.

    def wait(self, waiting: Waiting) -> None:
        """*waiting* holds its key from now on."""
        key = self.key(waiting.record)
        held = self._held.setdefault(key, _Held())
        held.waiting = waiting
        if not held.in_hand:
            heapq.heappush(self._due, (waiting.due_at, waiting.record.offset, key))

    def waits(self, record: Record) -> bool:
        """Whether a record with its key waits: it must go behind that one."""
        held = self._held.get(self.key(record)) if self._held else None
        return held is not None and held.waiting is not None

    def put_back(self, records: Sequence[Record]) -> None:
        """They were taken and not handled: they come first of those with their keys."""
        for record in reversed(records):
            held = self._held.get(self.key(record))
            if held is None:
                self._ready.appendleft(record)
            else:
                held.behind.appendleft(record)

    def settle(self, waiting: Waiting) -> None:
        """It waits no longer: it is done."""
        key = self.key(waiting.record)
        held = self._held.get(key)
        if held is not None and held.waiting is waiting:
            held.waiting = None
            if not held.in_hand:
                self._free(key, held)

    def finish(self, records: Iterable[Record]) -> None:
        """A call is over: the keys of its *records* are free again, but for those that wait."""
        if not self._held:
            return
        for key in {self.key(record) for record in records}:
            held = self._held.get(key)
            if held is None or not held.in_hand:
                continue  # one call at a time holds no keys
            held.in_hand = False
            if held.waiting is not None:
                heapq.heappush(self._due, (held.waiting.due_at, held.waiting.record.offset, key))
            else:
                self._free(key, held)

    def _free(self, key: Key, held: _Held) -> None:
        if held.behind:
            self._released.append(key)
        else:
            del self._held[key]

    def waiting(self) -> Iterator[Waiting]:
        """All records that wait, in the order in which they began to."""
        return (held.waiting for held in self._held.values() if held.waiting is not None)
