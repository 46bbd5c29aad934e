"""The entity store: what the services read and write, in one transaction with the events it causes.

A write is a *pure* decision over the entities it names: the store reads them under the transaction's
lock, calls `decide`, applies what comes back and appends the events, all or nothing. The same write
therefore runs on SQLite and on PostgreSQL, and may run again when a transaction is retried.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from backends.ports.events import Event


class Key(NamedTuple):
    """An entity's name: its kind (`user`, `configuration`, `webhook`, `client`, `token`, `idempotency`) and id."""

    kind: str
    id: str


class Entity(msgspec.Struct, frozen=True, gc=False):
    """One stored entity. `body` is the JSON document as clients see it (or a private one for secrets).

    `version` counts from 1 and never goes back, not even over a delete: a removal takes a version as well.
    Only the versions of an entity that expired are forgotten, once it is purged. Times are Unix seconds;
    `expires_at` 0 means never, else reads return the entity as absent from then on.
    """

    kind: str
    id: str
    version: int
    created_at: float
    updated_at: float
    body: bytes
    expires_at: float = 0.0

    @property
    def key(self) -> Key:
        return Key(self.kind, self.id)


class Decision(NamedTuple):
    """What a write does: entities to put, keys to remove, events to publish, the value that answers it."""

    answer: Any
    put: tuple[Entity, ...] = ()
    remove: tuple[Key, ...] = ()
    events: tuple[Event, ...] = ()


class Refused(Exception):
    """Raised by `decide`: nothing is written, and the caller gets `error` (a domain value)."""

    def __init__(self, error: object) -> None:
        super().__init__(error)
        self.error = error


class Write(msgspec.Struct, frozen=True):
    """One request's write. `decide` gets the entities of `keys` in that order, None where absent.

    It must be pure and may raise `Refused`. It also learns, as second argument, the version that the
    removal of each absent key took (the removed entity's version + 1; 0: never existed), so that versions
    never go back: create with one more. A put below the stored version fails with ValueError.
    """

    keys: tuple[Key, ...]
    decide: Callable[[Sequence[Entity | None], Sequence[int]], Decision]


class EntityStore(Protocol):
    """Storage of entities. One writer uses `transact`, any number of readers the rest.

    Methods raise `StoreUnavailable` while the engine is away. Cancelling `transact` leaves it unknown
    whether the batch was committed; the batch is atomic per write either way.
    """

    async def open(self) -> None: ...
    async def aclose(self) -> None: ...

    async def transact(self, writes: Sequence[Write]) -> list[Any | Refused | Exception]:
        """Apply *writes* in order in one transaction, each in a savepoint, and return when it is durable.

        Returns one item a write: its decision's answer, the `Refused` it raised, or the exception of a
        `decide` that failed (its savepoint alone is rolled back).
        """
        ...

    async def read(self, keys: Sequence[Key]) -> list[Entity | None]:
        """Read many entities with one query, in the order of *keys*."""
        ...

    async def scan(self, kind: str, after: str, limit: int) -> list[Entity]:
        """The entities of *kind* with ids above *after* ("" = from the start), by id, at most *limit*."""
        ...

    async def purge_expired(self, now: float, limit: int) -> int:
        """Remove up to *limit* entities that expired before *now* (Unix seconds); return how many."""
        ...


class StoreUnavailable(Exception):
    """The engine is away or refused the work for now; trying again later may help."""
