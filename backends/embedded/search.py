"""The search index on SQLite's FTS5."""

import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import NamedTuple

import msgspec
import trio

from backends.embedded.connection import engine_errors
from backends.embedded.database import Database
from backends.embedded.reader import Reader
from backends.embedded.search_query import to_fts5
from backends.ports import stores as port
from backends.ports.stores import Document, RebuildUnderWay, SearchHit
from backends.search_terms import MATCH_END, MATCH_START, indexable, to_highlight

# Documents in one transaction on the loop: about 4 ms.
APPLIED_AT_ONCE = 64
# How long a rebuild that was given up may take to clear up after itself; else the next one does it.
CLEANUP_S = 5.0


class _Statements(NamedTuple):
    find: str
    put: str
    remove_text: str
    put_text: str


def _statements(table: str) -> _Statements:
    """Those that write to *table* and to its texts."""
    return _Statements(
        find=f"SELECT doc, version FROM {table} WHERE type = ? AND id = ?",  # noqa: S608 - our own names
        put=f"INSERT INTO {table} (type, id, version, deleted) VALUES (?, ?, ?, ?) ON CONFLICT (type, id) "  # noqa: S608
        "DO UPDATE SET version = excluded.version, deleted = excluded.deleted RETURNING doc",
        remove_text=f"DELETE FROM {table}_text WHERE rowid = ?",  # noqa: S608
        put_text=f"INSERT INTO {table}_text (rowid, name, email, bio) VALUES (?, ?, ?, ?)",  # noqa: S608
    )


_LIVE, _NEW = _statements("document"), _statements("document_new")
_IS_REBUILT = "SELECT 1 FROM sqlite_master WHERE name = 'document_new'"
_SHAPE = "SELECT sql FROM sqlite_master WHERE name = ?"
_DROP_NEW = ("DROP TABLE IF EXISTS document_new", "DROP TABLE IF EXISTS document_new_text")
_KEEP_TOMBSTONES = (
    "INSERT INTO document_new (type, id, version, deleted) SELECT type, id, version, 1 FROM document WHERE deleted"
)
_SWAP = (
    "DROP TABLE document",
    "DROP TABLE document_text",
    "ALTER TABLE document_new RENAME TO document",
    "ALTER TABLE document_new_text RENAME TO document_text",
)
# The best rows are chosen before their snippets are made: a snippet reads the whole text. A match in the
# name weighs ten times one in the bio. One row, because this runs in a thread (see Reader).
_QUERY = """
WITH best AS MATERIALIZED (
    SELECT document.doc, document.type, document.id, bm25(document_text, 10.0, 5.0, 1.0) AS rank
    FROM document_text JOIN document ON document.doc = document_text.rowid
    WHERE document_text MATCH :match AND (:type IS NULL OR document.type = :type)
    ORDER BY rank, document.type, document.id LIMIT :limit OFFSET :offset
), marked AS MATERIALIZED (
    SELECT best.type, best.id, best.rank, snippet(document_text, -1, :start, :end, '…', 16) AS marked
    FROM best CROSS JOIN document_text ON document_text.rowid = best.doc
    WHERE document_text MATCH :match
)
SELECT json_group_array(json_array(type, id, json(quote(-rank)), marked)) FROM
    (SELECT * FROM marked ORDER BY rank, type, id LIMIT :limit)
"""

_hits = msgspec.json.Decoder(list[tuple[str, str, float, str]])


