"""Operations on the search index: build it anew."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from actors.consumers.search.reindex import reindex
from actors.storage.messages import Scan
from backends.ports.entities import Entity
from backends.ports.stores import Progress, RebuildUnderWay, SearchIndex
from gateway.admin.operations import Lookup, OperationError


class SearchOperations:
    def __init__(self, index: SearchIndex, lookup: Lookup) -> None:
        self._index = index
        self._lookup = lookup

    def by_name(self) -> dict[str, Callable[..., Awaitable[Any]]]:
        return {"search.reindex": self.reindex}

    async def reindex(self, progress: Progress) -> dict[str, Any]:
        """From the database. The old index answers until the new one takes its place."""
        try:
            done = await reindex(self._index, self._scan, progress)
        except RebuildUnderWay as error:
            raise OperationError(f"{error}; wait for it to end") from None
        answer: dict[str, Any] = msgspec.to_builtins(done)
        return answer

    async def _scan(self, kind: str, after: str, limit: int) -> list[Entity]:
        page: list[Entity] = await self._lookup("storage_scans").ask(Scan(kind, after, limit), timeout=30.0)
        return page
