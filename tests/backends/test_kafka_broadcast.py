"""cache.invalidate by Kafka: every instance hears it, from the end, and a silence is noticed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from backends.kafka.broadcast import HEARTBEAT, Broadcast
from backends.kafka.connection import Connection
from backends.ports.broadcast import Unheard
from backends.ports.event_log import Topic
from backends.ports.events import Record
from tests.backends.kafka_groups import Cluster, cluster
from tests.engines.kafka import Broker

# A start of aiokafka's that is cancelled leaves its first connection to the collector, which warns of it.
pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("ignore::ResourceWarning")]


@pytest.fixture
async def kafka(kafka_broker: Broker) -> AsyncIterator[Cluster]:
    async with cluster(kafka_broker) as opened:
        with trio.fail_after(60):
            yield opened


@asynccontextmanager
async def listening(kafka: Cluster, topic: str, **options: Any) -> AsyncIterator[Broadcast]:
    broadcast = Broadcast(Connection(bootstrap=kafka.broker.bootstrap, request_timeout=2.0), topic, **options)
    try:
        yield broadcast
    finally:
        await broadcast.aclose()


def said(records: list[Record]) -> list[str]:
    return [(r.value or b"").decode() for r in records if not beats([r])]


def beats(records: list[Record]) -> int:
    return sum(dict(r.headers).get("ce_type") == HEARTBEAT.encode() for r in records)


async def hear(broadcast: Broadcast, number: int) -> list[str]:
    heard: list[str] = []
    while len(heard) < number:
        heard += said(list(await broadcast.read(100, 0.5)))
    return heard


async def for_ever(broadcast: Broadcast) -> None:
    while True:
        await broadcast.read(10, 10.0)


async def test_everyone_hears_what_comes_after_they_began(kafka: Cluster) -> None:
    topic = await kafka.topic(3)
    await kafka.fill(topic, "before")
    async with listening(kafka, topic) as one, listening(kafka, topic) as two:
        for broadcast in (one, two):
            assert set(await broadcast.begin()) == {(topic, p) for p in range(3)}
        await kafka.fill(topic, "a", "b")
        assert await hear(one, 2) == ["a", "b"]
        assert await hear(two, 2) == ["a", "b"]
    assert await kafka.log.groups() == {}


async def test_nothing_is_missed_between_begin_and_read(kafka: Cluster) -> None:
    topic = await kafka.topic()
    async with listening(kafka, topic) as one:
        await one.begin()
        await kafka.fill(topic, "at once")
        await trio.sleep(0.5)
        assert await hear(one, 1) == ["at once"]


async def test_one_heartbeat_a_beat_and_partition_however_many_listen(kafka: Cluster) -> None:
    topic = await kafka.topic(2)
    async with listening(kafka, topic, beat=0.5) as one, listening(kafka, topic, beat=0.5) as two:
        await one.begin()
        await two.begin()
        heard: list[Record] = []
        with trio.move_on_after(4):
            while True:
                heard += await one.read(100, 0.2)
    assert {r.partition for r in heard if beats([r])} == {0, 1}
    assert 2 * 4 <= beats(heard) <= 2 * 14  # 8 beats are due; two that do not hear each other would make 16


async def test_offsets_have_no_gaps_that_are_not_there(kafka: Cluster) -> None:
    topic = await kafka.topic()
    async with listening(kafka, topic, beat=0.2) as one:
        positions = await one.begin()
        expected = positions[topic, 0]
        for n in range(5):
            await kafka.fill(topic, str(n))
            for record in await one.read(100, 0.3):
                assert record.offset == expected
                expected += 1


async def test_more_than_can_wait_is_given_up(kafka: Cluster) -> None:
    topic = await kafka.topic()
    async with listening(kafka, topic, most=10) as one:
        await one.begin()
        await kafka.fill(topic, *map(str, range(50)))
        with pytest.raises(Unheard, match="wait to be read"):
            await hear(one, 50)
        await one.begin()
        await kafka.fill(topic, "again")
        assert await hear(one, 1) == ["again"]


async def test_a_broker_that_says_nothing_is_noticed_within_the_silence(faulty_kafka: Broker) -> None:
    async with cluster(faulty_kafka) as kafka:
        await kafka.log.ensure_topics([Topic("hung", 1, None)])
        async with listening(kafka, "hung") as one:
            await one.begin()
            with trio.fail_after(20):
                while not await one.read(10, 1.0):  # the first heartbeat
                    pass
            faulty_kafka.suspend()
            try:
                start = trio.current_time()
                with pytest.raises(Unheard, match="nothing from hung/0 for 3"):
                    await for_ever(one)
                assert 1.5 < trio.current_time() - start < 10
                with pytest.raises(Unheard):
                    await one.begin()
            finally:
                faulty_kafka.resume()
            with trio.fail_after(30):
                while True:
                    try:
                        await one.begin()
                        break
                    except Unheard:
                        await trio.sleep(0.2)
            await kafka.fill("hung", "back")
            assert await hear(one, 1) == ["back"]


async def test_a_broker_that_is_killed_and_comes_back_is_heard_again(faulty_kafka: Broker) -> None:
    async with cluster(faulty_kafka) as kafka:
        await kafka.log.ensure_topics([Topic("killed", 1, None)])
        async with listening(kafka, "killed") as one:
            await one.begin()
            faulty_kafka.kill()
            with pytest.raises(Unheard):
                await for_ever(one)
            faulty_kafka.start(wait=False)
            await trio.to_thread.run_sync(faulty_kafka.wait)
            with trio.fail_after(30):
                while True:
                    try:
                        await one.begin()
                        break
                    except Unheard:
                        await trio.sleep(0.2)
                await kafka.fill("killed", "back")
                assert await hear(one, 1) == ["back"]
