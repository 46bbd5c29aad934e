"""Reading single stretches of the log, beside every group: a consumer that is assigned what is asked for.

asyncio's side of the bridge. What runs here is never cancelled but ends at its own deadline: a `getmany` that is
cancelled breaks its consumer.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition

from backends.embedded.fair_fetch import fetch_fairly
from backends.kafka.aio import stop_consumer
from backends.kafka.connection import Connection
from backends.kafka.errors import engine_errors
from backends.ports.events import Offsets, Partition, Record

T = TypeVar("T")

_STOP_S = 1.0
_WAIT_MS = 200
_FETCH_WAIT_MS = 20
"""A broker answers a connection's requests in turn: what comes after a fetch that found nothing waits so long."""


class Reader:
    """One operation at a time.

    Args:
        timeout: seconds for one operation, connecting included.
    """

    def __init__(self, connection: Connection, *, timeout: float) -> None:
        self._connection = connection
        self._timeout = timeout
        self._consumer: AIOKafkaConsumer | None = None
        self._turn = asyncio.Lock()
        self._running: set[asyncio.Task[Any]] = set()

    async def ends(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        asked = [TopicPartition(*partition) for partition in partitions]
        found = await self._do("read end offsets", lambda consumer: consumer.end_offsets(asked))
        return {tuple(partition): offset for partition, offset in found.items()}

    async def starts(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        asked = [TopicPartition(*partition) for partition in partitions]
        found = await self._do("read start offsets", lambda consumer: consumer.beginning_offsets(asked))
        return {tuple(partition): offset for partition, offset in found.items()}

    async def fetch(self, positions: Offsets, limit: int) -> list[Record]:
        """Up to *limit* records from *positions* on, shared fairly; the partitions exist. It does not wait for
        what is not there yet."""
        return await self._do("read records", lambda consumer: _fetch(consumer, positions, limit))

    async def aclose(self) -> None:
        if self._running:
            await asyncio.wait(self._running, timeout=self._timeout)
        await self._drop()

    async def _do(self, what: str, operation: Callable[[AIOKafkaConsumer], Awaitable[T]]) -> T:
        task = asyncio.create_task(self._in_turn(operation))
        self._running.add(task)
        task.add_done_callback(self._ran)
        with engine_errors(what):
            return await asyncio.shield(task)

    def _ran(self, task: "asyncio.Task[Any]") -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, also where nobody waits any more

    async def _in_turn(self, operation: Callable[[AIOKafkaConsumer], Awaitable[T]]) -> T:
        async with self._turn:
            try:
                async with asyncio.timeout(self._timeout):
                    return await operation(await self._started())
            except BaseException:
                await self._drop()
                raise

    async def _started(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            self._consumer = AIOKafkaConsumer(
                **self._connection.options(),
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                fetch_max_wait_ms=_FETCH_WAIT_MS,
            )
            await self._consumer.start()
        return self._consumer

    async def _drop(self) -> None:
        if self._consumer is not None:
            consumer, self._consumer = self._consumer, None
            await stop_consumer(consumer, _STOP_S)


async def _fetch(consumer: AIOKafkaConsumer, positions: Offsets, limit: int) -> list[Record]:
    asked = {TopicPartition(*partition): offset for partition, offset in positions.items()}
    starts, ends = await consumer.beginning_offsets(list(asked)), await consumer.end_offsets(list(asked))
    ahead = {partition: max(offset, starts[partition]) for partition, offset in asked.items()}
    ahead = {partition: offset for partition, offset in ahead.items() if offset < ends[partition]}
    found: dict[Partition, list[Record]] = {}
    consumer.assign(list(ahead))
    for partition, offset in ahead.items():
        consumer.seek(partition, offset)
    while ahead:
        for partition, records in (await consumer.getmany(*ahead, timeout_ms=_WAIT_MS)).items():
            room = found.setdefault(tuple(partition), [])
            room += map(to_record, records[: limit - len(room)])
        # By position, not by the last record: markers of transactions have offsets, too.
        ahead = {
            partition: ends[partition]
            for partition in ahead
            if len(found.get(tuple(partition), ())) < limit and await consumer.position(partition) < ends[partition]
        }
    consumer.assign([])  # else it goes on fetching for nobody
    return fetch_fairly(_clamped(positions, found), limit, _taking(found))


def _clamped(positions: Offsets, found: Mapping[Partition, list[Record]]) -> dict[Partition, int]:
    return {partition: offset for partition, offset in positions.items() if found.get(partition)}


def _taking(found: Mapping[Partition, list[Record]]) -> Callable[[Partition, int, int], list[Record]]:
    def take(partition: Partition, offset: int, most: int) -> list[Record]:
        return [record for record in found[partition] if record.offset >= offset][:most]

    return take


def to_record(record: Any) -> Record:
    """aiokafka's record as the ports have it."""
    return Record(
        record.topic, record.partition, record.offset, record.timestamp, record.key, record.value, record.headers
    )
