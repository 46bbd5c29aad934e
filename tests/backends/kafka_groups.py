"""What the tests of groups on a real Kafka have in common."""

import gc
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import trio

from backends.asyncio_bridge import asyncio_loop
from backends.kafka.aio import quiet
from backends.kafka.connection import Connection
from backends.kafka.event_log import EventLog
from backends.kafka.member import Member, Timing
from backends.ports.event_log import Topic
from backends.ports.events import NewRecord, Partition
from backends.ports.groups import Commit, Start
from tests.backends.kafka_log import MemoryLedger
from tests.engines.kafka import Broker

QUICK = Timing(session=3.0, heartbeat=0.3, rebalance=5.0, revoke=3.0, poll=30.0, stuck=5.0, check=0.5, request=3.0)
_names = count()


class Consumer:
    """An assignee that keeps what it is told, reads all it is given, and commits when told or revoked."""

    def __init__(self, member: Member, *, commits: bool = True) -> None:
        self.member = member
        self.commits = commits
        self.told: list[tuple[str, list[Partition]]] = []
        self.starts: dict[Partition, Start] = {}
        self.values: list[str] = []
        self.ids: list[tuple[str, int, int]] = []
        self.done: dict[Partition, int] = {}
        self.on_assigned: Exception | None = None
        self.on_revoke: Callable[[], Any] | None = None
        self.errors: list[Exception] = []
        self.moved = trio.Event()

    async def assigned(self, starts: Mapping[Partition, Start]) -> None:
        if self.on_assigned is not None:
            raise self.on_assigned
        self.told.append(("assigned", sorted(starts)))
        self.starts |= starts

    async def revoked(self, partitions: Collection[Partition]) -> None:
        self.told.append(("revoked", sorted(partitions)))
        if self.on_revoke is not None:
            await self.on_revoke()
        if self.commits:
            await self.commit()
        for partition in partitions:
            self.done.pop(partition, None)
            self.starts.pop(partition, None)

    async def lost(self, partitions: Collection[Partition]) -> None:
        self.told.append(("lost", sorted(partitions)))
        for partition in partitions:
            self.done.pop(partition, None)
            self.starts.pop(partition, None)

    async def commit(self) -> None:
        await self.member.commit({partition: Commit(offset) for partition, offset in self.done.items()})

    async def poll(self, max_wait: float = 0.5) -> int:
        try:
            records = await self.member.poll(100, max_wait)
        finally:
            self.moved.set()
            self.moved = trio.Event()
        for record in records:
            self.values.append((record.value or b"").decode())
            self.ids.append((record.topic, record.partition, record.offset))
            self.done[record.topic, record.partition] = record.offset + 1
        return len(records)

    async def read(self, number: int) -> None:
        """Until *number* values in all are here."""
        while len(self.values) < number:
            await self.poll()

    async def until(self, done: Callable[[], bool], within: float = 60.0) -> None:
        """Wait for *done*, looked at whenever something was told or read by `run`."""
        with trio.fail_after(within):
            while not done():
                await self.moved.wait()

    async def own(self, number: int) -> None:
        """Until exactly *number* partitions are its own."""
        while len(self.starts) != number:
            await self.poll(0.1)

    async def run(self, *, ignore: tuple[type[Exception], ...] = ()) -> None:
        while True:
            try:
                if await self.poll() and self.commits:
                    await self.commit()
            except ignore as error:
                self.errors.append(error)
                await trio.sleep(0.1)


class Cluster:
    """A broker, a log on it, and members that leave at the end."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.ledger = MemoryLedger()
        self.log = self.another_log()
        self.members: list[Member] = []

    def another_log(self, **options: Any) -> EventLog:
        return EventLog(Connection(bootstrap=self.broker.bootstrap), self.ledger, **options)

    async def topic(self, partitions: int = 1) -> str:
        name = f"topic-{next(_names)}"
        await self.log.ensure_topics([Topic(name, partitions, None)])
        return name

    async def fill(self, topic: str, *values: str, partition: int | None = None) -> None:
        await self.log.append([NewRecord(topic, b"k", v.encode(), (), partition) for v in values], durable=True)

    def member(self, group: str, *topics: str, timing: Timing = QUICK, instance_id: str = "", **options: Any) -> Member:
        connection = Connection(
            bootstrap=self.broker.bootstrap, instance_id=instance_id, request_timeout=3.0, metadata_age=2.0
        )
        made = Member(
            connection,
            group,
            topics,
            prepare=self._prepare,
            committed=self.log.forget_attempts,
            timing=timing,
            **options,
        )
        self.members.append(made)
        return made

    async def consumer(self, group: str, *topics: str, commits: bool = True, **options: Any) -> Consumer:
        consumer = Consumer(self.member(group, *topics, **options), commits=commits)
        await consumer.member.join(consumer)
        return consumer

    async def _prepare(self, topics: Collection[str]) -> None:
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def cluster(broker: Broker) -> AsyncIterator[Cluster]:
    with quiet():
        async with _running(broker) as opened:
            yield opened
    gc.collect()  # here, where what aiokafka left behind may be warned of, and not in another test


@asynccontextmanager
async def _running(broker: Broker) -> AsyncIterator[Cluster]:
    async with asyncio_loop():
        opened = Cluster(broker)
        try:
            yield opened
        finally:
            with trio.CancelScope(shield=True):
                for member in opened.members:
                    await member.leave()
                await opened.log.aclose()
