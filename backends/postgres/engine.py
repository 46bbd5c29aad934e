"""PostgreSQL beside a bus: every store over one pool, and the event log that it is given."""

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from backends.ports import entities, event_log, stores
from backends.ports import outbox as outbox_port
from backends.ports.broadcast import Broadcast
from backends.ports.engine import Health
from backends.ports.groups import GroupMember
from backends.postgres.audit import AuditStore
from backends.postgres.deliveries import DeliveryStore
from backends.postgres.entities import EntityStore
from backends.postgres.outbox import Outbox, Relayed
from backends.postgres.pool import Pool
from backends.postgres.search import SearchIndex


class Engine:
    """Its adapters hold nothing of their own, so there is nothing to open but the pool and the log.

    Args:
        event_log: the bus. It keeps what it has no place for in a `ConsumerLedger` over the same pool.
        owner: this instance's name, another one after each start.
    """

    one_process = False
    needs_asyncio = True

    def __init__(
        self,
        pool: Pool,
        event_log: event_log.EventLog,
        owner: str,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._pool = pool
        self._event_log = event_log
        self._owner = owner
        self._now = now
        self._relayed = Relayed()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """To be entered within the asyncio loop."""
        async with self._pool.opened():
            await self._event_log.open()
            try:
                yield
            finally:
                await self._event_log.aclose()

    def health(self) -> Health:
        return self._pool.health()

    def entities(self) -> entities.EntityStore:
        return EntityStore(self._pool, self._relayed, now=self._now)

    def event_log(self) -> event_log.EventLog:
        return self._event_log

    def outbox(self) -> outbox_port.Outbox | None:
        return Outbox(self._pool, self._relayed)

    def members(self) -> Callable[[str, Sequence[str]], GroupMember] | None:
        return None

    def broadcast(self) -> Broadcast | None:
        return None

    def audit(self) -> stores.AuditStore:
        return AuditStore(self._pool)

    def search(self) -> stores.SearchIndex:
        return SearchIndex(self._pool)

    def deliveries(self) -> stores.DeliveryStore:
        return DeliveryStore(self._pool, self._owner)

    async def checkpoint(self) -> None:
        """PostgreSQL makes its own."""
