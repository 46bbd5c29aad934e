"""The plain client: `getmany`, a no-op for each record, a commit a batch."""

import asyncio
import uuid

from aiokafka import AIOKafkaConsumer, ConsumerRecord

from bench.events.tally import TOPIC, Given, Tally, main

MOST = 500


async def nothing(record: ConsumerRecord) -> None:
    """What is done with a record."""


async def consume(given: Given) -> dict[str, float]:
    over = asyncio.Event()
    tally = Tally(given, over.set)
    consumer = AIOKafkaConsumer(
        TOPIC,
        bootstrap_servers=given.bootstrap,
        group_id=f"bench-{uuid.uuid4()}",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    async with consumer:
        while not over.is_set():
            batch = await consumer.getmany(timeout_ms=200, max_records=MOST)
            for records in batch.values():
                for record in records:
                    await nothing(record)
            if batch:
                await consumer.commit()
                tally.add(sum(map(len, batch.values())))
    return tally.figures()


def kafka_consume(given: Given) -> dict[str, float]:
    return asyncio.run(consume(given))


if __name__ == "__main__":
    main({"kafka-consume": kafka_consume, "kafka-consume-batch": kafka_consume})
