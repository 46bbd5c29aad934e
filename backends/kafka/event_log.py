"""The event log on Kafka. What Kafka has no place for is the ledger's."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

import trio
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import CommitFailedError
from aiokafka.structs import OffsetAndMetadata

from backends.asyncio_bridge import crossing
from backends.kafka.aio import retrying, stop_consumer
from backends.kafka.connection import Connection
from backends.kafka.errors import engine_errors
from backends.kafka.producer import MAX_RECORD, Producer
from backends.kafka.reader import Reader
from backends.kafka.topics import Topics
from backends.ports import event_log as port
from backends.ports.entities import StoreUnavailable
from backends.ports.event_log import NO_METADATA, Attempt, Topic
from backends.ports.events import NewRecord, Offsets, Partition, Record
from backends.ports.groups import Commit
from backends.ports.ledger import ConsumerLedger

T = TypeVar("T")

_CLOSE_S = 5.0
_SUFFIXES = (".dlt", ".retry")


class EventLog(port.EventLog):
    """Opens its connections when they are first needed, and again after a failure. Needs asyncio's loop.

    A topic is ours when it was made sure of or appended to here, or is the `.dlt` or `.retry` of one: `groups` and
    `topics` leave out whatever else is on the cluster.

    Args:
        timeout: seconds for one operation, connecting included; then `StoreUnavailable`.
        now: Unix seconds, for the time of records.
    """

    def __init__(
        self,
        connection: Connection,
        ledger: ConsumerLedger,
        *,
        timeout: float = 5.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._connection = connection
        self._ledger = ledger
        self._timeout = timeout
        self._now = now
        self._producer = Producer(connection, send_timeout=timeout)
        self._topics = Topics(connection, timeout=timeout)
        self._reader = Reader(connection, timeout=timeout)
        self._ours: set[str] = set()
        self._sizes: dict[str, int] = {}
        """The topics that exist, as far as they were looked up, with their partitions."""
        self._tried: set[tuple[str, Partition]] = set()
        """Groups and partitions that may have attempts: a commit to others need not ask the ledger."""

    async def open(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Within a few seconds, whatever the brokers do."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _CLOSE_S):
            for part in (self._producer, self._reader, self._topics):
                await crossing(part.aclose)

    # Topics.

    async def ensure_topics(self, topics: Sequence[Topic]) -> None:
        """Raises `UnusableKafka` when a topic is missing and there is no right to create it."""
        self._ours |= {topic.name for topic in topics}
        await self._look_up()
        missing = [topic for topic in topics if topic.name not in self._sizes]
        if missing:
            await self._create(missing)
        for topic in topics:
            if topic not in missing:
                await crossing(self._topics.retain, topic)

    async def ensure_present(self, topics: Sequence[str]) -> None:
        """Create those of dead letters and replays that are missing; raises `StoreUnavailable` for another one,
        which somebody else (`ensure_topics`) creates with its partitions."""
        missing = [topic for topic in topics if topic not in self._sizes]
        if missing:
            await self._look_up()
        missing = [topic for topic in missing if topic not in self._sizes]
        for topic in missing:
            if not topic.endswith(_SUFFIXES):
                raise StoreUnavailable(f"Kafka: topic {topic} does not exist yet")
        await self._create([Topic(topic, 1, None) for topic in missing])
        self._ours |= set(topics)

    async def topics(self) -> list[Topic]:
        await self._look_up()
        names = [name for name in sorted(self._sizes) if self._is_ours(name)]
        retentions = await crossing(self._topics.retentions, names)
        return [Topic(name, self._sizes[name], retentions[name]) for name in names]

    # Appending.

    async def append(self, records: Sequence[NewRecord], *, durable: bool) -> list[tuple[int, int]]:
        """`durable` changes nothing: every append waits for all in-sync replicas."""
        if not records:
            await trio.lowlevel.checkpoint()
            return []
        for record in records:
            _check_size(record)
        topics = {record.topic for record in records}
        if topics - self._sizes.keys():
            await self._look_up()
        await self._create([Topic(topic, 1, None) for topic in topics if topic not in self._sizes])
        self._ours |= topics
        return await crossing(self._producer.send, records, int(self._now() * 1000))

    # Reading.

    async def fetch(self, positions: Offsets, limit: int) -> list[Record]:
        known = {p: offset for p, offset in positions.items() if await self._exists(p)}
        if not known or limit < 1:
            await trio.lowlevel.checkpoint()
            return []
        while True:
            fetched = await crossing(self._reader.fetch, known, limit)
            kept = await self._without_dropped(fetched)
            if kept or not fetched:
                return kept
            for record in fetched:  # all of them were dropped: look behind them
                known[record.topic, record.partition] = record.offset + 1

    async def read(self, partition: Partition, offset: int) -> Record | None:
        found = await self.fetch({partition: offset}, 1)
        return found[0] if found and found[0].offset == offset else None

    async def end_offsets(self, topic: str) -> dict[Partition, int]:
        partitions = await self._partitions(topic)
        return await crossing(self._reader.ends, partitions) if partitions else {}

    async def start_offsets(self, topic: str) -> dict[Partition, int]:
        partitions = await self._partitions(topic)
        return await crossing(self._reader.starts, partitions) if partitions else {}

    # Groups.

    async def committed(self, group: str, topic: str) -> dict[Partition, int]:
        partitions = await self._partitions(topic)
        return await crossing(self._topics.committed, group, partitions) if partitions else {}

    async def progress(self, group: str, topic: str) -> dict[Partition, Commit]:
        partitions = await self._partitions(topic)
        return await crossing(self._topics.progress, group, partitions) if partitions else {}

    async def commit(self, group: str, offsets: Offsets, metadata: Mapping[Partition, str] = NO_METADATA) -> None:
        """For a group without members (a group that has some is committed to by them alone: ValueError)."""
        for partition in offsets:
            if not await self._exists(partition):
                raise ValueError(f"there is no partition {partition[0]}/{partition[1]}")
        await crossing(self._commit, group, offsets, metadata)
        await self.forget_attempts(group, offsets)

    async def _commit(self, group: str, offsets: Offsets, metadata: Mapping[Partition, str]) -> None:
        consumer = AIOKafkaConsumer(**self._connection.options(), group_id=group, enable_auto_commit=False)
        commits = {TopicPartition(*p): OffsetAndMetadata(offset, metadata.get(p, "")) for p, offset in offsets.items()}
        consumer.assign(list(commits))
        with engine_errors(f"commit for group {group}"):
            try:
                await _within(self._timeout, consumer.start)
                await _within(self._timeout, lambda: retrying(lambda: consumer.commit(commits)))
            except CommitFailedError:
                raise ValueError(f"group {group} has members: they alone commit for it") from None
            finally:
                await stop_consumer(consumer, 1.0)

    async def groups(self) -> Mapping[str, list[str]]:
        """Groups that committed to topics of ours."""
        found = {}
        for group in await crossing(self._topics.groups):
            topics = {topic for topic, _ in await crossing(self._topics.committed, group) if self._is_ours(topic)}
            if topics:
                found[group] = sorted(topics)
        return found

    async def attempts(self, group: str, partition: Partition) -> dict[int, Attempt]:
        found = await self._ledger.attempts(group, partition)
        if found:
            self._tried.add((group, partition))
        return found

    async def save_attempt(self, group: str, partition: Partition, offset: int, attempt: Attempt) -> None:
        self._tried.add((group, partition))
        await self._ledger.save_attempt(group, partition, offset, attempt)

    async def forget_attempts(self, group: str, offsets: Offsets) -> None:
        """What `commit` does beside committing; members that commit by themselves call it."""
        tried = {p: offset for p, offset in offsets.items() if (group, p) in self._tried}
        if tried:
            await self._ledger.forget_attempts_below(group, tried)

    async def drop(self, partition: Partition, offsets: Sequence[int]) -> int:
        """Kafka keeps them until their retention, if any; here they are gone."""
        if not offsets or not await self._exists(partition):
            return 0
        start = (await crossing(self._reader.starts, [partition]))[partition]
        end = (await crossing(self._reader.ends, [partition]))[partition]
        return await self._ledger.drop(partition, [offset for offset in offsets if start <= offset < end])

    async def purge(self, now: float, limit: int) -> int:
        """Kafka deletes by itself."""
        await trio.lowlevel.checkpoint()
        return 0

    # Beside.

    async def _look_up(self) -> None:
        self._sizes = await crossing(self._topics.sizes)

    async def _create(self, topics: Sequence[Topic]) -> None:
        if not topics:
            return
        await crossing(self._topics.create, topics)
        for topic in topics:
            self._sizes[topic.name] = await crossing(self._producer.partitions, topic.name)

    async def _partitions(self, topic: str) -> list[Partition]:
        if topic not in self._sizes:
            await self._look_up()
        return [(topic, number) for number in range(self._sizes.get(topic, 0))]

    async def _exists(self, partition: Partition) -> bool:
        return partition in await self._partitions(partition[0])

    async def _without_dropped(self, records: Sequence[Record]) -> list[Record]:
        gone: set[tuple[Partition, int]] = set()
        offsets: dict[Partition, list[int]] = {}
        for record in records:
            offsets.setdefault((record.topic, record.partition), []).append(record.offset)
        for partition, of_partition in offsets.items():
            gone |= {(partition, offset) for offset in await self._ledger.dropped(partition, of_partition)}
        return [r for r in records if ((r.topic, r.partition), r.offset) not in gone]

    def _is_ours(self, topic: str) -> bool:
        return topic in self._ours or (
            topic.endswith(_SUFFIXES) and any(topic.startswith(f"{ours}.") for ours in self._ours)
        )


def _check_size(record: NewRecord) -> None:
    size = len(record.key or b"") + len(record.value or b"") + sum(len(n) + len(v) + 10 for n, v in record.headers)
    if size > MAX_RECORD:
        raise ValueError(f"a record for {record.topic} has {size} bytes; Kafka takes up to {MAX_RECORD}")


async def _within(seconds: float, operation: Callable[[], Awaitable[T]]) -> T:
    async with asyncio.timeout(seconds):
        return await operation()
