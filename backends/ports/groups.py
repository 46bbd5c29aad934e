"""A member of a consumer group: which partitions are its own, and for how long.

The embedded log gives a member all partitions for ever; Kafka takes them away and gives them back. What a
consumer must know to be right on both is here and nothing more.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple, Protocol

from backends.ports.events import Partition, Record


class Start(NamedTuple):
    """Where a member goes on in a partition it was given.

    `offset`: the committed one, else the log's start. `epoch` grows with each assignment of the partition to this
    member: work of an earlier epoch is stale. `metadata`: what was committed beside the offset, "" for nothing.
    """

    offset: int
    epoch: int
    metadata: str = ""


class Commit(NamedTuple):
    """`offset` is the next one to read; `metadata` at most 4096 bytes (Kafka's limit)."""

    offset: int
    metadata: str = ""


class Assignee(Protocol):
    """The consumer, as a member calls it back. Calls never overlap, and none overlaps a `poll` that returns."""

    async def assigned(self, starts: Mapping[Partition, Start]) -> None: ...

    async def revoked(self, partitions: Collection[Partition]) -> None:
        """They are still this member's until it returns: drain, commit, then forget them. The member gives it a
        budget (below the group's rebalance timeout) and goes on without it afterwards."""
        ...

    async def lost(self, partitions: Collection[Partition]) -> None:
        """They are somebody else's already: forget them, commit nothing."""
        ...


class GroupMember(Protocol):
    """Used by one consumer. Methods raise `StoreUnavailable` while the engine is away.

    `poll` must be called again within the group's poll interval, also when every partition is paused: it is
    what keeps the member in its group. It may be cancelled; records that were not returned are returned later.
    """

    async def join(self, assignee: Assignee) -> None:
        """Become a member; assignments come through *assignee*, from now on and within `poll`."""
        ...

    async def poll(self, limit: int, max_wait: float) -> list[Record]:
        """Up to *limit* records of the assigned partitions that are not paused, in offset order within each; []
        after *max_wait* seconds without any, or earlier when `wake` was called or the assignment changed."""
        ...

    def wake(self) -> None:
        """Let the `poll` under way (or the next one) return at once."""
        ...

    def pause(self, partitions: Collection[Partition]) -> None: ...

    def resume(self, partitions: Collection[Partition]) -> None: ...

    def seek(self, partition: Partition, offset: int) -> None:
        """The next record of *partition* that `poll` returns is the first at or above *offset*."""
        ...

    async def commit(self, commits: Mapping[Partition, Commit]) -> None:
        """Store them; those of partitions that are no longer this member's are left out."""
        ...

    async def leave(self) -> None:
        """Leave the group without draining: the consumer has drained and committed before."""
        ...
