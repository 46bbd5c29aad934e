"""The search index on PostgreSQL: words made here (`words.py`), found by a GIN index, ranked by ts_rank.

An index that is built anew is a generation of rows beside the one that answers. A session's advisory lock says that
somebody builds, and goes with the session.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import trio

from backends.ports import stores as port
from backends.ports.stores import Document, RebuildUnderWay, SearchHit
from backends.postgres.pool import Connection, Pool
from backends.postgres.text import from_text, to_text
from backends.postgres.words import snippet, to_tsquery, to_tsvector
from backends.search_terms import indexable, terms_of, to_highlight

REBUILD_LOCK = 0x77656972_0003
# Documents in one statement.
APPLIED_AT_ONCE = 500
# How long a rebuild that was given up may take to clear up after itself; else the next one does it.
CLEANUP_S = 5.0
# Beginning and swapping touch every tombstone, or delete a whole index.
LONG_S = 300.0

_VERSIONS = """
SELECT d.type, d.id, d.version FROM unnest($1::text[], $2::text[]) AS wanted (type, id) CROSS JOIN LATERAL (
    SELECT type, id, version FROM document
    WHERE generation = (SELECT {generation} FROM search_state) AND type = wanted.type AND id = wanted.id OFFSET 0
) AS d
"""
# The state's row is locked, so that nobody swaps between the look at it and the commit.
_PUT = """
WITH state AS MATERIALIZED (SELECT live, building FROM search_state FOR SHARE)
INSERT INTO document (generation, type, id, version, deleted, name, email, bio, words)
SELECT generation, u.type, u.id, u.version, u.deleted, u.name, u.email, u.bio, u.words::tsvector
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::boolean[], $5::text[], $6::text[], $7::text[], $8::text[])
    AS u (type, id, version, deleted, name, email, bio, words),
    state CROSS JOIN LATERAL unnest({generations}) AS g (generation)
WHERE generation IS NOT NULL
ORDER BY generation, u.type, u.id
ON CONFLICT (generation, type, id) DO UPDATE SET version = excluded.version, deleted = excluded.deleted,
    name = excluded.name, email = excluded.email, bio = excluded.bio, words = excluded.words
