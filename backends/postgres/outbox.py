"""The outbox table, drained by one relay among all instances: who holds a session's advisory lock.

The lock goes with the connection, so a relay that is killed is replaced as soon as the server notices.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import trio

from backends.asyncio_bridge import crossing
from backends.ports import outbox as port
from backends.ports.entities import StoreUnavailable
from backends.ports.outbox import Backlog, Waiting
from backends.postgres.batch import Outgoing, restored
from backends.postgres.errors import unavailable
from backends.postgres.pool import Connection, Pool

T = TypeVar("T")

RELAY_LOCK = 0x77656972_0002
CHANNEL = "weir_outbox"
COUNTED_AT_MOST = 100_000

_TAKE = "SELECT id, topic, partition, key, value, headers FROM outbox ORDER BY id LIMIT $1"
_FORGET = "DELETE FROM outbox WHERE id = ANY($1::bigint[])"
_BACKLOG = (
    "SELECT (SELECT count(*) FROM (SELECT 1 FROM outbox LIMIT $1) AS some), "
    "(SELECT extract(epoch FROM clock_timestamp())::float8 - at FROM outbox ORDER BY id LIMIT 1)"
)


class Relayed:
    """Between the writer and the relay of one process: `here` while this process is the relay."""

    def __init__(self) -> None:
        self.here = False
        self._news = trio.Event()

    def committed(self) -> None:
        """There are new rows, or there may be."""
        self._news.set()

    async def wait(self) -> None:
        await self._news.wait()

    def looked(self) -> None:
        """From here on `wait` waits for what is committed later. To be called before a look, not after it."""
        self._news = trio.Event()


class Outbox(port.Outbox):
    """Args: *budget*: seconds for one statement of the relay."""

    def __init__(self, pool: Pool, relayed: Relayed, *, budget: float = 5.0) -> None:
        self._pool = pool
        self._relayed = relayed
        self._budget = budget

    @asynccontextmanager
    async def held(self) -> AsyncIterator[port.Holder | None]:
        connection: Connection = await self._guarded(self._pool.connect)
        try:
            if not await self._guarded(connection.fetchval, "SELECT pg_try_advisory_lock($1)", RELAY_LOCK):
                yield None
                return
            await self._guarded(connection.add_listener, CHANNEL, self._heard)
            connection.add_termination_listener(self._ended)
            self._relayed.here = True
            yield _Holder(connection, self._relayed, self._guarded)
        finally:
            self._relayed.here = False
            # Not closed politely: that waits for the server, and the lock is to be free now.
            connection.terminate()

    def _heard(self, *_: object) -> None:
        self._relayed.committed()

    def _ended(self, _: object) -> None:
        """The connection is gone: let the holder find out at once and not after its next wait."""
        self._relayed.committed()

    async def _guarded(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """asyncio's `function(*args)` within the budget. Raises `StoreUnavailable` for the engine's trouble."""
        with trio.move_on_after(self._budget):
            try:
                return await crossing(function, *args)
            except Exception as error:
                away = unavailable(self._pool.place, error)
                raise (away or error) from error
        raise StoreUnavailable(f"PostgreSQL ({self._pool.place}): no answer within {self._budget:g} s")


class _Holder(port.Holder):
    def __init__(self, connection: Connection, relayed: Relayed, guarded: Callable[..., Awaitable[Any]]) -> None:
        self._connection = connection
        self._relayed = relayed
        self._guarded = guarded

    async def take(self, limit: int) -> list[Waiting]:
        self._relayed.looked()
        rows = await self._guarded(self._connection.fetch, _TAKE, limit)
        return [Waiting(row[0], restored(Outgoing(*row[1:]))) for row in map(tuple, rows)]

    async def forget(self, ids: Sequence[int]) -> None:
        await self._guarded(self._connection.execute, _FORGET, list(ids))

    async def backlog(self) -> Backlog:
        row = await self._guarded(self._connection.fetchrow, _BACKLOG, COUNTED_AT_MOST)
        return Backlog(row[0], max(0.0, row[1] or 0.0))

    async def wait(self, timeout: float) -> None:
        with trio.move_on_after(timeout):
            await self._relayed.wait()
