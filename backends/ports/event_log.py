"""The event log: topics, partitions by key, consumer groups, committed offsets, persisted attempts.

Kafka's words with Kafka's meanings; the embedded log and the Kafka adapter both implement this.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol

import msgspec

from backends.ports.events import NewRecord, Offsets, Partition, Record
from backends.ports.groups import Commit

NO_METADATA: Mapping[Partition, str] = MappingProxyType({})


class Topic(NamedTuple):
    """A topic's declaration. `retention_s` None keeps records for ever (dead letters)."""

    name: str
    partitions: int
    retention_s: float | None


class Attempt(msgspec.Struct, frozen=True):
    """How often a group tried one record. Persisted, so that a restart does not start counting anew.

    `due_at`, `first_at` and `last_at` are Unix seconds.
    """

    attempts: int
    due_at: float
    first_at: float
    last_at: float
    error: str


class EventLog(Protocol):
    """Methods raise `StoreUnavailable` (of `entities`) while the engine is away.

    What an engine without transactions over partitions (Kafka) promises less: an append that fails with
    `StoreUnavailable` may be there in part, or wholly, and is told again; one that fails with ValueError is not
    there at all. A commit is for groups without members, who commit for themselves. A record that was dropped is
    gone from `fetch` and `read`, and from the engine when its retention ends. It also deletes by itself: `purge`
    has nothing to do, and retention does not wait for a group that is behind.
    """

    async def open(self) -> None: ...
    async def aclose(self) -> None: ...

    async def ensure_topics(self, topics: Sequence[Topic]) -> None:
        """Create what is missing. A topic that exists keeps its partitions; its retention is updated."""
        ...

    async def topics(self) -> list[Topic]: ...

    async def append(self, records: Sequence[NewRecord], *, durable: bool) -> list[tuple[int, int]]:
        """Append in order, all or nothing; returns (partition, offset) of each.

        A topic that does not exist is created with one partition and no expiry. With *durable* it
        returns after an fsync; without, a power failure (not a kill) may lose the last of them.
        """
        ...

    async def fetch(self, positions: Offsets, limit: int) -> list[Record]:
        """Up to *limit* records from *positions* on, in offset order within each partition.

        No partition may starve another: a full one leaves room for the rest over successive calls.
        An offset below the log's start reads from the start.
        """
        ...

    async def end_offsets(self, topic: str) -> dict[Partition, int]:
        """The next offset of each partition of *topic*; {} for an unknown topic."""
        ...

    async def start_offsets(self, topic: str) -> dict[Partition, int]: ...

    async def committed(self, group: str, topic: str) -> dict[Partition, int]:
        """The group's committed offsets; a partition it never committed is left out."""
        ...

    async def progress(self, group: str, topic: str) -> dict[Partition, Commit]:
        """As `committed`, each with the metadata that was committed beside it."""
        ...

    async def commit(self, group: str, offsets: Offsets, metadata: Mapping[Partition, str] = NO_METADATA) -> None:
        """Store *offsets*, each with its *metadata* ("" where there is none), and forget the attempts of *group*
        below them."""
        ...

    async def attempts(self, group: str, partition: Partition) -> dict[int, Attempt]:
        """The persisted attempts of *group* in one partition, by offset."""
        ...

    async def save_attempt(self, group: str, partition: Partition, offset: int, attempt: Attempt) -> None: ...

    async def read(self, partition: Partition, offset: int) -> Record | None:
        """One record, or None when it expired, was dropped or never existed."""
        ...

    async def drop(self, partition: Partition, offsets: Sequence[int]) -> int:
        """Delete single records (dead letters that were dropped or replayed); returns how many there were."""
        ...

    async def groups(self) -> Mapping[str, list[str]]:
        """The consumer groups that ever committed, each with its topics."""
        ...

    async def purge(self, now: float, limit: int) -> int:
        """Delete up to *limit* records beyond their topic's retention; returns how many."""
        ...
