"""A broker that is killed, stopped and started again under load; instances that are killed with -9.

What holds through all of it: every event is delivered, in order for each key, and nothing hangs.
"""

import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from actors.event_log.actor import EventLogActor
from actors.metrics import Metrics
from actors.publisher.actor import Publisher
from actors.publisher.buffer import EventBuffer
from actors.publisher.messages import Flush, Publish
from actors.runtime import Child, Mailbox, Supervisor, System, open_system
from backends.kafka.errors import ConsumerStuck
from backends.ports.entities import StoreUnavailable
from backends.ports.event_log import Topic
from backends.ports.events import Event, NewRecord
from backends.spool.spool import Spool
from tests.backends.kafka_groups import Cluster, Consumer, cluster
from tests.engines.kafka import Broker

# A start of aiokafka's that is cancelled leaves its first connection to the collector, which warns of it.
pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("ignore::ResourceWarning")]

AWAY = (StoreUnavailable, ConsumerStuck)


@pytest.fixture
async def kafka(faulty_kafka: Broker) -> AsyncIterator[Cluster]:
    async with cluster(faulty_kafka) as opened:
        with trio.fail_after(120):
            yield opened


async def started(broker: Broker) -> None:
    broker.start(wait=False)
    await trio.to_thread.run_sync(broker.wait)


def in_order(values: list[str]) -> bool:
    """Whether the first delivery of each value came in order, for every key (`key:number`)."""
    last: dict[str, int] = {}
    for value in dict.fromkeys(values):
        key, _, number = value.partition(":")
        if int(number) != last.get(key, -1) + 1:
            return False
        last[key] = int(number)
    return True


# Sends.


async def test_a_send_to_a_broker_that_is_away_fails_in_time_and_so_does_a_stop(kafka: Cluster) -> None:
    topic = await kafka.topic()
    await kafka.fill(topic, "a")
    kafka.broker.kill()
    start = trio.current_time()
    with pytest.raises(StoreUnavailable):
        await kafka.fill(topic, "b")
    assert trio.current_time() - start < 12
    start = trio.current_time()
    await kafka.log.aclose()
    assert trio.current_time() - start < 6


async def test_a_send_to_a_broker_that_hangs_fails_in_time_and_is_not_stored_twice_by_itself(kafka: Cluster) -> None:
    topic = await kafka.topic()
    await kafka.fill(topic, "a")
    kafka.broker.suspend()
    start = trio.current_time()
    with pytest.raises(StoreUnavailable):
        await kafka.fill(topic, "b")
    assert trio.current_time() - start < 12
    kafka.broker.resume()
    with trio.fail_after(30):
        while True:
            try:
                await kafka.fill(topic, "c")
                break
            except StoreUnavailable:
                await trio.sleep(0.1)
    values = [(r.value or b"").decode() for r in await kafka.log.fetch({(topic, 0): 0}, 10)]
    assert values in (["a", "c"], ["a", "b", "c"], ["a", "c", "b"])


async def test_reading_from_a_broker_that_hangs_fails_in_time(kafka: Cluster) -> None:
    topic = await kafka.topic()
    await kafka.fill(topic, "a")
    await kafka.log.fetch({(topic, 0): 0}, 10)
    kafka.broker.suspend()
    for operation in (
        partial(kafka.log.fetch, {(topic, 0): 0}, 10),
        partial(kafka.log.end_offsets, topic),
        partial(kafka.log.committed, "nobody", topic),
        kafka.log.groups,
    ):
        with trio.fail_after(15), pytest.raises(StoreUnavailable):
            await operation()
    kafka.broker.resume()
    with trio.fail_after(20):
        while True:
            try:
                assert len(await kafka.log.fetch({(topic, 0): 0}, 10)) == 1
                break
            except StoreUnavailable:
                await trio.sleep(0.1)


