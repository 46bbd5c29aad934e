"""The search index on SQLite's FTS5."""

import sqlite3
from collections.abc import Sequence
from functools import partial

import msgspec
import trio

from backends.embedded.database import Database
from backends.embedded.reader import Reader
from backends.embedded.search_query import to_fts5
from backends.ports import stores as port
from backends.ports.stores import Document, SearchHit
from backends.search_terms import MATCH_END, MATCH_START, indexable, to_highlight

_FIND = "SELECT doc, version FROM document WHERE type = ? AND id = ?"
_PUT = (
    "INSERT INTO document (type, id, version, deleted) VALUES (?, ?, ?, ?) ON CONFLICT (type, id) "
    "DO UPDATE SET version = excluded.version, deleted = excluded.deleted RETURNING doc"
)
_REMOVE_TEXT = "DELETE FROM document_text WHERE rowid = ?"
_PUT_TEXT = "INSERT INTO document_text (rowid, name, email, bio) VALUES (?, ?, ?, ?)"
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
    """Updates run on the loop (about 0.1 ms a document: batches of 64 or less keep it responsive);
    queries in a thread."""

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

    async def apply(self, documents: Sequence[Document]) -> int:
        return await self._database.write(self._connection, partial(self._apply, documents))

    async def clear(self) -> None:
        await self._database.write_in_thread(self._connection, self._clear)

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

    def _apply(self, documents: Sequence[Document]) -> int:
        applied = 0
        for document in documents:
            known = self._connection.execute(_FIND, (document.type, document.id)).fetchall()
            if known and known[0][1] >= document.version:
                continue
            row = (document.type, document.id, document.version, document.deleted)
            ((doc,),) = self._connection.execute(_PUT, row).fetchall()
            if known:
                self._connection.execute(_REMOVE_TEXT, (doc,))
            if not document.deleted:
                self._connection.execute(_PUT_TEXT, (doc, *map(indexable, document.fields)))
            applied += 1
        return applied

    def _clear(self) -> None:
        self._connection.execute("DELETE FROM document_text")
        self._connection.execute("DELETE FROM document WHERE NOT deleted")
