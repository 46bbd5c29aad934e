"""The implementations of the ports, each with everything it needs to be opened on empty storage.

A suite written against a port takes the `backend` fixture and so runs on every implementation. What makes
many stores in one test (Hypothesis) takes `open_backend`.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import pytest

from backends.asyncio_bridge import asyncio_loop, crossing
from backends.embedded.audit import AuditStore as EmbeddedAuditStore
from backends.embedded.database import Database
from backends.embedded.deliveries import DeliveryStore as EmbeddedDeliveryStore
from backends.embedded.entities import EntityStore as EmbeddedEntityStore
from backends.embedded.event_log import EventLog as EmbeddedEventLog
from backends.embedded.search import SearchIndex as EmbeddedSearchIndex
from backends.ports.entities import EntityStore, Write
from backends.ports.event_log import EventLog
from backends.ports.outbox import Holder
from backends.ports.stores import AuditStore, DeliveryStore, SearchIndex
from backends.postgres.audit import AuditStore as PostgresAuditStore
from backends.postgres.deliveries import DeliveryStore as PostgresDeliveryStore
from backends.postgres.entities import EntityStore as PostgresEntityStore
from backends.postgres.outbox import Outbox, Relayed
from backends.postgres.pool import Pool
from backends.postgres.search import SearchIndex as PostgresSearchIndex
from tests.engines.postgres import Server, emptied


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


class DrainedEntityStore(PostgresEntityStore):
    """What it commits is in the log when it returns, as on the embedded engine: the relay runs in the call."""

    def __init__(
        self, pool: Pool, relayed: Relayed, holder: Holder, event_log: EventLog, clock: Clock, queries: list[str]
    ) -> None:
        super().__init__(pool, relayed, now=clock, on_query=queries.append)
        self._holder = holder
        self._log = event_log

    async def transact(self, writes: Sequence[Write]) -> list[Any]:
        outcomes = await super().transact(writes)
        while waiting := await self._holder.take(100):
            await self._log.append([row.record for row in waiting], durable=True)
            await self._holder.forget([row.id for row in waiting])
        return outcomes


class PostgresBackend:
    """The log is the embedded one: PostgreSQL stands beside a bus, and which one is no concern of these stores."""

    def __init__(self, pool: Pool, relayed: Relayed, holder: Holder, database: Database) -> None:
        self.clock = Clock()
        self.queries: list[str] = []
        self.event_log: EventLog = EmbeddedEventLog(database, now=self.clock)
        self.entities: EntityStore = DrainedEntityStore(pool, relayed, holder, self.event_log, self.clock, self.queries)
        self.audit: AuditStore = PostgresAuditStore(pool)
        self.search: SearchIndex = PostgresSearchIndex(pool)
        self.deliveries: DeliveryStore = PostgresDeliveryStore(pool, "tests")


@asynccontextmanager
async def open_postgres(dsn: str, wipe: Callable[[], Awaitable[None]]) -> AsyncIterator[Backend]:
    with TemporaryDirectory() as folder, Database.open(Path(folder) / "weir.db", fsync=lambda _: None) as database:
        pool, relayed = Pool(dsn), Relayed()
        async with asyncio_loop(), pool.opened(), Outbox(pool, relayed).held() as holder:
            await crossing(wipe)
            backend = PostgresBackend(pool, relayed, holder, database)
            await backend.event_log.open()
            yield backend
            await backend.event_log.aclose()


OpenBackend = Callable[[], AbstractAsyncContextManager[Backend]]


@pytest.fixture(scope="module", params=["embedded", pytest.param("postgres", marks=pytest.mark.engines)])
def open_backend(request: pytest.FixtureRequest) -> OpenBackend:
    if request.param == "embedded":
        return open_embedded
    server: Server = request.getfixturevalue("postgres")
    database = server.create_database()
    return partial(open_postgres, server.local_dsn(database), partial(emptied, server.admin_dsn(database)))


@pytest.fixture
async def backend(open_backend: OpenBackend) -> AsyncIterator[Backend]:
    async with open_backend() as opened:
        yield opened
