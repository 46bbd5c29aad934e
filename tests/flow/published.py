"""What is in Kafka, read beside the servers by a client of our own."""

import asyncio
import json
from collections import defaultdict

from aiokafka import AIOKafkaConsumer, TopicPartition


def entity_versions(bootstrap: str) -> dict[str, list[int]]:
    """The versions of each entity in `entity.changed`, in the order of the topic; repetitions are left in."""
    return asyncio.run(_entity_versions(bootstrap))


async def _entity_versions(bootstrap: str) -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest", enable_auto_commit=False)
    await consumer.start()
    try:
        numbers = consumer.partitions_for_topic("entity.changed") or await _partitions(consumer)
        partitions = [TopicPartition("entity.changed", number) for number in sorted(numbers)]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        await consumer.seek_to_beginning(*partitions)
        while any([await consumer.position(partition) < end for partition, end in ends.items()]):
            for records in (await consumer.getmany(timeout_ms=500)).values():
                for record in records:
                    change = json.loads(record.value)
                    found[change["id"]].append(change["version"])
    finally:
        await consumer.stop()
    return found


async def _partitions(consumer: AIOKafkaConsumer) -> set[int]:
    await consumer.topics()
    found: set[int] = consumer.partitions_for_topic("entity.changed") or set()
    return found


def in_order(versions: list[int]) -> bool:
    """Each first time, from 1 on without a gap: what is delivered again changes nothing."""
    return list(dict.fromkeys(versions)) == list(range(1, len(set(versions)) + 1))
