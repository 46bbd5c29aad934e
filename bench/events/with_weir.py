"""Weir's event side by itself: the embedded log, and consumer groups on it and on Kafka."""

import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import trio

from actors.consumers.audit.handler import AuditHandler
from actors.consumers.consumer import Consumer, Members
from actors.consumers.handler import DEFAULT_OPTIONS, ConsumerOptions, Handler
from actors.consumers.loading import handler_of
from actors.consumers.partitions import Delivered
from actors.consumers.search.handler import SearchHandler
from actors.event_log.actor import EventLogActor
from actors.event_log.messages import Append
from actors.metrics import Metrics
from actors.runtime import Child, Mailbox, Supervisor, System, open_system
from backends.asyncio_bridge import asyncio_loop
from backends.embedded.database import Database
from backends.embedded.engine import Engine
from backends.kafka.connection import Connection
from backends.kafka.engine import Kafka
from backends.ports.event_log import Topic
from backends.ports.events import AUDIT, ENTITY_CHANGED, Event, NewRecord
from backends.postgres.ledger import ConsumerLedger
from backends.postgres.pool import Pool
from bench.events.samples import Sample, audits, changes
from bench.events.tally import Given, Tally, main
from composition.remote import RemoteEngine

PUBLISHERS = 64
PARTITIONS = 4
CHUNK = 5_000
EACH = ConsumerOptions(concurrency=16, batch=1)
"""As `[[consumer]]` has it when nothing is said."""

Figures = dict[str, float]


class Counting:
    """Hands over, and counts what was handled."""

    def __init__(self, handler: Handler, tally: Tally) -> None:
        self._handler, self._tally = handler, tally

    async def handle(self, events: Sequence[Delivered]) -> None:
        await self._handler.handle(events)
        self._tally.add(len(events))


class Nothing:
    """A handler of batches that does nothing with each record."""

    async def handle(self, events: Sequence[Delivered]) -> None:
        for delivered in events:
            await nothing(delivered.event)


async def nothing(event: Event) -> None:
    """A handler of one event that does nothing."""


def record(topic: str, sample: Sample) -> NewRecord:
    key, value, headers = sample
    return NewRecord(topic, key, value, tuple(headers))


# Embedded.


@asynccontextmanager
async def embedded() -> AsyncIterator[Engine]:
    """On a file of its own; checkpoints as often as Weir makes them."""
    with tempfile.TemporaryDirectory(prefix="weir-bench-") as folder, Database.open(Path(folder) / "weir.db") as file:
        yield Engine(file)


async def checkpoints(engine: Engine) -> None:
    while True:
        await trio.sleep(1.0)
        await engine.checkpoint()


def tree(log: Callable[[], EventLogActor], *children: Child) -> Supervisor:
    return Supervisor("root", children=[Child("event_log", log, mailbox=Mailbox(4096)), *children])


def log_publish(given: Given) -> Figures:
    """Each publisher waits until its one record is durable, and publishes the next."""
    over = trio.Event()
    tally = Tally(given, over.set)

    async def publish(system: System, samples: list[NewRecord]) -> None:
        log, number = system.ref("event_log"), 0
        while not over.is_set():
            await log.ask(Append((samples[number % len(samples)],), durable=True))
            number += 1
            tally.add(1)

    async def run() -> None:
        async with embedded() as engine:
            log, topics = engine.event_log(), [Topic(AUDIT, PARTITIONS, None)]
            async with (
                engine.opened(),
                open_system(tree(lambda: EventLogActor(log, topics, Metrics()))) as system,
                trio.open_nursery() as nursery,
            ):
                nursery.start_soon(checkpoints, engine)
                async with trio.open_nursery() as publishers:
                    for _ in range(PUBLISHERS):
                        samples = [record(AUDIT, sample) for sample in audits(100)]
                        publishers.start_soon(publish, system, samples)
                nursery.cancel_scope.cancel()

    trio.run(run)
    return tally.figures()


def consuming(
    topic: str, samples: Callable[[int], Iterable[Sample]], handler: Callable[[Engine], Handler], given: Given
) -> Figures:
    """A group with *handler* on the embedded log, which holds `given.total` records of *topic* when it begins."""
    over = trio.Event()
    tally = Tally(given, over.set)

    async def run() -> None:
        async with embedded() as engine:
            log, effect = engine.event_log(), handler(engine)
            async with engine.opened():
                await log.ensure_topics([Topic(topic, PARTITIONS, None)])
                todo = iter(samples(given.total))
                while chunk := [record(topic, sample) for sample in islice(todo, CHUNK)]:
                    await log.append(chunk, durable=False)
                await engine.checkpoint()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(checkpoints, engine)
                    actor = lambda: EventLogActor(log, (), Metrics())  # noqa: E731
                    await consumed(actor, "bench", topic, Counting(effect, tally), over.wait)
                    nursery.cancel_scope.cancel()

    trio.run(run)
    return tally.figures()


async def consumed(
    log: Callable[[], EventLogActor],
    group: str,
    topic: str,
    handler: Handler,
    over: Callable[[], Awaitable[Any]],
    options: ConsumerOptions = DEFAULT_OPTIONS,
    members: Members | None = None,
) -> None:
    """Run the group until *over*; what it finished is committed when this returns."""

    def consumer() -> Consumer:
        return Consumer(group, (topic,), handler, metrics=Metrics(), options=options, members=members)

    async with open_system(tree(log, Child("consumer", consumer, mailbox=Mailbox(4096)))):
        await over()


def log_consume(given: Given) -> Figures:
    """The effect: rows of the audit trail, each with its hash."""
    return consuming(AUDIT, audits, lambda engine: AuditHandler(engine.audit()), given)


def search_index(given: Given) -> Figures:
    return consuming(ENTITY_CHANGED, changes, lambda engine: SearchHandler(engine.search()), given)


# Kafka.


def on_kafka(
    handler: Callable[[RemoteEngine], Handler], given: Given, options: ConsumerOptions = DEFAULT_OPTIONS
) -> Figures:
    """A new group with *handler* on the topic that holds `given.total` records."""
    over = trio.Event()
    tally = Tally(given, over.set)

    async def run() -> None:
        pool = Pool(given.dsn, size=12, budget=5.0)
        kafka = Kafka(Connection(bootstrap=given.bootstrap), ConsumerLedger(pool))
        engine = RemoteEngine(pool, kafka, [Topic(AUDIT, PARTITIONS, None)], owner="bench")
        async with asyncio_loop(), engine.opened():
            actor = lambda: EventLogActor(kafka.event_log, (), Metrics())  # noqa: E731
            group = f"bench-{uuid.uuid4()}"
            counting = Counting(handler(engine), tally)
            await consumed(actor, group, AUDIT, counting, over.wait, options, engine.members())
            committed = await kafka.event_log.committed(group, AUDIT)
            if sum(committed.values()) < tally.count:
                raise SystemExit(f"{tally.count} records were handled, and {committed} is committed")

    trio.run(run)
    return tally.figures()


def kafka_consume(given: Given) -> Figures:
    return on_kafka(lambda _: handler_of(nothing), given, EACH)


def kafka_batches(given: Given) -> Figures:
    return on_kafka(lambda _: Nothing(), given)


def kafka_audit(given: Given) -> Figures:
    return on_kafka(lambda engine: AuditHandler(engine.audit()), given)


if __name__ == "__main__":
    main(
        {
            "log-publish": log_publish,
            "log-consume": log_consume,
            "search-index": search_index,
            "kafka-consume": kafka_consume,
            "kafka-consume-batch": kafka_batches,
            "kafka-audit": kafka_audit,
        }
    )
