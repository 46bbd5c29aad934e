"""The implementations of the ports, each with everything it needs to be opened on empty storage.

A suite written against a port takes the `backend` fixture and so runs on every implementation. What makes
many stores in one test (Hypothesis) takes `open_backend`.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import pytest

from backends.embedded.audit import AuditStore as EmbeddedAuditStore
from backends.embedded.database import Database
from backends.embedded.deliveries import DeliveryStore as EmbeddedDeliveryStore
from backends.embedded.entities import EntityStore as EmbeddedEntityStore
from backends.embedded.event_log import EventLog as EmbeddedEventLog
from backends.embedded.search import SearchIndex as EmbeddedSearchIndex
from backends.ports.entities import EntityStore
from backends.ports.event_log import EventLog
from backends.ports.stores import AuditStore, DeliveryStore, SearchIndex


class Clock:
    """Unix time that moves when told."""

    def __init__(self, now: float = 1_700_000_000.25) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Backend(Protocol):
    """Open stores on one empty storage, sharing one clock."""

    clock: Clock
    queries: list[str]
    entities: EntityStore
    event_log: EventLog
    audit: AuditStore
    search: SearchIndex
    deliveries: DeliveryStore


class EmbeddedBackend:
    def __init__(self, database: Database) -> None:
        self.clock = Clock()
        self.queries: list[str] = []
        self.entities: EntityStore = EmbeddedEntityStore(database, now=self.clock, on_query=self.queries.append)
        self.event_log: EventLog = EmbeddedEventLog(database, now=self.clock)
        self.audit: AuditStore = EmbeddedAuditStore(database)
        self.search: SearchIndex = EmbeddedSearchIndex(database)
        self.deliveries: DeliveryStore = EmbeddedDeliveryStore(database)


@asynccontextmanager
async def open_embedded() -> AsyncIterator[Backend]:
    with TemporaryDirectory() as directory, Database.open(Path(directory) / "weir.db") as database:
        backend = EmbeddedBackend(database)
        async with AsyncExitStack() as stack:
            for store in (
                backend.entities,
                backend.event_log,
                backend.audit,
                backend.search,
                backend.deliveries,
            ):
                await store.open()
                stack.push_async_callback(store.aclose)
            yield backend


OpenBackend = Callable[[], AbstractAsyncContextManager[Backend]]


@pytest.fixture(scope="module", params=["embedded"])
def open_backend(request: pytest.FixtureRequest) -> OpenBackend:
    return {"embedded": open_embedded}[request.param]


@pytest.fixture
async def backend(open_backend: OpenBackend) -> AsyncIterator[Backend]:
    async with open_backend() as opened:
        yield opened