@pytest.mark.parametrize("wait", [0.0, 0.001, 0.02, 0.1])
async def test_a_send_that_is_cancelled_leaves_a_producer_that_works(kafka: Cluster, wait: float) -> None:
    topic = await kafka.topic()
    log = kafka.another_log()
    for n in range(20):
        with trio.move_on_after(wait):
            await log.append([NewRecord(topic, b"k", str(n).encode())], durable=True)
    await log.append([NewRecord(topic, b"k", b"last")], durable=True)
    values = [(r.value or b"").decode() for r in await log.fetch({(topic, 0): 0}, 100)]
    assert values == [*sorted(values[:-1], key=int), "last"]
    await log.aclose()


# The publisher.


@asynccontextmanager
async def publishing(kafka: Cluster, folder: Path, *topics: Topic) -> AsyncIterator[System]:
    box = Mailbox(4096)
    log = kafka.another_log(timeout=2.0)
    spool = Spool(folder, 1 << 20)
    children = [
        Child("event_log", partial(EventLogActor, log, topics, Metrics()), mailbox=box),
        Child("publisher", partial(Publisher, EventBuffer(), Metrics(), spool=spool, append_timeout=4.0), mailbox=box),
    ]
    try:
        async with open_system(Supervisor("root", intensity=None, children=children)) as system:
            yield system
    finally:
        spool.close()
        await log.aclose()


async def publish(system: System, topic: str, many: int, every: float) -> float:
    """Publish so many events of each of 5 keys; returns the longest time that one publication took."""
    longest = 0.0
    for number in range(many):
        for key in "abcde":
            start = trio.current_time()
            event = Event(topic, key, "user.read", f"{key}:{number}", 1.0, f"{key}:{number}".encode())
            await system.ref("publisher").ask(Publish(event), timeout=1.0)
            longest = max(longest, trio.current_time() - start)
        await trio.sleep(every)
    return longest


@pytest.mark.parametrize("fault", ["kill", "suspend"])
async def test_the_bus_away_during_publishes_and_consumption_loses_and_reorders_nothing(
    kafka: Cluster, tmp_path: Path, fault: str
) -> None:
    topic = f"audit-{fault}"
    many = 150

    async def trouble() -> None:
        await trio.sleep(1.5)
        kafka.broker.kill() if fault == "kill" else kafka.broker.suspend()
        await trio.sleep(4)
        if fault == "kill":
            await started(kafka.broker)
        else:
            kafka.broker.resume()

    async with publishing(kafka, tmp_path, Topic(topic, 3, None)) as system, trio.open_nursery() as nursery:
        consumer = await kafka.consumer(f"audit-{fault}", topic)
        nursery.start_soon(partial(consumer.run, ignore=(StoreUnavailable,)))
        nursery.start_soon(trouble)
        longest = await publish(system, topic, many, 0.05)
        await system.ref("publisher").ask(Flush(), timeout=60)
        await consumer.until(lambda: len(set(consumer.values)) == 5 * many)
        nursery.cancel_scope.cancel()
    assert longest < 1.0  # and no publication failed
    assert in_order(consumer.values)


# Groups.


async def test_a_member_survives_a_restart_of_the_broker(kafka: Cluster) -> None:
    topic = await kafka.topic(2)
    await kafka.fill(topic, *(f"k:{n}" for n in range(10)))
    consumer = await kafka.consumer("restarted", topic)
    await consumer.read(10)
    await consumer.commit()
    kafka.broker.kill()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(consumer.run, ignore=(StoreUnavailable,)))
        await consumer.until(lambda: bool(consumer.errors), within=20)  # it says that the brokers are away
        await started(kafka.broker)
        await _filled(kafka, topic, *(f"k:{n}" for n in range(10, 20)))
        await consumer.until(lambda: len(set(consumer.values)) == 20)
        nursery.cancel_scope.cancel()
    assert in_order(consumer.values)


async def test_a_leave_from_a_broker_that_is_away_ends(kafka: Cluster) -> None:
    topic = await kafka.topic()
    consumer = await kafka.consumer("left", topic)
    await consumer.own(1)
    kafka.broker.suspend()
    with trio.fail_after(12):
        await consumer.member.leave()


