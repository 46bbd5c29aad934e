"""The audit trail on PostgreSQL: append-only, a chain of hashes for each partition, one statement an append.

Hashes are computed here, from the head that was read; a statement that finds another head appends nothing, and they
are computed anew. So the lock of a chain's head is held for no round trip.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import trio

from backends.ports import stores as port
from backends.ports.audit_chain import ORIGIN, Fields, chain_hash, to_entry, to_fields
from backends.ports.audit_verification import Bounds, Link, verify
from backends.ports.entities import StoreUnavailable
from backends.ports.stores import AuditEntry, AuditFilter, AuditHead, AuditVerdict, Progress, Sign, Trusted
from backends.postgres.errors import is_conflict
from backends.postgres.pool import Connection, Pool
from backends.postgres.text import from_text, to_text

# Rows hashed between two turns of the loop: about a millisecond.
VERIFIED_AT_ONCE = 256
MOST_ROUNDS = 20
DROPPING_S = 30.0

_COLUMNS = "id, at, subject, action, entity, outcome, request_id, status, client"
_HEAD = (
    "SELECT (SELECT sequence FROM audit_chain WHERE name = $1), (SELECT hash FROM audit_chain WHERE name = $1), "
    "ARRAY(SELECT id FROM audit WHERE id = ANY($2::text[]))"
)
_APPEND = "SELECT append_audit($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"
_HEADS = "SELECT name, sequence, hash FROM audit_chain ORDER BY name"
_BOUNDS = (
    "SELECT name, dropped, dropped_hash, signature, sequence, hash, "
    "coalesce((SELECT max(a.sequence) FROM audit a WHERE a.chain = c.chain), 0) FROM audit_chain c ORDER BY name"
)
_LINKS = (
    f"SELECT sequence, hash, {_COLUMNS} FROM audit WHERE chain = (SELECT chain FROM audit_chain WHERE name = $1) "  # noqa: S608
    "AND sequence > $2 AND sequence <= $3 ORDER BY sequence LIMIT $4"
)
_PREFIXES = "SELECT chain, name, dropped FROM audit_chain WHERE dropped < sequence ORDER BY chain FOR UPDATE"
_OLDEST = "SELECT sequence, at, hash FROM audit WHERE chain = $1 AND sequence > $2 ORDER BY sequence LIMIT $3"
_CHECKPOINT = "UPDATE audit_chain SET dropped = $2, dropped_hash = $3, signature = $4 WHERE chain = $1"
_DROP = "DELETE FROM audit WHERE chain = $1 AND sequence <= $2"


class AuditStore(port.AuditStore):
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def open(self) -> None:
        """Nothing: the pool is opened by the engine."""

    async def aclose(self) -> None:
        """Nothing."""

    async def append(self, chain: str, entries: Sequence[AuditEntry]) -> int:
        offered = {entry.id: to_fields(entry) for entry in reversed(entries)}
        first = dict(reversed(offered.items()))  # of entries with one id, the first, in their order
        if not first:
            await trio.lowlevel.checkpoint()
            return 0

        async def run(connection: Connection) -> int:
            return await _append(connection, chain, first)

        return await self._pool.call(run)

    async def query(self, where: AuditFilter, before: tuple[float, str] | None, limit: int) -> list[AuditEntry]:
        conditions, parameters = _conditions(where, before)
        rows = await self._pool.fetch(
            f"SELECT {_COLUMNS} FROM audit WHERE {' AND '.join(conditions) or 'true'} "  # noqa: S608 - constants
            f"ORDER BY at DESC, id DESC LIMIT ${len(parameters) + 1}",
            *parameters,
            max(limit, 0),
        )
        return [to_entry(_fields(tuple(row))) for row in rows]

    async def heads(self) -> list[AuditHead]:
        rows = await self._pool.fetch(_HEADS)
        return [AuditHead(from_text(name), sequence, digest.hex()) for name, sequence, digest in map(tuple, rows)]

    async def verify(
        self,
        *,
        trusted: Trusted,
        expected: Sequence[AuditHead] = (),
        progress: Progress = lambda done, total: None,
    ) -> AuditVerdict:
        return await verify(self, trusted=trusted, expected=expected, progress=progress)

    async def drop_prefix(self, before: float, limit: int, sign: Sign) -> int:
        async def run(connection: Connection) -> int:
            await connection.execute("BEGIN")
            dropped = await _drop(connection, before, limit, sign)
            await connection.execute("COMMIT")
            return dropped

        return await self._pool.call(run, budget=DROPPING_S)

    # What a verification reads.

    async def bounds(self) -> list[Bounds]:
        rows = await self._pool.fetch(_BOUNDS)
        return [Bounds(from_text(name), *rest) for name, *rest in map(tuple, rows)]

    async def links(self, chain: str, after: int, last: int) -> list[Link]:
        rows = await self._pool.fetch(_LINKS, to_text(chain), after, last, VERIFIED_AT_ONCE)
        return [Link(row[0], row[1], _fields(row[2:])) for row in map(tuple, rows)]


class _Linked(NamedTuple):
    sequence: int
    fields: Fields
    hash: bytes


async def _append(connection: Connection, chain: str, offered: dict[str, Fields]) -> int:
    names = [to_text(id) for id in offered]
    for _ in range(MOST_ROUNDS):
        sequence, head, known = await connection.fetchrow(_HEAD, to_text(chain), names)
        known_ids = set(map(from_text, known))
        new = [fields for id, fields in offered.items() if id not in known_ids]
        if not new:
            return 0
        linked = _link(chain, sequence or 0, head or ORIGIN, new)
        rows = [[row.sequence, *_stored(row.fields), row.hash] for row in linked]
        columns = [[row[column] for row in rows] for column in range(len(rows[0]))]
        try:
            await connection.execute(_APPEND, to_text(chain), sequence or 0, *columns)
        except Exception as error:
            if not is_conflict(error):
                raise
        else:
            return len(new)
    raise StoreUnavailable(f"others appended to the audit chain {chain}, {MOST_ROUNDS} times in a row")


def _link(chain: str, sequence: int, digest: bytes, entries: Sequence[Fields]) -> list[_Linked]:
    linked = []
    for fields in entries:
        sequence += 1
        digest = chain_hash(chain, sequence, digest, fields)
        linked.append(_Linked(sequence, fields, digest))
    return linked


async def _drop(connection: Connection, before: float, limit: int, sign: Sign) -> int:
    dropped = 0
    for chain, name, start in map(tuple, await connection.fetch(_PREFIXES)):
        last, digest = start, ORIGIN
        for sequence, at, found in map(tuple, await connection.fetch(_OLDEST, chain, start, max(limit - dropped, 0))):
            if at >= before:
                break
            last, digest = sequence, found
        if last == start:
            continue
        # The checkpoint first: the database lets go of no row above it.
        signature = sign(AuditHead(from_text(name), last, digest.hex()))
        await connection.execute(_CHECKPOINT, chain, last, digest, signature)
        status: str = await connection.execute(_DROP, chain, last)
        dropped += int(status.rpartition(" ")[2])
    return dropped


def _conditions(where: AuditFilter, before: tuple[float, str] | None) -> tuple[list[str], list[object]]:
    """SQL conditions and their parameters; only constant text goes into the SQL."""
    conditions: list[str] = []
    parameters: list[object] = []

    def add(condition: str, *values: object) -> None:
        parameters.extend(values)
        first = len(parameters) - len(values) + 1
        conditions.append(condition.format(*(f"${first + n}" for n in range(len(values)))))

    for column in ("subject", "action", "entity"):
        if (wanted := getattr(where, column)) is not None:
            add(column + " = {}", to_text(wanted))
    if where.since is not None:
        add("at >= {}", where.since)
    if where.until is not None:
        add("at < {}", where.until)
    if before is not None:
        add("(at, id) < ({}, {})", before[0], to_text(before[1]))
    return conditions, parameters


def _stored(fields: Fields) -> list[Any]:
    return [to_text(value) if isinstance(value, str) else value for value in fields]


def _fields(row: Sequence[Any]) -> Any:
    """`Fields` of a row's columns."""
    return tuple(from_text(value) if isinstance(value, str) else value for value in row)
