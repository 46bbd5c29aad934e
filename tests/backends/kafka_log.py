"""The event log on a real Kafka, as the suites of the port take it; its ledger is in memory."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient

from backends.asyncio_bridge import asyncio_loop, crossing
from backends.kafka.connection import Connection
from backends.kafka.event_log import EventLog
from backends.ports.event_log import Attempt
from backends.ports.events import Offsets, Partition
from tests.backends.conftest import Clock
from tests.engines.kafka import Broker


class MemoryLedger:
    """A `ConsumerLedger` for tests of what stands in front of one."""

    def __init__(self) -> None:
        self.tries: dict[tuple[str, Partition], dict[int, Attempt]] = {}
        self.gone: set[tuple[Partition, int]] = set()

    async def attempts(self, group: str, partition: Partition) -> dict[int, Attempt]:
        return dict(self.tries.get((group, partition), {}))

    async def save_attempt(self, group: str, partition: Partition, offset: int, attempt: Attempt) -> None:
        self.tries.setdefault((group, partition), {})[offset] = attempt

    async def forget_attempts_below(self, group: str, offsets: Offsets) -> None:
        for partition, below in offsets.items():
            kept = self.tries.get((group, partition), {})
            self.tries[group, partition] = {offset: tried for offset, tried in kept.items() if offset >= below}

    async def drop(self, partition: Partition, offsets: Sequence[int]) -> int:
        new = {(partition, offset) for offset in offsets} - self.gone
        self.gone |= new
        return len(new)

    async def dropped(self, partition: Partition, offsets: Sequence[int]) -> set[int]:
        return {offset for offset in offsets if (partition, offset) in self.gone}


class KafkaBackend:
    """Of `Backend`, what the suites of the event log use."""

    def __init__(self, broker: Broker) -> None:
        self.clock = Clock()
        self.event_log = EventLog(Connection(bootstrap=broker.bootstrap), MemoryLedger(), now=self.clock)


def opening(broker: Broker) -> Callable[[], AbstractAsyncContextManager[Any]]:
    @asynccontextmanager
    async def open_kafka_backend() -> AsyncIterator[KafkaBackend]:
        async with asyncio_loop():
            backend = KafkaBackend(broker)
            await backend.event_log.open()
            try:
                yield backend
            finally:
                await backend.event_log.aclose()
                await crossing(_delete_topics, broker.bootstrap)

    return open_kafka_backend


async def _delete_topics(bootstrap: str) -> None:
    """The next test begins on a log without any; the groups' offsets go along."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        names = [name for name in await admin.list_topics() if not name.startswith("__")]
        if names:
            await admin.delete_topics(names)
    finally:
        await admin.close()
