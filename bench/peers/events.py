"""Sides of the event rows: a program a sample, on the embedded log or on engines that the session starts."""

import asyncio
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from bench.engines import Engines
from bench.events.samples import KEYS, audits
from bench.events.tally import TOPIC
from bench.peers.program import Program
from bench.registry import Session

PARTITIONS = 4
TOTAL = 120_000  # three seconds at the rate of the quickest
BATCH_BYTES = 256_000


class Embedded(Program):
    """On the log in a file that the program makes."""

    seconds, warmup_s = 2.0, 0.5


class OnKafka(Program):
    """On a topic of `TOTAL` records; each sample is a new group that reads it from the start."""

    needs = ("postgres", "kafka")
    seconds, warmup_s = 2.0, 0.5

    def __init__(self, python: Path, module: str) -> None:
        super().__init__(python, module)
        self.kind = "kafka-consumer"
        self._engines = Engines(("postgres", "kafka"))

    def start(self, session: Session) -> None:
        super().start(session)
        self._engines.start(session.layout.load_core)
        bootstrap = self._engines.bootstrap
        asyncio.run(fill(bootstrap, TOTAL))
        self.env = {"BENCH_KAFKA": bootstrap, "BENCH_POSTGRES": self._engines.dsn}
        self.more = ("--total", str(TOTAL))

    def stop(self) -> None:
        self._engines.stop()


async def fill(bootstrap: str, count: int) -> None:
    """Make the topic, and *count* records in it."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(TOPIC, PARTITIONS, 1)])
    await admin.close()
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, max_batch_size=BATCH_BYTES) as producer:
        batches = [producer.create_batch() for _ in range(PARTITIONS)]
        for number, (key, value, headers) in enumerate(audits(count)):
            partition = number % KEYS % PARTITIONS  # a key is in one partition
            record = {"timestamp": None, "key": key, "value": value, "headers": headers}
            if batches[partition].append(**record) is None:
                await send(producer, batches[partition], partition)
                batches[partition] = producer.create_batch()
                batches[partition].append(**record)
        for partition, batch in enumerate(batches):
            await send(producer, batch, partition)


async def send(producer: AIOKafkaProducer, batch: Any, partition: int) -> None:
    await (await producer.send_batch(batch, TOPIC, partition=partition))
