"""What the instances of one installation share beside the database: a second cache tier, and who is alive.

It may be slow or away at any time, and nothing depends on it: every call ends within a budget.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

Name = tuple[str, str]
"""(kind, key) of a cache entry."""


class SharedStoreAway(Exception):
    """It did not answer within the budget, or refused. `lost`: another run of it answered, or an older copy; what
    is kept there may have missed evictions. The text never holds a password."""

    def __init__(self, reason: str, *, lost: bool = False) -> None:
        super().__init__(reason)
        self.lost = lost


class Hit(NamedTuple):
    """An entry: what was filled, and for how many seconds it is good from now."""

    value: bytes
    left: float


class Lease(NamedTuple):
    """The right to fill one entry that is missing. An eviction, a new epoch and some seconds void it."""

    token: bytes


class Fill(NamedTuple):
    """`ttl`: seconds."""

    name: Name
    lease: Lease
    value: bytes
    ttl: float


class SharedCache(Protocol):
    """Entries of bytes. Methods raise `SharedStoreAway`; then, and when cancelled, it is unknown whether they took
    effect, now or (a store that hangs) much later. Each is one round trip."""

    async def read(self, names: Sequence[Name]) -> list[Hit | Lease | None]:
        """For each of *names* its entry, else a lease to fill it, else (somebody has the lease) None."""
        ...

    async def fill(self, fills: Sequence[Fill]) -> list[bool]:
        """Store each whose lease is still good, however late this takes effect; which were."""
        ...

    async def evict(self, names: Sequence[Name]) -> None:
        """Once it returns, no read gives what was filled before, and no lease laid before fills."""
        ...

    async def renew(self) -> None:
        """Begin a new epoch: as `evict`, of everything."""
        ...


class Beat(NamedTuple):
    """`instances`: how many are alive, this one included. `witnesses`: how many others have been heard of since
    this one was first."""

    instances: int
    witnesses: int


class Presence(Protocol):
    """Which instances are alive, by their heartbeats in the store."""

    async def beat(self, *, accept: bool) -> Beat:
        """Say that this instance is alive, over a connection made anew where there is none; takes up to a second.

        *accept*: whichever run of the store answers is the one to talk to from now on; without it another than
        before raises `SharedStoreAway` with `lost`, as does every other call then.
        """
        ...

    async def leave(self) -> None:
        """This instance ends. Failure is silent: heartbeats end too."""
        ...

    @property
    def place(self) -> str:
        """Where the store is, as an operator may see it: no password."""
        ...
