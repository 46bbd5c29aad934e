"""The producer: batches to partitions, each send under a deadline. asyncio's side of the bridge.

Idempotent and acknowledged by all in-sync replicas. After any failure the producer is dropped and the next send
starts another: its unconfirmed batches must not arrive late, behind those that are sent again.
"""

import asyncio
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import structlog
from aiokafka import AIOKafkaProducer

from backends.embedded.murmur2 import partition_of
from backends.kafka.aio import mend_producer, stop_producer
from backends.kafka.connection import Connection
from backends.kafka.errors import engine_errors
from backends.ports.entities import StoreUnavailable
from backends.ports.events import NewRecord, Partition

log = structlog.get_logger(__name__)

MAX_RECORD = 900_000
"""Bytes of one record, headers included: what a broker takes by default, less the frame around it."""

_BATCH = 512_000
_STOP_S = 2.0


class Producer:
    """Args:
    send_timeout: seconds for a send as a whole, connecting included.
    """

    def __init__(self, connection: Connection, *, send_timeout: float) -> None:
        self._connection = connection
        self._send_timeout = send_timeout
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()
        self._sends: set[asyncio.Task[Any]] = set()
        self._turns: dict[str, int] = {}
        self._partition_of = lru_cache(maxsize=4096)(partition_of)

    async def partitions(self, topic: str) -> int:
        """How many partitions *topic*, which exists, has."""
        with engine_errors(f"look up {topic}"):
            async with asyncio.timeout(self._send_timeout):
                producer = await self._started()
                return len(await producer.partitions_for(topic))

    async def send(self, records: Sequence[NewRecord], timestamp_ms: int) -> list[tuple[int, int]]:
        """Append to topics that exist, to each partition in order; returns (partition, offset) of each record.

        Raises ValueError for a partition that is not there, before anything is sent; `StoreUnavailable` or
        `UnusableKafka`, when what was sent to some of the partitions may be stored all the same. Cancelled: the
        batches under way are still sent.
        """
        topics = {record.topic for record in records}
        with engine_errors(f"append to {', '.join(sorted(topics))}"):
            async with asyncio.timeout(self._send_timeout):
                producer = await self._started()
                sizes = {topic: len(await producer.partitions_for(topic)) for topic in topics}
            chosen = [(record.topic, self._partition(record, sizes[record.topic])) for record in records]
            batches: dict[Partition, list[NewRecord]] = {}
            for partition, record in zip(chosen, records, strict=True):
                batches.setdefault(partition, []).append(record)
            offsets = await self._confirmed(producer, batches, timestamp_ms)
        taken = {partition: iter(given) for partition, given in offsets.items()}
        return [(partition[1], next(taken[partition])) for partition in chosen]

    async def _confirmed(
        self, producer: AIOKafkaProducer, batches: Mapping[Partition, Sequence[NewRecord]], timestamp_ms: int
    ) -> dict[Partition, list[int]]:
        sends = {
            partition: self._task(_send(producer, partition, batch, timestamp_ms))
            for partition, batch in batches.items()
        }
        _, late = await asyncio.wait(sends.values(), timeout=self._send_timeout)
        failed = [task for task in sends.values() if task.done() and task.exception() is not None]
        if late or failed:
            await self._drop(producer)
        if failed:
            await failed[0]
        if late:
            raise StoreUnavailable("Kafka did not confirm a batch in time")
        return {partition: task.result() for partition, task in sends.items()}

    def _partition(self, record: NewRecord, partitions: int) -> int:
        """As Kafka's default partitioner has it; without a key, one after the other."""
        if record.partition is not None:
            if not 0 <= record.partition < partitions:
                raise ValueError(f"topic {record.topic} has no partition {record.partition}")
            return record.partition
        if record.key is not None:
            return self._partition_of(record.key, partitions)
        turn = self._turns[record.topic] = self._turns.get(record.topic, -1) + 1
        return turn % partitions

    async def aclose(self) -> None:
        if self._producer is not None:
            await self._drop(self._producer)
        for task in list(self._sends):
            task.cancel()

    async def _started(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    **self._connection.options(),
                    acks="all",
                    enable_idempotence=True,
                    max_batch_size=_BATCH,
                    max_request_size=MAX_RECORD + 100_000,
                )
                mend_producer(producer)
                try:
                    await producer.start()
                except BaseException:
                    await stop_producer(producer, 0.0)
                    raise
                self._producer = producer
            return self._producer

    async def _drop(self, producer: AIOKafkaProducer) -> None:
        if self._producer is producer:
            self._producer = None
            await stop_producer(producer, _STOP_S)

    def _task(self, send: Any) -> "asyncio.Task[list[int]]":
        task = asyncio.create_task(send)
        self._sends.add(task)
        task.add_done_callback(self._sent)
        return task

    def _sent(self, task: "asyncio.Task[Any]") -> None:
        self._sends.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, also where the sender was cancelled


async def _send(
    producer: AIOKafkaProducer, partition: Partition, records: Sequence[NewRecord], timestamp_ms: int
) -> list[int]:
    """In as few batches as they fit in. aiokafka sends the batches of one partition one after the other."""
    topic, number = partition
    sent = []
    rest = list(records)
    while rest:
        builder = producer.create_batch()
        fitted = 0
        for record in rest:
            headers = list(record.headers)
            if builder.append(timestamp=timestamp_ms, key=record.key, value=record.value, headers=headers) is None:
                break
            fitted += 1
        builder.close()
        sent.append((fitted, await producer.send_batch(builder, topic, partition=number)))
        rest = rest[fitted:]
    await asyncio.wait([future for _, future in sent])
    failures = [future.exception() for _, future in sent]
    if any(failures):
        raise next(filter(None, failures))
    return [future.result().offset + place for count, future in sent for place in range(count)]
