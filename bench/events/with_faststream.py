"""FastStream, acknowledging each record after its handler has succeeded."""

import asyncio
import uuid

from faststream import AckPolicy
from faststream.kafka import KafkaBroker

from bench.events.tally import TOPIC, Given, Tally, main


async def consume(given: Given) -> dict[str, float]:
    over = asyncio.Event()
    tally = Tally(given, over.set)
    broker = KafkaBroker(given.bootstrap, logger=None, apply_types=False)

    @broker.subscriber(
        TOPIC, group_id=f"bench-{uuid.uuid4()}", auto_offset_reset="earliest", ack_policy=AckPolicy.NACK_ON_ERROR
    )
    async def nothing(body: object) -> None:
        tally.add(1)

    async with broker:
        await broker.start()
        await over.wait()
    return tally.figures()


def kafka_consume(given: Given) -> dict[str, float]:
    return asyncio.run(consume(given))


if __name__ == "__main__":
    main({"kafka-consume": kafka_consume, "kafka-consume-batch": kafka_consume})
