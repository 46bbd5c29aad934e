"""Changes of users into the search index."""

from collections.abc import Sequence
from typing import Any

from actors.consumers.changes import EntityChange, decode_change, kind_of
from actors.consumers.partitions import Delivered
from actors.consumers.retry import Permanent
from backends.ports.events import Event
from backends.ports.stores import Document, SearchIndex

USER = "user"
FIELDS = ("name", "email", "bio")


class SearchHandler:
    """Group `search`. Redelivery and reordering are no-ops: the index keeps the highest version."""

    def __init__(self, index: SearchIndex) -> None:
        self._index = index

    async def handle(self, events: Sequence[Delivered]) -> None:
        """Apply all documents in one call; changes of other kinds than users are none of its business."""
        documents = [document for delivered in events if (document := document_of(delivered.event)) is not None]
        if documents:
            await self._index.apply(documents)


def document_of(event: Event) -> Document | None:
    """The document's state after *event*, None for other kinds. Raises `Permanent` for malformed data."""
    if kind_of(event) != USER:
        return None
    change = decode_change(event)
    if change.entity is None:
        return Document(type=USER, id=change.id, version=_version_of_deletion(change), deleted=True)
    return user_document(change.id, change.version, change.entity)


def user_document(id: str, version: int, user: dict[str, Any]) -> Document:
    """A user as a document; a reindex makes its documents with this too."""
    name, email, bio = (user.get(field) or "" for field in FIELDS)
    for value in (name, email, bio):
        if not isinstance(value, str):
            raise Permanent(f"user {id}: name, email and bio are texts, not {value!r}")
    return Document(type=USER, id=id, version=version, fields=(name, email, bio))


def _version_of_deletion(change: EntityChange) -> int:
    """Above the version that was deleted, whichever of the two the event names: the tombstone must win."""
    last = change.previous.get("version") if change.previous else None
    return max(change.version, last + 1) if isinstance(last, int) else change.version + 1
