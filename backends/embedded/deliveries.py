"""The deliveries under way, on SQLite."""

import sqlite3
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec
import trio

from backends.embedded.connection import engine_errors
from backends.embedded.database import Database
from backends.ports import stores as port
from backends.ports.stores import Delivery

_COLUMNS = ", ".join(Delivery.__struct_fields__)
_ADD = (
    f"INSERT INTO delivery ({_COLUMNS}) VALUES ({', '.join('?' * len(Delivery.__struct_fields__))}) "  # noqa: S608
    "ON CONFLICT (id) DO NOTHING"
)
_SAVE = "UPDATE delivery SET state = ?, attempts = ?, due_at = ?, first_at = ?, last_at = ?, error = ? WHERE id = ?"
_GET = f"SELECT {_COLUMNS} FROM delivery WHERE id = ?"  # noqa: S608
# Hops from one endpoint to the next through the index, so that an endpoint that is away and has a hundred
# thousand deliveries waiting costs no more than one with a single delivery.
_ENDPOINTS = """
WITH RECURSIVE endpoints (endpoint) AS (
    SELECT min(endpoint) FROM delivery WHERE state = 'pending'
    UNION ALL
    SELECT (SELECT min(endpoint) FROM delivery WHERE state = 'pending' AND endpoint > endpoints.endpoint)
    FROM endpoints WHERE endpoints.endpoint IS NOT NULL
), oldest (endpoint, due_at) AS (
    SELECT endpoint, (SELECT min(due_at) FROM delivery WHERE state = 'pending' AND endpoint = endpoints.endpoint)
    FROM endpoints WHERE endpoint NOT IN ({excluded})
)
SELECT endpoint FROM oldest WHERE due_at <= ? ORDER BY due_at, endpoint LIMIT ?
"""
_DUE = (
    f"SELECT {_COLUMNS} FROM delivery WHERE state = 'pending' AND endpoint = ? AND due_at <= ? "  # noqa: S608
    "ORDER BY due_at, id LIMIT ?"
)
_NEXT_DUE = """
WITH RECURSIVE endpoints (endpoint) AS (
    SELECT min(endpoint) FROM delivery WHERE state = 'pending'
    UNION ALL
    SELECT (SELECT min(endpoint) FROM delivery WHERE state = 'pending' AND endpoint > endpoints.endpoint)
    FROM endpoints WHERE endpoints.endpoint IS NOT NULL
)
SELECT min((SELECT min(due_at) FROM delivery WHERE state = 'pending' AND endpoint = endpoints.endpoint))
FROM endpoints WHERE endpoints.endpoint NOT IN ({excluded})
"""
_RESET = (
    "UPDATE delivery SET state = 'pending', attempts = 0, due_at = ?, first_at = 0, last_at = 0, error = '', "
    "replays = replays + 1, pending_since = ? WHERE id = ? AND state = 'dead'"
)
# Without statistics SQLite would look through all that is pending.
_WITHDRAW = (
    "UPDATE delivery INDEXED BY delivery_pending SET state = 'withdrawn', last_at = ?, error = ? "
    "WHERE state = 'pending' AND endpoint = ?"
)
_COUNTS = "SELECT state, count(*) FROM delivery GROUP BY state"
_PENDING = "SELECT count(*) FROM delivery WHERE state = 'pending'"
_OLDEST = "SELECT min(pending_since) FROM delivery INDEXED BY delivery_age WHERE state = 'pending'"
_PURGE = (
    "DELETE FROM delivery WHERE id IN "
    "(SELECT id FROM delivery WHERE state IN ('done', 'withdrawn') AND last_at < ? LIMIT ?)"
)


class DeliveryStore(port.DeliveryStore):
    """Everything runs on the loop: each call is one short statement.

    Nothing is fsynced: an outcome that a power failure takes is an attempt made again, under the same id.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._open_connection: sqlite3.Connection | None = None

    async def open(self) -> None:
        await trio.lowlevel.checkpoint()
        self._open_connection = self._database.connect()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
        if self._open_connection is not None:
            self._open_connection.close()
            self._open_connection = None

    async def add(self, deliveries: Sequence[Delivery]) -> int:
        rows = [msgspec.structs.astuple(delivery) for delivery in deliveries]
        return max(await self._write(partial(self._connection.executemany, _ADD, rows)), 0)  # -1 for no rows

    async def endpoints(self, now: float, limit: int, exclude: Sequence[str]) -> list[str]:
        statement = _ENDPOINTS.format(excluded=", ".join("?" * len(exclude)))
        return [endpoint for (endpoint,) in await self._rows(statement, *exclude, now, max(limit, 0))]

    async def due(self, endpoint: str, now: float, limit: int) -> list[Delivery]:
        return [_delivery(row) for row in await self._rows(_DUE, endpoint, now, max(limit, 0))]

    async def next_due(self, exclude: Sequence[str]) -> float | None:
        statement = _NEXT_DUE.format(excluded=", ".join("?" * len(exclude)))
        ((earliest,),) = await self._rows(statement, *exclude)
        return None if earliest is None else float(earliest)

    async def save(self, deliveries: Sequence[Delivery]) -> None:
        rows = [(d.state, d.attempts, d.due_at, d.first_at, d.last_at, d.error, d.id) for d in deliveries]
        await self._write(partial(self._connection.executemany, _SAVE, rows))

    async def get(self, id: str) -> Delivery | None:
        rows = await self._rows(_GET, id)
        return _delivery(rows[0]) if rows else None

    async def reset(self, id: str, now: float) -> bool:
        return await self._write(partial(self._connection.execute, _RESET, (now, now, id))) == 1

    async def withdraw(self, endpoint: str, now: float, reason: str) -> int:
        return await self._write(partial(self._connection.execute, _WITHDRAW, (now, reason, endpoint)))

    async def pending(self) -> int:
        ((count,),) = await self._rows(_PENDING)
        return int(count)

    async def oldest(self) -> float | None:
        ((since,),) = await self._rows(_OLDEST)
        return None if since is None else float(since)

    async def counts(self) -> dict[str, int]:
        return dict(await self._rows(_COUNTS))

    async def purge(self, done_before: float, limit: int) -> int:
        return await self._write(partial(self._connection.execute, _PURGE, (done_before, limit)))

    @property
    def _connection(self) -> sqlite3.Connection:
        if self._open_connection is None:
            raise RuntimeError("the delivery store is not open")
        return self._open_connection

    async def _write(self, statement: partial[sqlite3.Cursor]) -> int:
        """Returns how many rows it changed."""
        return (await self._database.write(self._connection, statement)).rowcount

    async def _rows(self, statement: str, *parameters: object) -> list[Any]:
        await trio.lowlevel.checkpoint()
        with engine_errors():
            return self._connection.execute(statement, parameters).fetchall()


def _delivery(row: tuple[Any, ...]) -> Delivery:
    return Delivery(**dict(zip(Delivery.__struct_fields__, row, strict=True)))