async def test_a_join_of_a_broker_that_is_away_says_so(kafka: Cluster) -> None:
    topic = await kafka.topic()
    kafka.broker.kill()
    consumer = Consumer(kafka.member("never", topic))
    with pytest.raises(StoreUnavailable, match="join group never"):
        await consumer.member.join(consumer)


KILLED = """
import sys
from functools import partial
import trio
from backends.asyncio_bridge import asyncio_loop
from tests.backends.kafka_groups import Cluster

class Broker:
    bootstrap = sys.argv[1]

async def main():
    async with asyncio_loop():
        consumer = await Cluster(Broker()).consumer("killed", sys.argv[2])
        while True:
            await consumer.poll()
            for value in consumer.values:
                print(value, flush=True)
            consumer.values.clear()
            await trio.sleep(0.05)
            await consumer.commit()

trio.run(main)
"""


async def test_a_member_killed_with_9_is_replaced_and_nothing_is_lost(kafka: Cluster) -> None:
    topic = await kafka.topic(4)
    here = await kafka.consumer("killed", topic)
    command = [sys.executable, "-c", KILLED, kafka.broker.bootstrap, topic]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220 - as quick as a fork is
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(here.run)
            await here.until(lambda: len(here.starts) == 2)
            nursery.start_soon(partial(_keyed, kafka, topic, 40))
            await trio.sleep(1)
            process.send_signal(signal.SIGKILL)
            there = await trio.to_thread.run_sync(lambda: process.communicate()[0].split())
            assert there  # it had work, too
            await here.until(lambda: len({*here.values, *there}) == 5 * 40)
            nursery.cancel_scope.cancel()
    finally:
        process.kill()
    assert in_order([*there, *here.values]) or in_order(here.values) or _by_key_in_order(there, here.values)


def _by_key_in_order(there: list[str], here: list[str]) -> bool:
    """Of each key, what the other process had comes before what this one has, but for what it did not commit."""
    for key in "abcde":
        first = [value for value in there if value.startswith(key)]
        then = [value for value in here if value.startswith(key)]
        if not in_order([*first, *then]):
            return False
    return True


async def test_members_that_come_and_go_lose_and_reorder_nothing(kafka: Cluster) -> None:
    topic = await kafka.topic(4)
    consumers: list[Consumer] = []
    delivered: list[str] = []

    async def comes_and_goes(seconds: float) -> None:
        consumer = await kafka.consumer("storm", topic)
        consumer.values = delivered  # one list for all: the order of delivery
        consumers.append(consumer)
        with trio.move_on_after(seconds):
            await consumer.run(ignore=(StoreUnavailable,))
        await consumer.commit()
        await consumer.member.leave()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(comes_and_goes, 1000)
        nursery.start_soon(partial(_keyed, kafka, topic, 100))
        for seconds in (2.0, 1.0, 3.0, 0.5, 2.0):
            await trio.sleep(0.7)
            nursery.start_soon(comes_and_goes, seconds)
        await consumers[0].until(lambda: len(set(delivered)) == 5 * 100)
        nursery.cancel_scope.cancel()
    assert in_order(delivered)
    assert len(consumers) == 6


async def _keyed(kafka: Cluster, topic: str, many: int) -> None:
    for number in range(many):
        await _append(kafka, [NewRecord(topic, key.encode(), f"{key}:{number}".encode()) for key in "abcde"])
        await trio.sleep(0.03)


async def _filled(kafka: Cluster, topic: str, *values: str) -> None:
    await _append(kafka, [NewRecord(topic, b"k", value.encode()) for value in values])


async def _append(kafka: Cluster, records: list[Any]) -> None:
    while True:
        try:
            await kafka.log.append(records, durable=True)
            return
        except StoreUnavailable:
            await trio.sleep(0.1)
