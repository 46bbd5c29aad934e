"""A topic that every instance reads for itself: no group, no commits, from the end."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from backends.ports.entities import StoreUnavailable
from backends.ports.events import Partition, Record


class Unheard(StoreUnavailable):
    """Something may have been said that was not heard, and for as long as this is raised, more may be: whoever
    depends on hearing everything starts afresh."""


class Broadcast(Protocol):
    """Used by one listener at a time. Methods raise `StoreUnavailable`, or `Unheard` of it."""

    async def begin(self) -> Mapping[Partition, int]:
        """Stand at the end of every partition: what is published from now on will be read. Returns the offset of
        the next record, by partition. Called again after an error."""
        ...

    async def read(self, limit: int, max_wait: float) -> Sequence[Record]:
        """Up to *limit* records in offset order within each partition; [] after *max_wait* seconds without any.
        Cancelled: begin again."""
        ...
