"""Which calls of the handler to make now, over all partitions of a consumer, and when to pause which. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from actors.consumers.handler import ConsumerOptions
from actors.consumers.partitions import Lane, Waiting
from actors.consumers.tracker import Epoch
from backends.ports.events import Partition, Record


@dataclass(slots=True)
class Part:
    """What a call has of one partition. `epoch`: of the partition when it was taken."""

    lane: Lane
    records: list[Record]
    epoch: Epoch

    @property
    def stale(self) -> bool:
        """Whether the partition was given up or rewound since: nothing of it counts any more."""
        return self.lane.tracker.epoch != self.epoch


@dataclass(slots=True, eq=False)
class Call:
    """Work for one task. `waiting`: the one record was due, for another attempt or for its burial.
    `alone`: the one record may have been in hand when a process ended."""

    parts: list[Part]
    waiting: Waiting | None = None
    alone: bool = False

    @property
    def size(self) -> int:
        return sum(len(part.records) for part in self.parts)


@dataclass(slots=True)
class Pauses:
    pause: list[Partition] = field(default_factory=list)
    resume: list[Partition] = field(default_factory=list)


class Dispatcher:
    """The lanes of a consumer, and how many calls are running."""

    def __init__(self, options: ConsumerOptions) -> None:
        self.lanes: dict[Partition, Lane] = {}
        self.running = 0
        self._options = options
        self._in_partition = options.partition_concurrency or options.concurrency
        self._alone = False
        self._turn = 0
        # Handlers that take what there is want one batch ahead; the others a stock of records.
        whole = options.batch >= options.fetch
        self._low = 1 if whole else max(options.fetch // 2, options.concurrency * options.batch)

    @property
    def exclusive(self) -> bool:
        """One call at a time."""
        return self._options.concurrency == 1

    # Calls.

    def take(self, now: float) -> list[Call]:
        """The calls to make now; each counts as running until `finished`. *now*: Unix seconds."""
        lanes = [lane for lane in self.lanes.values() if lane.open]
        if not lanes or not self._slots():
            return []
        self._turn = (self._turn + 1) % len(lanes)  # another partition comes first each time
        lanes = lanes[self._turn :] + lanes[: self._turn]
        calls = list(self._take_due(lanes, now))
        if self.exclusive:
            calls += self._take_together(lanes)
        else:
            calls += self._take_apart(lanes)
        return calls

    def _take_due(self, lanes: list[Lane], now: float) -> Iterator[Call]:
        for lane in lanes:
            while self._slots(lane) and (waiting := lane.take_due(now)) is not None:
                yield self._start(Call([self._part(lane, [waiting.record])], waiting=waiting))

    def _take_together(self, lanes: list[Lane]) -> Iterator[Call]:
        """One call with records of all partitions; a suspect comes by itself."""
        if not self._slots():
            return
        parts: list[Part] = []
        room = self._options.batch
        for lane in lanes:
            if not lane.ready() or (parts and lane.suspects()):
                continue
            records, alone = lane.take(room)
            if records:
                parts.append(self._part(lane, records))
                room -= len(records)
            if alone:
                yield self._start(Call(parts, alone=True))
                return
            if not room:
                break
        if parts:
            yield self._start(Call(parts))

    def _take_apart(self, lanes: list[Lane]) -> Iterator[Call]:
        """Calls with records of one partition each, in turns."""
        hungry = [lane for lane in lanes if lane.ready()]
        while hungry:
            still: list[Lane] = []
            for lane in hungry:
                if not self._slots(lane) or (self._alone and lane.suspects()):
                    continue
                records, alone = lane.take(self._options.batch)
                if records:
                    yield self._start(Call([self._part(lane, records)], alone=alone))
                    if lane.ready():
                        still.append(lane)
            hungry = still

    def _slots(self, lane: Lane | None = None) -> bool:
        if self.running >= self._options.concurrency:
            return False
        return lane is None or lane.calls < self._in_partition

    def _start(self, call: Call) -> Call:
        self.running += 1
        self._alone = self._alone or call.alone
        for part in call.parts:
            part.lane.calls += 1
        return call

    def _part(self, lane: Lane, records: list[Record]) -> Part:
        return Part(lane, records, lane.tracker.epoch)

    def finished(self, call: Call) -> None:
        """*call* is over; what became of its records was said to their lanes before."""
        self.running -= 1
        if call.alone:
            self._alone = False
        for part in call.parts:
            part.lane.calls -= 1
            part.lane.finish(part.records)

    # More records.

    def hungry(self) -> bool:
        """Whether to ask the log for more now: there is nothing to do, or soon will be."""
        if not self.running:
            return True
        return sum(lane.ready() for lane in self.lanes.values()) < self._low

    def in_flight(self) -> int:
        """Records taken and not finished: in hand, ready, or waiting."""
        return sum(lane.tracker.unfinished for lane in self.lanes.values())

    def room(self) -> int:
        """How many records to ask for; what is asked for with every partition paused brings none."""
        return max(1, min(self._options.fetch, self._options.buffer_total - self.in_flight()))

    def pauses(self) -> Pauses:
        """Which partitions to pause and to resume. They resume at half, since each pause may cost a fetch."""
        options, changes = self._options, Pauses()
        total = self.in_flight()
        for partition, lane in self.lanes.items():
            held = lane.tracker.unfinished
            if not lane.paused:
                lane.paused = held >= options.buffer or total >= options.buffer_total or lane.tracker.crowded()
                if lane.paused:
                    changes.pause.append(partition)
            elif held <= options.buffer // 2 and total <= options.buffer_total // 2 and not lane.tracker.crowded():
                lane.paused = False
                changes.resume.append(partition)
        return changes

    def next_due(self) -> float | None:
        """When the first waiting record is due, Unix seconds; None when none can be taken up."""
        dues = (lane.next_due() for lane in self.lanes.values() if lane.open)
        return min((due for due in dues if due is not None), default=None)
