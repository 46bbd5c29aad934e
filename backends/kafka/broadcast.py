"""A topic read by every instance without a group: assigned to all partitions, from the end, with a heartbeat.

Kafka does not say that it has stopped saying things. So once a second somebody says something in every partition,
and a partition that is silent for longer than that can be is one that is not heard.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any
from uuid import uuid4

import msgspec
import structlog
import trio
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import ConsumerStoppedError

from backends.asyncio_bridge import crossing
from backends.kafka.aio import stop_consumer
from backends.kafka.connection import Connection
from backends.kafka.errors import UnusableKafka, engine_errors, translated
from backends.kafka.producer import Producer
from backends.kafka.reader import to_record
from backends.ports import broadcast as port
from backends.ports.broadcast import Unheard
from backends.ports.cloudevents import to_record as event_to_record
from backends.ports.entities import StoreUnavailable
from backends.ports.events import Event, NewRecord, Partition, Record

log = structlog.get_logger(__name__)

HEARTBEAT = "weir.heartbeat"
"""The type of the event; its data names no key, so that a listener need not know it."""

_WAIT_MS = 200
_STOP_S = 2.0
_CLOSE_S = 6.0


class Broadcast(port.Broadcast):
    """Args:
    beat: seconds between heartbeats in a partition. Whoever heard one that recent from another leaves its own out.
    silence: seconds without anything from a partition, after which `read` raises `Unheard`.
    request: seconds for a look-up, connecting included.
    most: records waiting for `read`; beyond it they are given up and `read` raises `Unheard`.
    """

    def __init__(
        self,
        connection: Connection,
        topic: str,
        *,
        beat: float = 1.0,
        silence: float = 3.0,
        request: float = 3.0,
        most: int = 10_000,
        now: Callable[[], float] = time.time,
        rng: Random | None = None,
    ) -> None:
        self._connection = connection
        self._topic = topic
        self._beat = beat
        self._silence = silence
        self._request = request
        self._most = most
        self._now = now
        self._rng = rng or Random()
        self._producer = Producer(connection, send_timeout=request)
        self._consumer: AIOKafkaConsumer | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._records: deque[Record] = deque()
        self._heard: dict[Partition, float] = {}
        self._failure: Exception | None = None
        self._news = trio.Event()

    async def begin(self) -> Mapping[Partition, int]:
        try:
            positions = await crossing(self._begin)
        except StoreUnavailable as error:
            raise Unheard(str(error)) from error
        self._heard = dict.fromkeys(positions, trio.current_time())
        return positions

    async def read(self, limit: int, max_wait: float) -> Sequence[Record]:
        await trio.lowlevel.checkpoint()
        deadline = trio.current_time() + max_wait
        while True:
            self._raise_if_unheard()
            if self._records:
                return [self._records.popleft() for _ in range(min(limit, len(self._records)))]
            if trio.current_time() >= deadline:
                return []
            self._news = trio.Event()
            with trio.move_on_at(min(deadline, min(self._heard.values()) + self._silence)):
                await self._news.wait()

    async def aclose(self) -> None:
        """Within a few seconds, whatever the brokers do."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _CLOSE_S):
            await crossing(self._end)
            await crossing(self._producer.aclose)

    def _raise_if_unheard(self) -> None:
        if self._failure is not None:
            raise self._failure
        now = trio.current_time()
        for (topic, number), heard in self._heard.items():
            if now - heard >= self._silence:
                raise Unheard(f"nothing from {topic}/{number} for {now - heard:.1f} s")

    # All below runs in asyncio.

    async def _begin(self) -> dict[Partition, int]:
        await self._end()
        with engine_errors(f"listen to {self._topic}"):
            async with asyncio.timeout(self._request):
                partitions = await self._producer.partitions(self._topic)
                self._consumer = consumer = AIOKafkaConsumer(
                    **self._connection.options(), enable_auto_commit=False, auto_offset_reset="latest"
                )
                await consumer.start()
                assigned = [TopicPartition(self._topic, number) for number in range(partitions)]
                ends: dict[Any, int] = await consumer.end_offsets(assigned)
                consumer.assign(assigned)
                for partition, end in ends.items():
                    consumer.seek(partition, end)
        self._records.clear()
        self._failure = None
        self._tasks = [asyncio.create_task(self._listen(consumer)), asyncio.create_task(self._beat_on(partitions))]
        return {(tp.topic, tp.partition): end for tp, end in ends.items()}

    async def _end(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            if self._tasks:
                self._tasks[1].cancel()
            # The listener is not cancelled: it ends with its consumer.
            await stop_consumer(consumer, _STOP_S)
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=_STOP_S)
        self._tasks = []

    async def _listen(self, consumer: AIOKafkaConsumer) -> None:
        while self._listens(consumer):
            try:
                fetched = await consumer.getmany(timeout_ms=_WAIT_MS)
            except ConsumerStoppedError:
                return
            except Exception as error:
                self._fail(translated(error, f"listen to {self._topic}"))
                return
            for tp, records in fetched.items():
                self._heard[tp.topic, tp.partition] = trio.current_time()
                self._records += map(to_record, records)
            if len(self._records) > self._most:
                self._fail(Unheard(f"more than {self._most} records of {self._topic} wait to be read"))
                return
            if fetched:
                self._news.set()

    def _listens(self, consumer: AIOKafkaConsumer) -> bool:
        return self._consumer is consumer

    def _fail(self, error: StoreUnavailable | UnusableKafka) -> None:
        self._failure = error if isinstance(error, UnusableKafka | Unheard) else Unheard(str(error))
        self._news.set()

    async def _beat_on(self, partitions: int) -> None:
        await asyncio.sleep(self._beat * self._rng.random())  # instances that start together need not beat together
        while True:
            due = [
                number
                for number in range(partitions)
                if trio.current_time() - self._heard.get((self._topic, number), 0.0) >= 0.75 * self._beat
            ]
            try:
                if due:
                    await self._producer.send([self._heartbeat(number) for number in due], int(self._now() * 1000))
            except (StoreUnavailable, UnusableKafka) as error:
                log.warning("kafka.no_heartbeat", topic=self._topic, reason=str(error))
            await asyncio.sleep(self._beat)

    def _heartbeat(self, number: int) -> NewRecord:
        event = Event(self._topic, "", HEARTBEAT, uuid4().hex, self._now(), b'{"keys":[]}')
        return msgspec.structs.replace(event_to_record(event), key=None, partition=number)
