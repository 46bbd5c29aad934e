"""What `event_log` understands."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from actors.event_log.waiters import Waiter
from backends.ports.event_log import Attempt
from backends.ports.events import NewRecord, Partition


@dataclass(frozen=True, slots=True)
class Append:
    """→ list of (partition, offset), once stored (`durable`: once fsynced)."""

    records: tuple[NewRecord, ...]
    durable: bool = False


@dataclass(frozen=True, slots=True)
class Appended:
    """Tell: somebody (the storage writer, in its own transaction) appended to *topics*; wake who waits."""

    topics: frozenset[str]


@dataclass(frozen=True, slots=True)
class Fetch:
    """→ `list[Record]`. Waits up to *max_wait* seconds for the first record, then answers with none.

    *waiter*: one's own, to end the wait early (`Waiter.end`).
    """

    positions: Mapping[Partition, int]
    limit: int
    max_wait: float = 0.0
    waiter: Waiter | None = None


@dataclass(frozen=True, slots=True)
class Positions:
    """→ `dict[Partition, int]`: where *group* goes on in *topic*: its committed offsets, the log's start
    where it never committed."""

    group: str
    topic: str


@dataclass(frozen=True, slots=True)
class Progress:
    """→ `dict[Partition, backends.ports.groups.Commit]`: as `Positions` for all *topics* together, with metadata."""

    group: str
    topics: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ends:
    """→ `dict[Partition, int]`: the next offset of each partition of *topic*."""

    topic: str


@dataclass(frozen=True, slots=True)
class Commit:
    """→ None. The next offset to read, per partition, and what is stored beside it."""

    group: str
    offsets: Mapping[Partition, int]
    metadata: Mapping[Partition, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Attempts:
    """→ `dict[int, Attempt]`: the persisted attempts of *group* in *partition*, by offset."""

    group: str
    partition: Partition


@dataclass(frozen=True, slots=True)
class SaveAttempt:
    """→ None."""

    group: str
    partition: Partition
    offset: int
    attempt: Attempt


@dataclass(frozen=True, slots=True)
class ReadRecord:
    """→ `Record | None`."""

    partition: Partition
    offset: int


@dataclass(frozen=True, slots=True)
class DropRecords:
    """→ how many of *offsets* existed and are gone now."""

    partition: Partition
    offsets: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Topics:
    """→ `list[Topic]`."""


@dataclass(frozen=True, slots=True)
class Groups:
    """→ `Mapping[str, list[str]]`: the groups that ever committed, each with its topics."""


@dataclass(frozen=True, slots=True)
class Lag:
    """→ `dict[tuple[str, str, int], int]`: records behind the end, by (group, topic, partition)."""
