"""Where a consumer stands in each of its partitions, and which of the fetched records it may hand over.

Pure state: no clock, no log. A partition is worked off in order; a record that failed blocks its own
partition alone, and nothing after it is kept in memory: it is fetched again later. So the position of a
partition is always its lowest unfinished offset, which is what is committed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from actors.consumers.failure import Failure
from backends.ports.cloudevents import Undecodable, from_record
from backends.ports.event_log import Attempt
from backends.ports.events import Event, Partition, Record


class Delivered(NamedTuple):
    """A record and the event in it."""

    record: Record
    event: Event


@dataclass(slots=True)
class Blocked:
    """The record that a partition waits for, until `due_at` (Unix seconds).

    `failure` None: it is to be tried again. Else it was given up and is to be stored as a dead letter;
    `burials` counts how often that failed.
    """

    record: Record
    attempt: Attempt
    due_at: float
    failure: Failure | None = None
    burials: int = 0


@dataclass(slots=True)
class PartitionState:
    """`position` is the next offset to work on, `committed` the last position that the log has stored.

    `attempts` are those persisted by an earlier life, by offset, for records not met again yet.
    """

    position: int
    committed: int
    attempts: dict[int, Attempt] = field(default_factory=dict)
    blocked: Blocked | None = None

    def done(self, offset: int) -> None:
        """The record at *offset* is finished, and so is everything before it."""
        self.position = offset + 1
        self.blocked = None
        self.attempts.pop(offset, None)


class Stop(NamedTuple):
    """The record at which a partition's part of a batch ends: it must be handled by itself.

    Either an earlier life tried it (`attempt`), or it cannot be decoded (`error`).
    """

    record: Record
    attempt: Attempt | None = None
    error: Undecodable | None = None


class Plan(NamedTuple):
    batch: list[Delivered]
    stops: dict[Partition, Stop]


def plan(records: Sequence[Record], states: Mapping[Partition, PartitionState]) -> Plan:
    """Split what was fetched: what goes to the sink at once, and where each partition stops.

    Records of blocked and of unknown partitions, of offsets already finished and after a stop are left out.
    """
    batch: list[Delivered] = []
    stops: dict[Partition, Stop] = {}
    for record in records:
        partition = (record.topic, record.partition)
        state = states.get(partition)
        if state is None or state.blocked or partition in stops or record.offset < state.position:
            continue
        attempt = state.attempts.get(record.offset)
        if attempt is not None:
            stops[partition] = Stop(record, attempt)
            continue
        try:
            batch.append(Delivered(record, from_record(record)))
        except Undecodable as error:
            stops[partition] = Stop(record, error=error)
    return Plan(batch, stops)


def earliest_due(states: Mapping[Partition, PartitionState]) -> float | None:
    """When the first blocked record is due, Unix seconds; None when nothing is blocked."""
    return min((state.blocked.due_at for state in states.values() if state.blocked), default=None)


def fetchable(states: Mapping[Partition, PartitionState]) -> dict[Partition, int]:
    """The positions to fetch from: those of the partitions that wait for no record."""
    return {partition: state.position for partition, state in states.items() if state.blocked is None}


def committable(states: Mapping[Partition, PartitionState]) -> dict[Partition, int]:
    """The positions that the log does not have yet."""
    return {partition: state.position for partition, state in states.items() if state.position != state.committed}
