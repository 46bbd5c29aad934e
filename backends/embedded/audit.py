"""The audit trail on SQLite: append-only, chained by hashes, queried in a thread."""

import sqlite3
from collections.abc import Sequence
from functools import partial

import msgspec
import trio

from backends.embedded.audit_chain import ORIGIN, Fields, chain_hash, to_entry, to_fields
from backends.embedded.database import Database
from backends.embedded.reader import Reader
from backends.ports import stores as port
from backends.ports.stores import AuditEntry, AuditFilter, AuditVerdict

# Rows hashed between two turns of the loop: about a millisecond.
VERIFIED_AT_ONCE = 256

_HEAD = "SELECT seq, hash FROM audit_head"
_SET_HEAD = "UPDATE audit_head SET seq = ?, hash = ?"
_INSERT = (
    "INSERT INTO audit (id, at, subject, action, entity, outcome, request_id, status, client, seq, hash) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING"
)
# One row each, because these run in a thread (see Reader); quote() prints a REAL so that it reads back exactly.
_QUERY = (
    "SELECT json_group_array(json_array("
    "id, json(quote(at)), subject, action, entity, outcome, request_id, status, client)) "
    "FROM (SELECT * FROM audit WHERE {conditions} ORDER BY at DESC, id DESC LIMIT ?)"
)
_CHAIN = (
    "SELECT json_group_array(json_array(seq, hex(hash), json_array("
    "id, json(quote(at)), subject, action, entity, outcome, request_id, status, client))) "
    "FROM (SELECT * FROM audit WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?)"
)

_entries = msgspec.json.Decoder(list[Fields])
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

    async def append(self, entries: Sequence[AuditEntry]) -> int:
        """Committed, not fsynced: the consumer's offset is committed later in the same log file, so a power
        failure that takes the entries takes the offset as well, and they are consumed again."""
        return await self._database.write(self._connection, partial(self._append, entries))

    async def query(self, where: AuditFilter, before: tuple[float, str] | None, limit: int) -> list[AuditEntry]:
        conditions, parameters = _conditions(where, before)
        statement = _QUERY.format(conditions=" AND ".join(conditions) or "true")
        packed = await self._one_text(statement, (*parameters, max(limit, 0)))
        return [to_entry(fields) for fields in _entries.decode(packed)]

    async def verify(self) -> AuditVerdict:
        """Rows that are appended meanwhile are not looked at."""
        last, head = await self._queries.run(lambda connection: connection.execute(_HEAD).fetchall()[0])
        seq, previous = 0, ORIGIN
        while links := _links.decode(await self._one_text(_CHAIN, (seq, last, VERIFIED_AT_ONCE))):
            for found, digest, fields in links:
                if found != seq + 1:
                    return AuditVerdict(rows=seq, head=previous.hex(), broken=f"row {seq + 1} is missing")
                expected = chain_hash(previous, fields)
                if bytes.fromhex(digest) != expected:
                    return AuditVerdict(rows=seq, head=previous.hex(), broken=f"row {found} ({fields[0]}) was changed")
                seq, previous = found, expected
        broken: str | None = None
        if seq != last:
            broken = f"row {seq + 1} is missing: the trail ends before row {last}"
        elif previous != head:
            broken = f"row {seq} is not the one that was written last"
        return AuditVerdict(rows=seq, head=previous.hex(), broken=broken)

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

    def _append(self, entries: Sequence[AuditEntry]) -> int:
        ((first, previous),) = self._connection.execute(_HEAD).fetchall()
        seq = first
        for entry in entries:
            fields = to_fields(entry)
            digest = chain_hash(previous, fields)
            if self._connection.execute(_INSERT, (*fields, seq + 1, digest)).rowcount:
                seq, previous = seq + 1, digest
        if seq != first:
            self._connection.execute(_SET_HEAD, (seq, previous))
        return int(seq - first)


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
