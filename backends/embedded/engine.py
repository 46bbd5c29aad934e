"""The embedded engine as one thing: every adapter over one database file, and its housekeeping."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

from backends.embedded.audit import AuditStore
from backends.embedded.database import Database
from backends.embedded.deliveries import DeliveryStore
from backends.embedded.entities import EntityStore
from backends.embedded.event_log import EventLog
from backends.embedded.search import SearchIndex
from backends.ports import entities, event_log, stores
from backends.ports.engine import Health
from backends.ports.outbox import Outbox

Adapter = EntityStore | EventLog | AuditStore | SearchIndex | DeliveryStore
A = TypeVar("A", bound=Adapter)


class Engine:
    """Makes adapters, and opens them all for the length of `opened`: they outlive the actors that use them,
    so that a crash need not find the file again."""

    one_process = True
    needs_asyncio = False

    def __init__(
        self,
        database: Database,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._now = now
        self._made: list[Adapter] = []

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Open the adapters made so far; close them, the last first, at the end."""
        async with AsyncExitStack() as stack:
            for adapter in self._made:
                await adapter.open()
                stack.push_async_callback(adapter.aclose)
            yield

    def health(self) -> Health:
        return Health(reached=True)

    def entities(self) -> entities.EntityStore:
        return self._adapter(EntityStore(self._database, now=self._now))

    def event_log(self) -> event_log.EventLog:
        return self._adapter(EventLog(self._database, now=self._now))

    def outbox(self) -> Outbox | None:
        return None

    def members(self) -> None:
        return None

    def broadcast(self) -> None:
        return None

    def audit(self) -> stores.AuditStore:
        return self._adapter(AuditStore(self._database))

    def search(self) -> stores.SearchIndex:
        return self._adapter(SearchIndex(self._database))

    def deliveries(self) -> stores.DeliveryStore:
        return self._adapter(DeliveryStore(self._database))

    async def checkpoint(self) -> None:
        """Move the write-ahead log into the database; about once a second."""
        await self._database.checkpoint()

    def _adapter(self, adapter: A) -> A:
        self._made.append(adapter)
        return adapter
