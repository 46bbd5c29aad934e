"""A handler in a running consumer, on a log in memory, in virtual time."""

import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from random import Random
from typing import Any

import msgspec
import trio

from actors.consumers.consumer import Consumer
from actors.consumers.dead_letters import DeadLetter, describe, replay_record
from actors.consumers.handler import DEFAULT_OPTIONS, ConsumerOptions
from actors.consumers.loading import handler_of
from actors.consumers.retry import DEFAULT_POLICY, RetryPolicy
from actors.consumers.testing.log import MemoryEventLog
from actors.event_log.actor import EventLogActor
from actors.event_log.messages import Append
from actors.metrics import Metrics
from actors.runtime import Child, Mailbox, Supervisor, System, open_system
from backends.ports.cloudevents import to_record
from backends.ports.event_log import Topic
from backends.ports.events import Event, Record, dead_letter_topic, retry_topic


class Consuming:
    """What a test does with the consumer: publish to it, wait for it, look at what became of the events.

    `log` holds everything; another `consuming` on it is a restart. `system.crash("consumer")` crashes the consumer
    on its next message.
    """

    def __init__(self, system: System, log: MemoryEventLog, group: str, topics: Sequence[str]) -> None:
        self.system = system
        self.log = log
        self._group = group
        self._topics = tuple(topics)
        self._ids = itertools.count(1)

    async def publish(
        self, type: str, data: object = None, *, key: str = "", topic: str = "", id: str = "", traceparent: str = ""
    ) -> Event:
        """Append an event. *topic*: the consumer's first one unless named; *data*: anything that JSON can say."""
        event = Event(
            topic=topic or self._topics[0],
            key=key,
            type=type,
            id=id or f"event-{next(self._ids)}",
            time=trio.current_time(),
            data=msgspec.json.encode(data),
            traceparent=traceparent,
        )
        await self.system.ref("event_log").ask(Append((to_record(event),), durable=True))
        return event

    async def settled(self, within: float = 3600.0) -> None:
        """Until every event is done or a dead letter, all waits waited out; TooSlowError after *within* seconds."""
        with trio.fail_after(within):
            while await self._unfinished():  # noqa: ASYNC110 - virtual seconds, and the log tells nobody
                await trio.sleep(0.05)

    async def dead_letters(self) -> list[DeadLetter]:
        """The group's, in order."""
        return [describe(record) for record in await self._dead()]

    async def replay(self) -> int:
        """Republish all dead letters to the group's retry topics, as `dlq replay` does; returns how many."""
        dead = await self._dead()
        for record in dead:
            await self.system.ref("event_log").ask(Append((replay_record(record),), durable=True))
            await self.log.drop((record.topic, record.partition), [record.offset])
        return len(dead)

    async def _dead(self) -> list[Record]:
        found: list[Record] = []
        for topic in self._topics:
            name = dead_letter_topic(topic, self._group)
            found += await self.log.fetch(await self.log.start_offsets(name), 100_000)
        return found

    async def _unfinished(self) -> int:
        left = 0
        for topic in self._topics:
            for name in (topic, retry_topic(topic, self._group)):
                done = await self.log.committed(self._group, name)
                ends = await self.log.end_offsets(name)
                left += sum(end - done.get(partition, 0) for partition, end in ends.items())
        return left


@asynccontextmanager
async def consuming(
    handler: Any,
    *topics: str,
    group: str = "test",
    partitions: int = 1,
    options: ConsumerOptions = DEFAULT_OPTIONS,
    policy: RetryPolicy = DEFAULT_POLICY,
    log: MemoryEventLog | None = None,
    seed: int = 0,
) -> AsyncIterator[Consuming]:
    """Run *handler* (all that the configuration may name) on *topics*. Needs pytest-trio's `autojump_clock`.

    *log*: one of an earlier `consuming`, to go on where that ended. *seed*: of the jitter of waits.
    """
    log = log or MemoryEventLog()
    named = topics or ("events",)
    metrics = Metrics()
    consumer = partial(
        Consumer,
        group,
        named,
        handler_of(handler),
        metrics=metrics,
        options=options,
        policy=policy,
        now=trio.current_time,
        rng=Random(seed),
    )
    declared = [Topic(name, partitions, None) for name in named]
    tree = Supervisor(
        "consuming",
        children=[
            Child("event_log", partial(EventLogActor, log, declared, metrics), mailbox=Mailbox(1024)),
            Child("consumer", consumer, mailbox=Mailbox(1024)),
        ],
    )
    async with open_system(tree, rng=Random(seed)) as system:
        yield Consuming(system, log, group, named)
