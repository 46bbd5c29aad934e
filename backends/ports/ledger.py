"""What a log like Kafka's has no place for: the attempts of consumers, and single records that were dropped.

Kept by the database beside it. `EventLog` puts both together, so its users need not know.
"""

from collections.abc import Sequence
from typing import Protocol

from backends.ports.event_log import Attempt
from backends.ports.events import Offsets, Partition


class ConsumerLedger(Protocol):
    """Methods raise `StoreUnavailable` (of `entities`) while the engine is away."""

    async def attempts(self, group: str, partition: Partition) -> dict[int, Attempt]:
        """The persisted attempts of *group* in one partition, by offset."""
        ...

    async def save_attempt(self, group: str, partition: Partition, offset: int, attempt: Attempt) -> None: ...

    async def forget_attempts_below(self, group: str, offsets: Offsets) -> None:
        """Forget the attempts of *group* on records before *offsets*."""
        ...

    async def drop(self, partition: Partition, offsets: Sequence[int]) -> int:
        """Remember that these records are gone; returns how many were not gone before."""
        ...

    async def dropped(self, partition: Partition, offsets: Sequence[int]) -> set[int]:
        """Which of *offsets* are gone."""
        ...
