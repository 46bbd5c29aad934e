"""The audit trail on SQLite: append-only, chained by hashes, queried in a thread."""

import sqlite3
from collections.abc import Sequence
from functools import partial

import msgspec
import trio

from backends.embedded.connection import engine_errors
from backends.embedded.database import Database
from backends.embedded.reader import Reader
from backends.ports import stores as port
from backends.ports.audit_chain import ORIGIN, Fields, chain_hash, to_entry, to_fields
from backends.ports.audit_verification import Bounds, Link, verify
from backends.ports.stores import AuditEntry, AuditFilter, AuditHead, AuditVerdict, Progress, Sign, Trusted

# Rows hashed between two turns of the loop: about a millisecond.
VERIFIED_AT_ONCE = 256

_CHAIN = "SELECT chain, sequence, hash FROM audit_chain WHERE name = ?"
_NEW_CHAIN = "INSERT INTO audit_chain (name, sequence, hash) VALUES (?, 0, ?) RETURNING chain"
_SET_HEAD = "UPDATE audit_chain SET sequence = ?, hash = ? WHERE chain = ?"
_HEADS = "SELECT name, sequence, hash FROM audit_chain ORDER BY name"
_INSERT = (
    "INSERT INTO audit (id, at, subject, action, entity, outcome, request_id, status, client, chain, sequence, hash) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING"
)
# One row each, because these run in a thread (see Reader); quote() prints a REAL so that it reads back exactly.
_QUERY = (
    "SELECT json_group_array(json_array("
    "id, json(quote(at)), subject, action, entity, outcome, request_id, status, client)) "
    "FROM (SELECT * FROM audit WHERE {conditions} ORDER BY at DESC, id DESC LIMIT ?)"
)
_BOUNDS = (
    "SELECT json_group_array(json_array(name, dropped, hex(dropped_hash), signature, sequence, hex(hash), "
    "coalesce((SELECT max(sequence) FROM audit WHERE audit.chain = audit_chain.chain), 0))) "
    "FROM (SELECT * FROM audit_chain ORDER BY name) AS audit_chain"
)
_LINKS = (
    "SELECT json_group_array(json_array(sequence, hex(hash), json_array("
    "id, json(quote(at)), subject, action, entity, outcome, request_id, status, client))) "
    "FROM (SELECT * FROM audit WHERE chain = (SELECT chain FROM audit_chain WHERE name = ?) "
    "AND sequence > ? AND sequence <= ? ORDER BY sequence LIMIT ?)"
)
# Chains in the order of their oldest rows are not worth a sort: whoever has something to drop gets a turn.
_PREFIXES = "SELECT chain, name, dropped FROM audit_chain WHERE dropped < sequence ORDER BY chain"
_OLDEST = "SELECT sequence, at, hash FROM audit WHERE chain = ? AND sequence > ? ORDER BY sequence LIMIT ?"
_CHECKPOINT = "UPDATE audit_chain SET dropped = ?, dropped_hash = ?, signature = ? WHERE chain = ?"
_DROP = "DELETE FROM audit WHERE chain = ? AND sequence <= ?"

_entries = msgspec.json.Decoder(list[Fields])
_bounds = msgspec.json.Decoder(list[tuple[str, int, str, str, int, str, int]])
_links = msgspec.json.Decoder(list[tuple[int, str, Fields]])


