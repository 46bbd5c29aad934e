"""The entity store on PostgreSQL: a batch of writes is one read, the decisions, and one statement that commits.

No lock is held while Weir decides. The statement locks the rows in the order of their keys, finds them as they were
read or changes nothing, and the batch is decided anew. So a process that hangs hangs nobody else.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from backends.ports import entities as port
from backends.ports.entities import Entity, Key, Refused, StoreUnavailable, Write
from backends.postgres.batch import Batch, Outgoing, Row, decide_all, keys_of, living
from backends.postgres.errors import is_conflict
from backends.postgres.outbox import Relayed
from backends.postgres.pool import Connection, Pool
from backends.postgres.text import from_id, to_id

# Another instance that writes the same entity at the same time costs one round; more in a row are a busy entity.
MOST_ROUNDS = 20

# Row by row through the primary key, whatever the planner believes about sizes (OFFSET 0 keeps it from a join).
_READ = """
SELECT e.* FROM unnest($1::text[], $2::bytea[]) AS wanted (kind, id) CROSS JOIN LATERAL (
    SELECT kind, id, version, created_at, updated_at, expires_at, body, xmin FROM entity
    WHERE kind = wanted.kind AND id = wanted.id OFFSET 0
) AS e
"""
_SCAN = (
    "SELECT kind, id, version, created_at, updated_at, expires_at, body, xmin FROM entity WHERE kind = $1 AND id > $2 "
    "AND body IS NOT NULL AND (expires_at = 0 OR expires_at > $3) ORDER BY id LIMIT $4"
)
_PURGE = (
    "DELETE FROM entity WHERE (kind, id) IN (SELECT kind, id FROM entity "
    "WHERE expires_at > 0 AND expires_at <= $1 ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED)"
)
_COMMIT = "SELECT commit_batch($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)"


class EntityStore(port.EntityStore):
    """Cheap to make, one an actor; what it needs is open while the pool is.

    Args:
        relayed: is told of commits that left rows in the outbox.
        now: Unix seconds, for expiry and the time of events.
        on_query: called with "transact", "read" or "scan" once a call.
    """

    def __init__(
        self,
        pool: Pool,
        relayed: Relayed,
        *,
        now: Callable[[], float] = time.time,
        on_query: Callable[[str], None] | None = None,
    ) -> None:
        self._pool = pool
        self._relayed = relayed
        self._now = now
        self._on_query = on_query or _count_nothing

    async def open(self) -> None:
        """Nothing: the pool is opened by the engine."""

    async def aclose(self) -> None:
        """Nothing."""

    async def transact(self, writes: Sequence[Write]) -> list[Any | Refused | Exception]:
        self._on_query("transact")

        async def commit(connection: Connection) -> Batch:
            return await self._commit(connection, writes)

        batch = await self._pool.call(commit)
        if batch.outgoing:
            self._relayed.committed()
        return batch.outcomes

    async def read(self, keys: Sequence[Key]) -> list[Entity | None]:
        wanted = list(dict.fromkeys(keys))
        rows: dict[Key, Row] = {}
        if wanted:
            self._on_query("read")
            rows = _rows(await self._pool.fetch(_READ, *_arrays(wanted)))
        now = self._now()
        return [living(key, rows.get(key), now) for key in keys]

    async def scan(self, kind: str, after: str, limit: int) -> list[Entity]:
        self._on_query("scan")
        now = self._now()
        rows = _rows(await self._pool.fetch(_SCAN, kind, to_id(after), now, max(limit, 0)))
        found = (living(key, row, now) for key, row in rows.items())
        return [entity for entity in found if entity is not None]

    async def purge_expired(self, now: float, limit: int) -> int:
        return await self._pool.execute(_PURGE, now, limit)

    # Within asyncio.

    async def _commit(self, connection: Connection, writes: Sequence[Write]) -> Batch:
        keys = keys_of(writes)
        now = self._now()
        for _ in range(MOST_ROUNDS):
            rows = _rows(await connection.fetch(_READ, *_arrays(sorted(keys)))) if keys else {}
            batch = decide_all(writes, rows, keys, now)
            if batch.missing:
                keys |= batch.missing
                continue
            if not batch.changes and not batch.outgoing:
                return batch
            try:
                await connection.execute(_COMMIT, *self._parameters(batch, rows, now))
            except Exception as error:
                if not is_conflict(error):
                    raise
            else:
                return batch
        raise StoreUnavailable(f"others wrote the same entities, {MOST_ROUNDS} times in a row")

    def _parameters(self, batch: Batch, rows: dict[Key, Row], now: float) -> list[Any]:
        ordered = sorted((key.kind, to_id(key.id), key) for key in batch.read)
        before = [rows.get(key) for _, _, key in ordered]
        after = [batch.changes.get(key) for _, _, key in ordered]
        stored = [row or _UNCHANGED for row in after]
        return [
            [kind for kind, _, _ in ordered],
            [id for _, id, _ in ordered],
            [None if row is None else row.seen for row in before],
            [row is not None for row in after],
            [row.version for row in stored],
            [row.created_at for row in stored],
            [row.updated_at for row in stored],
            [row.expires_at for row in stored],
            [row.body for row in stored],
            now,
            *([row[column] for row in batch.outgoing] for column in range(len(Outgoing._fields))),
            not self._relayed.here,
        ]


_UNCHANGED = Row(0, 0.0, 0.0, 0.0, None)


def _arrays(keys: Iterable[Key]) -> tuple[list[str], list[bytes]]:
    listed = list(keys)
    return [key.kind for key in listed], [to_id(key.id) for key in listed]


def _rows(records: Iterable[Any]) -> dict[Key, Row]:
    return {Key(record[0], from_id(record[1])): Row(*record[2:]) for record in map(tuple, records)}


def _count_nothing(operation: str) -> None:
    """The default of `on_query`."""
