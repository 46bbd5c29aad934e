"""The search index on PostgreSQL: words made here (`words.py`), found by a GIN index, ranked by ts_rank."""

from collections.abc import Sequence
from typing import Any

import trio

from backends.ports import stores as port
from backends.ports.stores import Document, SearchHit
from backends.postgres.pool import Connection, Pool
from backends.postgres.text import from_text, to_text
from backends.postgres.words import snippet, to_tsquery, to_tsvector
from backends.search_terms import indexable, terms_of, to_highlight

# A clear removes every row of the index, an index over a million documents among them.
CLEARING_S = 120.0

_VERSIONS = """
SELECT d.type, d.id, d.version FROM unnest($1::text[], $2::text[]) AS wanted (type, id) CROSS JOIN LATERAL (
    SELECT type, id, version FROM document WHERE type = wanted.type AND id = wanted.id OFFSET 0
) AS d
"""
_PUT = """
INSERT INTO document (type, id, version, deleted, name, email, bio, words)
SELECT type, id, version, deleted, name, email, bio, words::tsvector
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::boolean[], $5::text[], $6::text[], $7::text[], $8::text[])
    AS u (type, id, version, deleted, name, email, bio, words)
ON CONFLICT (type, id) DO UPDATE SET version = excluded.version, deleted = excluded.deleted, name = excluded.name,
    email = excluded.email, bio = excluded.bio, words = excluded.words
WHERE excluded.version > document.version
"""
# A match in the name weighs ten times one in the bio.
_QUERY = """
SELECT type, id, ts_rank('{0.1, 0.1, 0.5, 1.0}', words, query) AS rank, name, email, bio
FROM document, CAST($1::text AS tsquery) AS query
WHERE words @@ query AND ($2::text IS NULL OR type = $2)
ORDER BY rank DESC, type, id OFFSET $3 LIMIT $4
"""


class SearchIndex(port.SearchIndex):
    async def open(self) -> None:
        """Nothing: the pool is opened by the engine."""

    async def aclose(self) -> None:
        """Nothing."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def apply(self, documents: Sequence[Document]) -> int:
        names = sorted({_key(document) for document in documents})
        if not names:
            await trio.lowlevel.checkpoint()
            return 0

        async def run(connection: Connection) -> int:
            rows = await connection.fetch(_VERSIONS, *_columns(names, 2))
            applied, newest = _newest(documents, {(type, id): version for type, id, version in map(tuple, rows)})
            if newest:
                await connection.execute(_PUT, *_columns([_row(newest[name]) for name in sorted(newest)], 8))
            return applied

        return await self._pool.call(run)

    async def clear(self) -> None:
        await self._pool.execute("DELETE FROM document WHERE NOT deleted", budget=CLEARING_S)

    async def query(self, q: str, type: str | None, offset: int, limit: int) -> list[SearchHit]:
        terms = terms_of(q)
        query = to_tsquery(terms)
        if query is None:
            await trio.lowlevel.checkpoint()
            return []
        kind = None if type is None else to_text(type)
        rows = await self._pool.fetch(_QUERY, query, kind, max(offset, 0), max(limit, 0))
        return [
            SearchHit(from_text(type), from_text(id), rank, to_highlight(snippet(list(map(from_text, fields)), terms)))
            for type, id, rank, *fields in map(tuple, rows)
        ]


def _newest(
    documents: Sequence[Document], versions: dict[tuple[str, str], int]
) -> tuple[int, dict[tuple[str, str], Document]]:
    """How many of *documents*, in order, are newer than what is before them; and the last such one of each name."""
    applied = 0
    newest: dict[tuple[str, str], Document] = {}
    for document in documents:
        name = _key(document)
        if document.version > versions.get(name, -1):
            versions[name] = document.version
            newest[name] = document
            applied += 1
    return applied, newest


def _key(document: Document) -> tuple[str, str]:
    return to_text(document.type), to_text(document.id)


def _row(document: Document) -> tuple[Any, ...]:
    fields = ("", "", "") if document.deleted else tuple(map(indexable, document.fields))
    return (*_key(document), document.version, document.deleted, *map(to_text, fields), to_tsvector(fields))


def _columns(rows: Sequence[tuple[Any, ...]], count: int) -> list[list[Any]]:
    return [[row[column] for row in rows] for column in range(count)]
