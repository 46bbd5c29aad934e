"""Building the search index anew from the database."""

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from actors.consumers.retry import Permanent
from actors.consumers.search.handler import USER, user_document
from backends.ports.entities import Entity
from backends.ports.stores import Document, Progress, SearchIndex

PAGE = 200

Scan = Callable[[str, str, int], Awaitable[Sequence[Entity]]]
"""From a kind, an id and a number to the entities with ids above it, at most that many, by id."""


class Reindexed(msgspec.Struct, frozen=True):
    """How many documents the new index was built from, and the ids of users that are none (nobody finds them)."""

    documents: int
    skipped: tuple[str, ...]


async def reindex(index: SearchIndex, scan: Scan, progress: Progress) -> Reindexed:
    """Fill a new index with all users, then let it answer. Until then the old one does; it stays if this is
    cancelled or fails. Raises `RebuildUnderWay`."""
    expected = await index.count()  # the old index's: near enough for a progress bar
    done, skipped = 0, list[str]()
    async with index.rebuilding() as fresh:
        after = ""
        while page := await scan(USER, after, PAGE):
            documents: list[Document] = []
            for user in page:
                try:
                    documents.append(user_document(user.id, user.version, msgspec.json.decode(user.body, type=dict)))
                except (Permanent, msgspec.MsgspecError):
                    skipped.append(user.id)
            await fresh.apply(documents)
            done += len(documents)
            progress(done, max(done, expected))
            after = page[-1].id
        await fresh.swap()
    return Reindexed(done, tuple(skipped))