WHERE excluded.version > document.version
"""


class _Statements(NamedTuple):
    versions: str
    put: str


_LIVE = _Statements(_VERSIONS.format(generation="live"), _PUT.format(generations="ARRAY[state.live, state.building]"))
_NEW = _Statements(_VERSIONS.format(generation="building"), _PUT.format(generations="ARRAY[state.building]"))
_DROP_OTHERS = "DELETE FROM document WHERE generation <> (SELECT live FROM search_state)"
_BEGIN = "UPDATE search_state SET building = greatest(live, coalesce(building, 0)) + 1"
_KEEP_TOMBSTONES = """
INSERT INTO document (generation, type, id, version, deleted, name, email, bio, words)
SELECT s.building, d.type, d.id, d.version, true, '', '', '', ''
FROM search_state s JOIN document d ON d.generation = s.live AND d.deleted
"""
_GIVE_UP = "UPDATE search_state SET building = NULL"
_SWAP = "UPDATE search_state SET live = building, building = NULL WHERE building IS NOT NULL"
_COUNT = "SELECT count(*) FROM document WHERE generation = (SELECT live FROM search_state) AND NOT deleted"
# A match in the name weighs ten times one in the bio, in the e-mail address five times.
_QUERY = """
SELECT type, id, ts_rank('{0.1, 0.1, 0.5, 1.0}', words, query) AS rank, name, email, bio
FROM document, CAST($1::text AS tsquery) AS query
WHERE words @@ query AND generation = (SELECT live FROM search_state) AND ($2::text IS NULL OR type = $2)
ORDER BY rank DESC, type, id OFFSET $3 LIMIT $4
"""


class SearchIndex(port.SearchIndex):
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def open(self) -> None:
        """Nothing: the pool is opened by the engine."""

    async def aclose(self) -> None:
        """Nothing."""

    async def apply(self, documents: Sequence[Document]) -> int:
        return await self._in_slices(documents, _LIVE)

    @asynccontextmanager
    async def rebuilding(self) -> AsyncIterator[port.Rebuild]:
        async with self._pool.session() as session:
            if not await session.fetchval("SELECT pg_try_advisory_lock($1)", REBUILD_LOCK):
                raise RebuildUnderWay("the search index is being built anew already")
            await self._pool.call(_begin, budget=LONG_S)
            rebuild = _Rebuild(self)
            try:
                yield rebuild
            finally:
                if not rebuild.swapped:
                    with trio.move_on_after(CLEANUP_S, shield=True):
                        await self._pool.call(_give_up, budget=CLEANUP_S)

    async def apply_new(self, documents: Sequence[Document]) -> int:
        """For `Rebuild` alone."""
        return await self._in_slices(documents, _NEW)

    async def swap(self) -> None:
        """For `Rebuild` alone. Atomic; the old rows go afterwards, and if that fails, with the next rebuild."""
        await self._pool.execute(_SWAP)

    async def clear_up(self) -> None:
        """For `Rebuild` alone."""
        await self._pool.execute(_DROP_OTHERS, budget=LONG_S)

    async def count(self) -> int:
        return int((await self._pool.fetch(_COUNT))[0][0])

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

    async def _in_slices(self, documents: Sequence[Document], into: _Statements) -> int:
        applied = 0
        for start in range(0, len(documents), APPLIED_AT_ONCE):
            applied += await self._put(documents[start : start + APPLIED_AT_ONCE], into)
        await trio.lowlevel.checkpoint()
        return applied

    async def _put(self, documents: Sequence[Document], into: _Statements) -> int:
        names = sorted({_key(document) for document in documents})

        async def run(connection: Connection) -> int:
            found = await connection.fetch(into.versions, *_columns(names, 2))
            # Also what is old to the live index: it may be new to the other one.
            rows = [_row(document) for _, document in sorted(_newest(documents).items())]
            await connection.execute(into.put, *_columns(rows, 8))
            return _count_newer(documents, {(type, id): version for type, id, version in map(tuple, found)})

        return await self._pool.call(run)


class _Rebuild(port.Rebuild):
    def __init__(self, index: SearchIndex) -> None:
        self._index = index
        self.swapped = False

    async def apply(self, documents: Sequence[Document]) -> int:
        return await self._index.apply_new(documents)

    async def swap(self) -> None:
        await self._index.swap()
        self.swapped = True
        await self._index.clear_up()


async def _begin(connection: Connection) -> None:
    await connection.execute("BEGIN")
    await connection.execute(_BEGIN)
    await connection.execute(_DROP_OTHERS)
    await connection.execute(_KEEP_TOMBSTONES)
    await connection.execute("COMMIT")


async def _give_up(connection: Connection) -> None:
    await connection.execute(_GIVE_UP)
    await connection.execute(_DROP_OTHERS)


def _newest(documents: Sequence[Document]) -> dict[tuple[str, str], Document]:
    """Of each name the first document of the highest version."""
    newest: dict[tuple[str, str], Document] = {}
    for document in documents:
        other = newest.get(_key(document))
        if other is None or document.version > other.version:
            newest[_key(document)] = document
    return newest


def _count_newer(documents: Sequence[Document], versions: dict[tuple[str, str], int]) -> int:
    """How many of *documents*, in order, are newer than what was before them."""
    count = 0
    for document in documents:
        name = _key(document)
        if name not in versions or document.version > versions[name]:
            versions[name] = document.version
            count += 1
    return count


def _key(document: Document) -> tuple[str, str]:
    return to_text(document.type), to_text(document.id)


def _row(document: Document) -> tuple[Any, ...]:
    fields = ("", "", "") if document.deleted else tuple(map(indexable, document.fields))
    return (*_key(document), document.version, document.deleted, *map(to_text, fields), to_tsvector(fields))


def _columns(rows: Sequence[tuple[Any, ...]], count: int) -> list[list[Any]]:
    return [[row[column] for row in rows] for column in range(count)]
