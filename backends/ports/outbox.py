"""Events that were committed with their entities and are on their way to the bus.

An engine whose log is another system than its database keeps them in a table; one relay among the instances drains it.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from backends.ports.events import NewRecord


class Waiting(NamedTuple):
    """`id` grows in the order of commits for one key; not over all of them."""

    id: int
    record: NewRecord


class Backlog(NamedTuple):
    """`rows` are counted up to a bound of the store; `age`: seconds since the oldest was committed, 0 for none."""

    rows: int
    age: float


class Holder(Protocol):
    """The relay's side, for the one that holds it. Methods raise `StoreUnavailable` when it is held no longer too."""

    async def take(self, limit: int) -> list[Waiting]:
        """The first by id, at most *limit*. They stay until `forget`."""
        ...

    async def forget(self, ids: Sequence[int]) -> None:
        """The bus has them."""
        ...

    async def refuse(self, id: int, error: str) -> None:
        """The bus will never take this one: put it aside for the operator."""
        ...

    async def backlog(self) -> Backlog: ...

    async def wait(self, timeout: float) -> None:
        """Return when somebody committed rows since the last `take`, or after *timeout* seconds."""
        ...


class Outbox(Protocol):
    def held(self) -> AbstractAsyncContextManager[Holder]:
        """Be the relay for the length of the block; entered when no other instance is. Raises `StoreUnavailable`.

        It is let go with the block or with the connection, however that ends.
        """
        ...
