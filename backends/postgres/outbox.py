"""The outbox table, drained by one relay among all instances: who holds a session's advisory lock.

The lock goes with the connection, so a relay that is killed is replaced as soon as the server notices.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from backends.ports import outbox as port
from backends.ports.outbox import Backlog, Waiting
from backends.postgres.batch import Outgoing, restored
from backends.postgres.pool import Pool, Session
from backends.postgres.text import to_text

RELAY_LOCK = 0x77656972_0002
CHANNEL = "weir_outbox"
COUNTED_AT_MOST = 100_000

_TAKE = "SELECT id, topic, partition, key, value, headers FROM outbox ORDER BY id LIMIT $1"
_FORGET = "DELETE FROM outbox WHERE id = ANY($1::bigint[])"
_REFUSE = """
WITH refused AS (DELETE FROM outbox WHERE id = $1 RETURNING id, at, topic, partition, key, value, headers)
INSERT INTO outbox_refused SELECT *, $2 FROM refused
"""
_BACKLOG = (
    "SELECT (SELECT count(*) FROM (SELECT 1 FROM outbox LIMIT $1) AS counted), "
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
    """Args: *patience*: seconds between two looks whether the other instance has let go."""

    def __init__(self, pool: Pool, relayed: Relayed, *, patience: float = 0.2) -> None:
        self._pool = pool
        self._relayed = relayed
        self._patience = patience

    @asynccontextmanager
    async def held(self) -> AsyncIterator[port.Holder]:
        async with self._pool.session() as session:
            while not await session.fetchval("SELECT pg_try_advisory_lock($1)", RELAY_LOCK):  # noqa: ASYNC110
                await trio.sleep(self._patience)
            await session.listen(CHANNEL, self._relayed.committed)
            self._relayed.here = True
            try:
                yield _Holder(session, self._relayed)
            finally:
                self._relayed.here = False


class _Holder(port.Holder):
    def __init__(self, session: Session, relayed: Relayed) -> None:
        self._session = session
        self._relayed = relayed

    async def take(self, limit: int) -> list[Waiting]:
        self._relayed.looked()
        rows = await self._session.fetch(_TAKE, limit)
        return [Waiting(row[0], restored(Outgoing(*row[1:]))) for row in map(tuple, rows)]

    async def forget(self, ids: Sequence[int]) -> None:
        await self._session.fetch(_FORGET, list(ids))

    async def refuse(self, id: int, error: str) -> None:
        await self._session.fetch(_REFUSE, id, to_text(error))

    async def backlog(self) -> Backlog:
        rows, age = (await self._session.fetch(_BACKLOG, COUNTED_AT_MOST))[0]
        return Backlog(rows, max(0.0, age or 0.0))

    async def wait(self, timeout: float) -> None:
        with trio.move_on_after(timeout):
            await self._relayed.wait()
