"""A bounded first-in-first-out queue of records that outlives its process."""

from collections.abc import Sequence
from typing import Protocol

from backends.ports.events import NewRecord


class Spool(Protocol):
    """Used by one publisher. Delivered at least once: what was forgotten last may come again after a kill -9."""

    @property
    def size(self) -> int:
        """Bytes of the records that are in it, as they are stored."""
        ...

    @property
    def events(self) -> int: ...

    def age(self) -> float:
        """Seconds since the oldest record was written; 0.0 when empty."""
        ...

    def write(self, records: Sequence[NewRecord]) -> bool:
        """Append all of them, or none and return False when there is no room. They survive the process from now
        on, and the machine from the next `sync` on."""
        ...

    def head(self, limit: int) -> Sequence[NewRecord]:
        """The oldest records, about *limit* (whole writes, at least one); they stay until `forget`."""
        ...

    def forget(self) -> None:
        """The records that `head` returned last are delivered."""
        ...

    async def sync(self) -> None:
        """fsync what was written since the last one."""
        ...