class AuditStore(port.AuditStore):
    """Appends run on the loop; queries and verification in a thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queries = Reader(database)
        self._open_connection: sqlite3.Connection | None = None

    async def open(self) -> None:
        await trio.lowlevel.checkpoint()
        self._open_connection = self._database.connect()

    async def aclose(self) -> None:
        if self._open_connection is not None:
            self._open_connection.close()
            self._open_connection = None
        await self._queries.aclose()

    async def append(self, chain: str, entries: Sequence[AuditEntry]) -> int:
        """Committed, not fsynced: the consumer's offset is committed later in the same log file, so a power
        failure that takes the entries takes the offset as well, and they are consumed again."""
        return await self._database.write(self._connection, partial(self._append, chain, entries))

    async def query(self, where: AuditFilter, before: tuple[float, str] | None, limit: int) -> list[AuditEntry]:
        conditions, parameters = _conditions(where, before)
        statement = _QUERY.format(conditions=" AND ".join(conditions) or "true")
        packed = await self._one_text(statement, (*parameters, max(limit, 0)))
        return [to_entry(fields) for fields in _entries.decode(packed)]

    async def heads(self) -> list[AuditHead]:
        await trio.lowlevel.checkpoint()
        with engine_errors():
            rows = self._connection.execute(_HEADS).fetchall()
        return [AuditHead(name, sequence, digest.hex()) for name, sequence, digest in rows]

    async def verify(
        self,
        *,
        trusted: Trusted,
        expected: Sequence[AuditHead] = (),
        progress: Progress = lambda done, total: None,
    ) -> AuditVerdict:
        return await verify(self, trusted=trusted, expected=expected, progress=progress)

    async def drop_prefix(self, before: float, limit: int, sign: Sign) -> int:
        return await self._database.write(self._connection, partial(self._drop, before, limit, sign))

    # What a verification reads.

    async def bounds(self) -> list[Bounds]:
        packed = await self._one_text(_BOUNDS, ())
        return [
            Bounds(name, dropped, bytes.fromhex(base), signature, last, bytes.fromhex(head), stored)
            for name, dropped, base, signature, last, head, stored in _bounds.decode(packed)
        ]

    async def links(self, chain: str, after: int, last: int) -> list[Link]:
        packed = await self._one_text(_LINKS, (chain, after, last, VERIFIED_AT_ONCE))
        return [Link(sequence, bytes.fromhex(digest), fields) for sequence, digest, fields in _links.decode(packed)]

    @property
    def _connection(self) -> sqlite3.Connection:
        if self._open_connection is None:
            raise RuntimeError("the audit store is not open")
        return self._open_connection

    async def _one_text(self, statement: str, parameters: Sequence[object]) -> str:
        def run(connection: sqlite3.Connection) -> str:
            text: str = connection.execute(statement, parameters).fetchall()[0][0]
            return text

        return await self._queries.run(run)

    def _append(self, name: str, entries: Sequence[AuditEntry]) -> int:
        known = self._connection.execute(_CHAIN, (name,)).fetchall()
        chain, first, previous = known[0] if known else (*self._new_chain(name), 0, ORIGIN)
        sequence = first
        for entry in entries:
            fields = to_fields(entry)
            digest = chain_hash(name, sequence + 1, previous, fields)
            if self._connection.execute(_INSERT, (*fields, chain, sequence + 1, digest)).rowcount:
                sequence, previous = sequence + 1, digest
        if sequence != first:
            self._connection.execute(_SET_HEAD, (sequence, previous, chain))
        return int(sequence - first)

    def _new_chain(self, name: str) -> tuple[int]:
        ((chain,),) = self._connection.execute(_NEW_CHAIN, (name, ORIGIN)).fetchall()
        return (chain,)

    def _drop(self, before: float, limit: int, sign: Sign) -> int:
        dropped = 0
        for chain, name, start in self._connection.execute(_PREFIXES).fetchall():
            last, digest = start, ORIGIN
            for sequence, at, found in self._connection.execute(_OLDEST, (chain, start, limit - dropped)).fetchall():
                if at >= before:
                    break
                last, digest = sequence, found
            if last == start:
                continue
            # The checkpoint first: the database lets go of no row above it.
            signature = sign(AuditHead(name, last, digest.hex()))
            self._connection.execute(_CHECKPOINT, (last, digest, signature, chain))
            dropped += self._connection.execute(_DROP, (chain, last)).rowcount
        return dropped


def _conditions(where: AuditFilter, before: tuple[float, str] | None) -> tuple[list[str], list[object]]:
    """SQL conditions and their parameters; only constant text goes into the SQL."""
    wanted: list[tuple[str, tuple[object, ...]]] = []
    if where.subject is not None:
        wanted.append(("subject = ?", (where.subject,)))
    if where.action is not None:
        wanted.append(("action = ?", (where.action,)))
    if where.entity is not None:
        wanted.append(("entity = ?", (where.entity,)))
    if where.since is not None:
        wanted.append(("at >= ?", (where.since,)))
    if where.until is not None:
        wanted.append(("at < ?", (where.until,)))
    if before is not None:
        wanted.append(("(at, id) < (?, ?)", before))
    return [sql for sql, _ in wanted], [value for _, values in wanted for value in values]