class SearchIndex(port.SearchIndex):
    """Updates run on the loop, `APPLIED_AT_ONCE` a transaction; queries, and the beginning and end of a rebuild,
    in a thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queries = Reader(database)
        self._open_connection: sqlite3.Connection | None = None
        self._rebuilding = False

    async def open(self) -> None:
        self._open_connection = self._database.connect()
        # The data directory has one process, and this one rebuilds nothing yet: these are a dead one's.
        if self._is_rebuilt():
            await self._database.write_in_thread(self._connection, self._drop_new)
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        if self._open_connection is not None:
            self._open_connection.close()
            self._open_connection = None
        await self._queries.aclose()

    async def apply(self, documents: Sequence[Document]) -> int:
        return await self._in_slices(documents, self._apply)

    @asynccontextmanager
    async def rebuilding(self) -> AsyncIterator[port.Rebuild]:
        if self._rebuilding:
            raise RebuildUnderWay("the search index is being built anew already")
        self._rebuilding = True
        try:
            await self._database.write_in_thread(self._connection, self._begin)
            rebuild = _Rebuild(self)
            try:
                yield rebuild
            finally:
                if not rebuild.swapped:
                    with trio.move_on_after(CLEANUP_S, shield=True):
                        await self._database.write_in_thread(self._connection, self._drop_new)
        finally:
            self._rebuilding = False

    async def apply_new(self, documents: Sequence[Document]) -> int:
        """For `Rebuild` alone."""
        return await self._in_slices(documents, partial(self._put, _NEW))

    async def swap(self) -> None:
        """For `Rebuild` alone."""
        await self._database.write_in_thread(self._connection, self._swap)

    async def count(self) -> int:
        def run(connection: sqlite3.Connection) -> int:
            ((count,),) = connection.execute("SELECT count(*) FROM document WHERE NOT deleted").fetchall()
            return int(count)

        return await self._queries.run(run)

    async def query(self, q: str, type: str | None, offset: int, limit: int) -> list[SearchHit]:
        match = to_fts5(q)
        if match is None:
            await trio.lowlevel.checkpoint()
            return []
        parameters = {"match": match, "type": type, "offset": max(offset, 0), "limit": max(limit, 0)}
        parameters |= {"start": MATCH_START, "end": MATCH_END}

        def run(connection: sqlite3.Connection) -> str:
            text: str = connection.execute(_QUERY, parameters).fetchall()[0][0]
            return text

        packed = await self._queries.run(run)
        return [SearchHit(type, id, score, to_highlight(marked)) for type, id, score, marked in _hits.decode(packed)]

    @property
    def _connection(self) -> sqlite3.Connection:
        if self._open_connection is None:
            raise RuntimeError("the search index is not open")
        return self._open_connection

    async def _in_slices(self, documents: Sequence[Document], put: Callable[[Sequence[Document]], int]) -> int:
        applied = 0
        for start in range(0, len(documents), APPLIED_AT_ONCE):
            part = documents[start : start + APPLIED_AT_ONCE]
            applied += await self._database.write(self._connection, partial(put, part))
            await trio.lowlevel.checkpoint()  # between two slices requests go first
        return applied

    def _apply(self, documents: Sequence[Document]) -> int:
        if self._is_rebuilt():
            self._put(_NEW, documents)
        return self._put(_LIVE, documents)

    def _put(self, into: _Statements, documents: Sequence[Document]) -> int:
        execute = self._connection.execute
        applied = 0
        for document in documents:
            known = execute(into.find, (document.type, document.id)).fetchall()
            if known and known[0][1] >= document.version:
                continue
            row = (document.type, document.id, document.version, document.deleted)
            ((doc,),) = execute(into.put, row).fetchall()
            if known:
                execute(into.remove_text, (doc,))
            if not document.deleted:
                execute(into.put_text, (doc, *map(indexable, document.fields)))
            applied += 1
        return applied

    def _is_rebuilt(self) -> bool:
        with engine_errors():
            return bool(self._connection.execute(_IS_REBUILT).fetchall())

    def _begin(self) -> None:
        self._drop_new()
        for table in ("document", "document_text"):
            ((shape,),) = self._connection.execute(_SHAPE, (table,)).fetchall()
            self._connection.execute(shape.replace("document", "document_new", 1))
        self._connection.execute(_KEEP_TOMBSTONES)

    def _drop_new(self) -> None:
        for statement in _DROP_NEW:
            self._connection.execute(statement)

    def _swap(self) -> None:
        for statement in _SWAP:
            self._connection.execute(statement)


class _Rebuild(port.Rebuild):
    def __init__(self, index: SearchIndex) -> None:
        self._index = index
        self.swapped = False

    async def apply(self, documents: Sequence[Document]) -> int:
        return await self._index.apply_new(documents)

    async def swap(self) -> None:
        await self._index.swap()
        self.swapped = True
