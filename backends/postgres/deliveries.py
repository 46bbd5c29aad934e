"""The deliveries under way, on PostgreSQL: worked off by any number of instances, each row by one at a time.

What an instance is given is claimed for a while, and the others leave the row and its endpoint alone meanwhile. An
instance that dies lets go when its claims run out, and another makes the attempt again under the same id.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from backends.ports import stores as port
from backends.ports.stores import Delivery
from backends.postgres.pool import Pool
from backends.postgres.text import from_text, to_text

# Longer than any attempt takes, so that no attempt is made twice while its first is under way.
CLAIM_S = 90.0

_COLUMNS = (
    "id, channel, endpoint, event_id, event_type, source, payload, state, attempts, due_at, first_at, last_at, error"
)
_ADD = f"""
INSERT INTO delivery ({_COLUMNS}) SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[],
    $6::text[], $7::bytea[], $8::text[], $9::integer[], $10::float8[], $11::float8[], $12::float8[], $13::text[])
ON CONFLICT (id) DO NOTHING
"""  # noqa: S608 - constants
_SAVE = (
    "UPDATE delivery SET state = $2, attempts = $3, due_at = $4, first_at = $5, last_at = $6, error = $7, "
    "claimed_by = '', claimed_until = 0 WHERE id = $1"
)
_GET = f"SELECT {_COLUMNS} FROM delivery WHERE id = $1"  # noqa: S608
# Hops from one endpoint to the next through the index, so that an endpoint that is away and has a hundred thousand
# deliveries waiting costs no more than one with a single delivery.
_ENDPOINTS = """
WITH RECURSIVE endpoints (endpoint) AS (
    (SELECT endpoint FROM delivery WHERE state = 'pending' ORDER BY endpoint LIMIT 1)
    UNION ALL
    SELECT (SELECT endpoint FROM delivery WHERE state = 'pending' AND endpoint > endpoints.endpoint
            ORDER BY endpoint LIMIT 1)
    FROM endpoints WHERE endpoints.endpoint IS NOT NULL
)"""
_DUE = f"""{_ENDPOINTS}, free AS (
    SELECT endpoint FROM endpoints WHERE endpoint IS NOT NULL AND endpoint <> ALL($3::text[]) AND NOT EXISTS (
        SELECT 1 FROM delivery c WHERE c.state = 'pending' AND c.claimed_by <> '' AND c.endpoint = endpoints.endpoint
            AND c.claimed_by <> $4 AND c.claimed_until > $1)
), chosen AS (
    SELECT oldest.id FROM free CROSS JOIN LATERAL (
        SELECT id, due_at FROM delivery WHERE state = 'pending' AND endpoint = free.endpoint AND due_at <= $1
        ORDER BY due_at, id LIMIT 1
    ) AS oldest ORDER BY oldest.due_at, oldest.id LIMIT $2
), locked AS MATERIALIZED (
    SELECT id FROM delivery WHERE id IN (SELECT id FROM chosen) AND state = 'pending' FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE delivery SET claimed_by = $4, claimed_until = $1 + $5
    WHERE id IN (SELECT id FROM locked)
        AND (claimed_by IN ('', $4) OR claimed_until <= $1)
    RETURNING {_COLUMNS}
)
SELECT {_COLUMNS} FROM claimed ORDER BY due_at, id
"""  # noqa: S608
_NEXT_DUE = f"""{_ENDPOINTS}
SELECT min(next.due) FROM endpoints CROSS JOIN LATERAL (
    SELECT greatest(
        (SELECT due_at FROM delivery WHERE state = 'pending' AND endpoint = endpoints.endpoint
         ORDER BY due_at, id LIMIT 1),
        (SELECT max(claimed_until) FROM delivery c WHERE c.state = 'pending' AND c.claimed_by <> ''
            AND c.endpoint = endpoints.endpoint AND c.claimed_by <> $2)
    ) AS due
) AS next WHERE endpoints.endpoint IS NOT NULL AND endpoints.endpoint <> ALL($1::text[])
"""  # noqa: S608
_RESET = (
    "UPDATE delivery SET state = 'pending', attempts = 0, due_at = $2, first_at = 0, last_at = 0, error = '' "
    "WHERE id = $1 AND state = 'dead'"
)
_PURGE = (
    "DELETE FROM delivery WHERE id IN (SELECT id FROM delivery WHERE state = 'done' AND last_at < $1 "
    "ORDER BY last_at LIMIT $2 FOR UPDATE SKIP LOCKED)"
)


class DeliveryStore(port.DeliveryStore):
    """Args: *owner*: this instance's name, another one after each start."""

    def __init__(self, pool: Pool, owner: str) -> None:
        self._pool = pool
        self._owner = owner

    async def open(self) -> None:
        """Nothing: the pool is opened by the engine."""

    async def aclose(self) -> None:
        """Nothing."""

    async def add(self, deliveries: Sequence[Delivery]) -> int:
        rows = [_row(delivery) for delivery in deliveries]
        columns = [[row[n] for row in rows] for n in range(len(Delivery.__struct_fields__))]
        return await self._pool.execute(_ADD, *columns)

    async def due(self, now: float, limit: int, exclude: Sequence[str]) -> list[Delivery]:
        async def claim(connection: Any) -> list[Any]:
            rows: list[Any] = await connection.fetch(
                _DUE, now, max(limit, 0), list(map(to_text, exclude)), self._owner, CLAIM_S
            )
            return rows

        return [_delivery(row) for row in await self._pool.call(claim)]

    async def next_due(self, exclude: Sequence[str]) -> float | None:
        """An endpoint that another instance works for is due when that one's claim has run out."""
        rows = await self._pool.fetch(_NEXT_DUE, list(map(to_text, exclude)), self._owner)
        earliest: float | None = rows[0][0]
        return earliest

    async def save(self, delivery: Delivery) -> None:
        d = delivery
        await self._pool.execute(
            _SAVE, to_text(d.id), d.state, d.attempts, d.due_at, d.first_at, d.last_at, to_text(d.error)
        )

    async def get(self, id: str) -> Delivery | None:
        rows = await self._pool.fetch(_GET, to_text(id))
        return _delivery(rows[0]) if rows else None

    async def reset(self, id: str, now: float) -> bool:
        return await self._pool.execute(_RESET, to_text(id), now) == 1

    async def pending(self) -> int:
        rows = await self._pool.fetch("SELECT count(*) FROM delivery WHERE state = 'pending'")
        return int(rows[0][0])

    async def counts(self) -> dict[str, int]:
        rows = await self._pool.fetch("SELECT state, count(*) FROM delivery GROUP BY state")
        return dict(map(tuple, rows))

    async def purge(self, done_before: float, limit: int) -> int:
        return await self._pool.execute(_PURGE, done_before, limit)


def _row(delivery: Delivery) -> list[Any]:
    return [to_text(value) if isinstance(value, str) else value for value in msgspec.structs.astuple(delivery)]


def _delivery(row: Any) -> Delivery:
    values: list[Any] = [from_text(value) if isinstance(value, str) else value for value in tuple(row)]
    return Delivery(**dict(zip(Delivery.__struct_fields__, values, strict=True)))
