"""The entity store on SQLite."""

import sqlite3
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec
import trio

from backends.embedded.append import Appender, Prepared, prepare
from backends.embedded.connection import engine_errors, is_engine_error
from backends.embedded.database import Database
from backends.embedded.reader import Reader
from backends.ports import entities as port
from backends.ports.cloudevents import to_record
from backends.ports.entities import Decision, Entity, Key, Refused, Write

# Keys one statement reads; the statement's text depends on their number, which is rounded up to a power of
# two so that few texts are prepared.
READ_MOST = 256

_FIND = "SELECT kind, id, version, created_at, updated_at, body, expires_at FROM entity WHERE kind = ? AND id = ?"
# Bound values and not json_each: SQLite cuts a JSON string at a NUL, and would find another key.
_READ = (
    "WITH wanted (kind, id) AS (VALUES {rows}) "
    "SELECT e.kind, e.id, e.version, e.created_at, e.updated_at, e.body, e.expires_at "
    "FROM wanted CROSS JOIN entity AS e ON e.kind = wanted.kind AND e.id = wanted.id"
)
_PUT = (
    "INSERT INTO entity (kind, id, version, created_at, updated_at, body, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (kind, id) DO UPDATE SET "
    "version = excluded.version, created_at = excluded.created_at, updated_at = excluded.updated_at, "
    "body = excluded.body, expires_at = excluded.expires_at "
    "WHERE excluded.version > entity.version OR (excluded.version = entity.version AND entity.body IS NOT NULL)"
)
_REMOVE = (
    "UPDATE entity SET body = NULL, version = version + 1, updated_at = ?, expires_at = 0 "
    "WHERE kind = ? AND id = ? AND body IS NOT NULL"
)
# One row, because this runs in a thread (see Reader). quote() prints a REAL so that it reads back exactly,
# which JSON functions do not; hex carries any bytes.
_SCAN = (
    "SELECT json_group_array(json_array(id, version, json(quote(created_at)), json(quote(updated_at)), "
    "json(quote(expires_at)), hex(body))) FROM (SELECT * FROM entity WHERE kind = ? AND id > ? "
    "AND body IS NOT NULL AND (expires_at = 0 OR expires_at > ?) ORDER BY id LIMIT ?)"
)
_PURGE = (
    "DELETE FROM entity WHERE (kind, id) IN "
    "(SELECT kind, id FROM entity WHERE expires_at > 0 AND expires_at <= ? ORDER BY expires_at LIMIT ?)"
)

_scanned = msgspec.json.Decoder(list[tuple[str, int, float, float, float, str]])


