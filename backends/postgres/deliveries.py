"""The deliveries under way, on PostgreSQL: worked off by any number of instances, each endpoint by one at a time.

Who asks what is due for an endpoint claims it, and the others leave it alone until nothing is due any more. An instance
that dies lets go when its claims run out, and another makes its attempts again under the same ids.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import trio

from backends.ports import stores as port
from backends.ports.stores import Delivery
from backends.postgres.pool import Pool
from backends.postgres.text import from_text, to_text

# From one outcome to the next: longer than any attempt takes, so that none is made twice at once.
CLAIM_S = 90.0

_COLUMNS = ", ".join(Delivery.__struct_fields__)
_ADD = f"""
INSERT INTO delivery ({_COLUMNS}) SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[],
    $6::text[], $7::bytea[], $8::text[], $9::integer[], $10::float8[], $11::float8[], $12::float8[], $13::text[],
    $14::integer[], $15::float8[])
ON CONFLICT (id) DO NOTHING
"""  # noqa: S608 - constants
_SAVE = """
UPDATE delivery d SET state = u.state, attempts = u.attempts, due_at = u.due_at, first_at = u.first_at,
    last_at = u.last_at, error = u.error
FROM unnest($1::text[], $2::text[], $3::integer[], $4::float8[], $5::float8[], $6::float8[], $7::text[])
    AS u (id, state, attempts, due_at, first_at, last_at, error) WHERE d.id = u.id
