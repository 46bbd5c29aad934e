"""What is in Kafka, read beside the servers by a client of our own."""

import asyncio
import json
from collections import defaultdict
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient


def records(bootstrap: str, suffix: str) -> dict[str, list[ConsumerRecord[Any, Any]]]:
    """All that is in the topics whose names end so, by topic, each partition's in order."""
    return asyncio.run(_records(bootstrap, suffix))


def entity_versions(bootstrap: str) -> dict[str, list[int]]:
    """The versions of each entity in `entity.changed`, in the order of the topic; repetitions are left in."""
    found: dict[str, list[int]] = defaultdict(list)
    for record in records(bootstrap, "entity.changed").get("entity.changed", ()):
        change = json.loads(record.value)
        found[change["id"]].append(change["version"])
    return found


def in_order(versions: list[int]) -> bool:
    """Each first time, from 1 on without a gap: what is delivered again changes nothing."""
    return list(dict.fromkeys(versions)) == list(range(1, len(set(versions)) + 1))


async def _records(bootstrap: str, suffix: str) -> dict[str, list[ConsumerRecord[Any, Any]]]:
    found: dict[str, list[ConsumerRecord[Any, Any]]] = defaultdict(list)
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest", enable_auto_commit=False)
    await consumer.start()
    try:
        topics = [topic for topic in await consumer.topics() if topic.endswith(suffix)]
        partitions = await _partitions(bootstrap, topics)
        if not partitions:
            return found
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        await consumer.seek_to_beginning(*partitions)
        while any([await consumer.position(partition) < end for partition, end in ends.items()]):
            for partition, batch in (await consumer.getmany(timeout_ms=500)).items():
                found[partition.topic] += batch
    finally:
        await consumer.stop()
    return found


async def _partitions(bootstrap: str, topics: list[str]) -> list[TopicPartition]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        described = await admin.describe_topics(topics) if topics else []
    finally:
        await admin.close()
    return [TopicPartition(topic["topic"], at["partition"]) for topic in described for at in topic["partitions"]]