class EntityStore(port.EntityStore):
    """Each actor has one of its own; it opens the connections that its calls need.

    Args:
        now: Unix seconds, for expiry and the time of records.
        on_query: called with "transact", "read" or "scan" once a query sent to the database.
    """

    def __init__(
        self,
        database: Database,
        *,
        now: Callable[[], float] = time.time,
        on_query: Callable[[str], None] | None = None,
    ) -> None:
        self._database = database
        self._now = now
        self._on_query = on_query or _count_nothing
        self._appender = Appender()
        self._scans = Reader(database)
        self._open_connection: sqlite3.Connection | None = None

    async def open(self) -> None:
        await trio.lowlevel.checkpoint()
        self._open_connection = self._database.connect()

    async def aclose(self) -> None:
        if self._open_connection is not None:
            self._open_connection.close()
            self._open_connection = None
        await self._scans.aclose()

    async def transact(self, writes: Sequence[Write]) -> list[Any | Refused | Exception]:
        self._on_query("transact")
        before = self._connection.total_changes
        outcomes = await self._database.write(self._connection, partial(self._apply_all, writes))
        if self._connection.total_changes != before:
            await self._database.sync()
        return outcomes

    async def read(self, keys: Sequence[Key]) -> list[Entity | None]:
        await trio.lowlevel.checkpoint()
        found: dict[Key, Entity] = {}
        wanted = list(dict.fromkeys(keys))
        now = self._now()
        for start in range(0, len(wanted), READ_MOST):
            self._on_query("read")
            with engine_errors():
                rows = self._select(wanted[start : start + READ_MOST])
            for row in rows:
                entity = _living(row, now)
                if entity is not None:
                    found[entity.key] = entity
        return [found.get(key) for key in keys]

    async def scan(self, kind: str, after: str, limit: int) -> list[Entity]:
        self._on_query("scan")
        parameters = (kind, after, self._now(), max(limit, 0))
        packed: str = await self._scans.run(lambda connection: connection.execute(_SCAN, parameters).fetchone()[0])
        return [
            Entity(kind, id, version, created_at, updated_at, bytes.fromhex(body), expires_at)
            for id, version, created_at, updated_at, expires_at, body in _scanned.decode(packed)
        ]

    async def purge_expired(self, now: float, limit: int) -> int:
        delete = partial(self._connection.execute, _PURGE, (now, limit))
        return (await self._database.write(self._connection, delete)).rowcount

    @property
    def _connection(self) -> sqlite3.Connection:
        if self._open_connection is None:
            raise RuntimeError("the entity store is not open")
        return self._open_connection

    def _select(self, keys: Sequence[Key]) -> list[tuple[Any, ...]]:
        size = 1 << (len(keys) - 1).bit_length()
        padded = [*keys, *[keys[-1]] * (size - len(keys))]
        statement = _READ.format(rows=", ".join(["(?, ?)"] * size))
        return self._connection.execute(statement, [part for key in padded for part in key]).fetchall()

    def _apply_all(self, writes: Sequence[Write]) -> list[Any | Refused | Exception]:
        now = self._now()
        records: list[Prepared] = []
        outcomes = [self._apply(write, now, records) for write in writes]
        if records:
            self._appender.append(self._connection, records, int(now * 1000))
        return outcomes

    def _apply(self, write: Write, now: float, records: list[Prepared]) -> Any | Refused | Exception:
        """One write; what it appends goes to *records*, for one insertion a batch."""
        try:
            decision = self._decide(write, now)
            # Encoded before anything is written: an event that cannot be is this write's failure alone.
            events = [prepare(to_record(event)) for event in decision.events]
            self._change(decision, now)
        except Exception as error:
            if is_engine_error(error):
                raise
            return error
        records.extend(events)
        return decision.answer

    def _decide(self, write: Write, now: float) -> Decision:
        rows = [self._connection.execute(_FIND, key).fetchall() for key in write.keys]
        entities = [_living(row[0], now) if row else None for row in rows]
        removed = [row[0][2] if row and not entity else 0 for row, entity in zip(rows, entities, strict=True)]
        return write.decide(entities, removed)

    def _change(self, decision: Decision, now: float) -> None:
        if len(decision.put) + len(decision.remove) <= 1:
            self._store(decision, now)  # one statement is atomic by itself
            return
        self._connection.execute("SAVEPOINT one_write")
        try:
            self._store(decision, now)
        except sqlite3.Error as error:
            if not is_engine_error(error):  # else the whole transaction is lost, and its savepoints with it
                self._connection.execute("ROLLBACK TO one_write")
            raise
        except Exception:
            self._connection.execute("ROLLBACK TO one_write")
            raise
        finally:
            if self._connection.in_transaction:
                self._connection.execute("RELEASE one_write")

    def _store(self, decision: Decision, now: float) -> None:
        for entity in decision.put:
            row = (*entity.key, entity.version, entity.created_at, entity.updated_at, entity.body, entity.expires_at)
            if self._connection.execute(_PUT, row).rowcount == 0:
                raise ValueError(f"{entity.kind}/{entity.id}: version {entity.version} would go back")
        for key in decision.remove:
            self._connection.execute(_REMOVE, (now, *key))


def _living(row: tuple[Any, ...], now: float) -> Entity | None:
    body, expires_at = row[5], row[6]
    if body is None or 0 < expires_at <= now:
        return None
    return Entity(*row)


def _count_nothing(operation: str) -> None:
    """The default of `on_query`."""
