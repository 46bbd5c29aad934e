"""PostgreSQL and Kafka as one engine."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from backends.kafka.engine import Kafka
from backends.ports.broadcast import Broadcast
from backends.ports.engine import Health
from backends.ports.event_log import Topic
from backends.ports.groups import GroupMember
from backends.postgres.engine import Engine
from backends.postgres.pool import Pool


class RemoteEngine(Engine):
    """What is stored is in PostgreSQL, what is published in Kafka; each may be away without the other."""

    def __init__(self, pool: Pool, kafka: Kafka, topics: Sequence[Topic], owner: str) -> None:
        super().__init__(pool, kafka.event_log, owner)
        self._kafka = kafka
        self._topics = topics

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        async with self._pool.opened(), self._kafka.opened(self._topics):
            yield

    def health(self) -> Health:
        stored, published = self._pool.health(), self._kafka.health()
        # Requests need the database. Without the bus they are answered, and what they publish waits.
        return Health(stored.reached, stored.problems + published.problems)

    def members(self) -> Callable[[str, Sequence[str]], GroupMember]:
        return self._kafka.member

    def broadcast(self) -> Broadcast:
        return self._kafka.broadcast()
