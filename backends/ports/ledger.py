"""What a bus has no place for: how often a group tried a record, and which single records were dropped.

Kafka keeps neither; the database does. The embedded log keeps both itself.
"""

from collections.abc import Sequence
from typing import Protocol

from backends.ports.event_log import Attempt
from backends.ports.events import Offsets, Partition


class ConsumerLedger(Protocol):
    """Methods raise `StoreUnavailable` while the engine is away."""

    async def attempts(self, group: str, partition: Partition) -> dict[int, Attempt]:
        """The persisted attempts of *group* in one partition, by offset."""
        ...

    async def save_attempt(self, group: str, partition: Partition, offset: int, attempt: Attempt) -> None: ...

    async def forget_attempts_below(self, group: str, offsets: Offsets) -> None:
        """Those below the committed *offsets* are history."""
        ...

    async def drop(self, partition: Partition, offsets: Sequence[int]) -> int:
        """Count these records as deleted; returns how many were not so before."""
        ...

    async def dropped(self, partition: Partition, offsets: Sequence[int]) -> set[int]:
        """Which of *offsets* were dropped."""
        ...