"""
_CLAIM = """
INSERT INTO delivery_claim (endpoint, owner, until) VALUES ($1, $2, $3::float8 + $4)
ON CONFLICT (endpoint) DO UPDATE SET owner = excluded.owner, until = excluded.until
WHERE delivery_claim.owner = excluded.owner OR delivery_claim.until <= $3 RETURNING 1
"""
_RENEW = """
UPDATE delivery_claim c SET until = greatest(c.until, u.last_at + $3)
FROM unnest($1::text[], $2::float8[]) AS u (endpoint, last_at) WHERE c.endpoint = u.endpoint AND c.owner = $4
"""
_LET_GO = "DELETE FROM delivery_claim WHERE endpoint = $1 AND owner = $2"
_FORGET_CLAIMS = "DELETE FROM delivery_claim WHERE until < $1"
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
_WITH_DUE = f"""{_ENDPOINTS}, oldest AS (
    SELECT endpoint, greatest(
        (SELECT due_at FROM delivery WHERE state = 'pending' AND endpoint = endpoints.endpoint
         ORDER BY due_at, id LIMIT 1),
        (SELECT until FROM delivery_claim c WHERE c.endpoint = endpoints.endpoint AND c.owner <> $2)
    ) AS due_at
    FROM endpoints WHERE endpoint IS NOT NULL AND endpoint <> ALL($1::text[])
)"""  # noqa: S608
_WITH_SOMETHING_DUE = f"{_WITH_DUE} SELECT endpoint FROM oldest WHERE due_at <= $3 ORDER BY due_at, endpoint LIMIT $4"  # noqa: S608
_NEXT_DUE = f"{_WITH_DUE} SELECT min(due_at) FROM oldest"  # noqa: S608
_DUE = (
    f"SELECT {_COLUMNS} FROM delivery WHERE state = 'pending' AND endpoint = $1 AND due_at <= $2 "  # noqa: S608
    "ORDER BY due_at, id LIMIT $3"
)
_RESET = (
    "UPDATE delivery SET state = 'pending', attempts = 0, due_at = $2, first_at = 0, last_at = 0, error = '', "
    "replays = replays + 1, pending_since = $2 WHERE id = $1 AND state = 'dead'"
)
_WITHDRAW = (
    "UPDATE delivery SET state = 'withdrawn', last_at = $2, error = $3 WHERE state = 'pending' AND endpoint = $1"
)
_PURGE = (
    "DELETE FROM delivery WHERE id IN (SELECT id FROM delivery WHERE state IN ('done', 'withdrawn') AND last_at < $1 "
    "LIMIT $2 FOR UPDATE SKIP LOCKED)"
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

    async def endpoints(self, now: float, limit: int, exclude: Sequence[str]) -> list[str]:
        """An endpoint that another instance works for is left out until that one's claim has run out."""
        excluded = list(map(to_text, exclude))
        rows = await self._pool.fetch(_WITH_SOMETHING_DUE, excluded, self._owner, now, max(limit, 0))
        return [from_text(row[0]) for row in rows]

    async def due(self, endpoint: str, now: float, limit: int) -> list[Delivery]:
        """[] also while another instance works for *endpoint*."""
        name = to_text(endpoint)

        async def claimed(connection: Any) -> list[Any]:
            # Two statements: what the other instance saved before it let go is seen by the second.
            if await connection.fetchval(_CLAIM, name, self._owner, now, CLAIM_S) is None:
                return []
            rows: list[Any] = await connection.fetch(_DUE, name, now, max(limit, 0))
            if not rows:
                await connection.execute(_LET_GO, name, self._owner)
            return rows

        return [_delivery(row) for row in await self._pool.call(claimed)]

    async def next_due(self, exclude: Sequence[str]) -> float | None:
        rows = await self._pool.fetch(_NEXT_DUE, list(map(to_text, exclude)), self._owner)
        earliest: float | None = rows[0][0]
        return earliest

    async def save(self, deliveries: Sequence[Delivery]) -> None:
        """Renews the claims: an endpoint with many deliveries is worked for as long as that takes."""
        if not deliveries:
            await trio.lowlevel.checkpoint()
            return
        rows = sorted(
            (to_text(d.id), d.state, d.attempts, d.due_at, d.first_at, d.last_at, to_text(d.error)) for d in deliveries
        )
        columns = [[row[n] for row in rows] for n in range(7)]
        last = {to_text(d.endpoint): d.last_at for d in sorted(deliveries, key=lambda d: d.last_at)}

        async def store(connection: Any) -> None:
            await connection.execute(_SAVE, *columns)
            await connection.execute(_RENEW, list(last), list(last.values()), CLAIM_S, self._owner)

        await self._pool.call(store)

    async def get(self, id: str) -> Delivery | None:
        rows = await self._pool.fetch(_GET, to_text(id))
        return _delivery(rows[0]) if rows else None

    async def reset(self, id: str, now: float) -> bool:
        return await self._pool.execute(_RESET, to_text(id), now) == 1

    async def withdraw(self, endpoint: str, now: float, reason: str) -> int:
        return await self._pool.execute(_WITHDRAW, to_text(endpoint), now, to_text(reason))

    async def pending(self) -> int:
        rows = await self._pool.fetch("SELECT count(*) FROM delivery WHERE state = 'pending'")
        return int(rows[0][0])

    async def oldest(self) -> float | None:
        rows = await self._pool.fetch("SELECT min(pending_since) FROM delivery WHERE state = 'pending'")
        since: float | None = rows[0][0]
        return since

    async def counts(self) -> dict[str, int]:
        rows = await self._pool.fetch("SELECT state, count(*) FROM delivery GROUP BY state")
        return dict(map(tuple, rows))

    async def purge(self, done_before: float, limit: int) -> int:
        await self._pool.execute(_FORGET_CLAIMS, done_before)
        return await self._pool.execute(_PURGE, done_before, limit)


def _row(delivery: Delivery) -> list[Any]:
    return [to_text(value) if isinstance(value, str) else value for value in msgspec.structs.astuple(delivery)]


def _delivery(row: Any) -> Delivery:
    values: list[Any] = [from_text(value) if isinstance(value, str) else value for value in tuple(row)]
    return Delivery(**dict(zip(Delivery.__struct_fields__, values, strict=True)))
