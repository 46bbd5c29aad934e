"""Consumers and deliveries on the real embedded engine: what was persisted is enough to go on after a restart.

On the real clock, since the engine syncs its files in threads; waits are milliseconds, and nothing asserts them.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
import trio

from actors.consumers.audit.handler import AuditHandler
from actors.consumers.consumer import Consumer
from actors.consumers.dead_letters import describe, replay_record
from actors.consumers.failure import Failure
from actors.consumers.handler import ConsumerOptions
from actors.consumers.notification.consumer import NotificationConsumer
from actors.consumers.notification.deliveries import Deliveries
from actors.consumers.notification.endpoint import EndpointDeliveries
from actors.consumers.notification.mail import MailWriter
from actors.consumers.notification.outcomes import Failed
from actors.consumers.notification.senders import Senders, Slots
from actors.consumers.retry import RetryPolicy
from actors.consumers.search.handler import SearchHandler
from actors.event_log.actor import EventLogActor
from actors.event_log.messages import Append, Fetch, ReadRecord
from actors.metrics import Metrics
from actors.runtime import Child, DynamicSupervisor, Supervisor, System, open_system
from actors.storage.reader import StorageReader
from actors.storage.scans import StorageScans
from backends.embedded.database import Database
from backends.embedded.engine import Engine
from backends.ports.cloudevents import to_record
from backends.ports.entities import Decision, Entity, Key, Write
from backends.ports.event_log import Topic
from backends.ports.events import AUDIT, ENTITY_CHANGED, NewRecord
from backends.ports.stores import AuditEntry, AuditFilter
from tests.consumers.fakes import MAILBOX, Recorder, Sink, change, event
from tests.consumers.test_deliveries import Mails, Sender

POLICY = RetryPolicy(base=0.01, cap=0.05)
OPTIONS = ConsumerOptions(refresh=0.05)
TOPICS = [Topic(AUDIT, 2, None), Topic(ENTITY_CHANGED, 2, None)]


class Node:
    """An engine on *folder* and a tree on it; a second one on the same folder is a restart."""

    def __init__(self, folder: Path) -> None:
        self.database = Database.open(folder / "weir.db")
        self.engine = Engine(self.database)
        self.log, self.entities = self.engine.event_log(), self.engine.entities()
        self.audit, self.search, self.deliveries = (
            self.engine.audit(),
            self.engine.search(),
            self.engine.deliveries(),
        )
        self.metrics = Metrics()

    @asynccontextmanager
    async def running(self, **children: Any) -> AsyncIterator[System]:
        factories = {
            "event_log": partial(EventLogActor, self.log, TOPICS, self.metrics),
            "storage_reader": partial(StorageReader, self.entities, self.metrics),
            "storage_scans": partial(StorageScans, self.entities, self.metrics),
            "deliveries": Sink,
            **children,
        }
        nodes = [Child(id, make, mailbox=MAILBOX) if callable(make) else make for id, make in factories.items()]
        tree = Supervisor("root", children=nodes)
        with trio.fail_after(20), self.database:
            async with self.engine.opened(), open_system(tree) as system:
                yield system

    def group(self, handler: Any, group: str, topic: str = ENTITY_CHANGED) -> partial[Consumer]:
        return partial(
            Consumer, group, (topic,), handler, metrics=self.metrics, policy=POLICY, options=OPTIONS, rng=Random(1)
        )

    async def dead(self, system: System, topic: str) -> list[Any]:
        return await system.ref("event_log").ask(Fetch({(topic, 0): 0}, 100))  # type: ignore[no-any-return]


async def until(probe: Callable[[], Any]) -> Any:
    """The first true value of *probe*; the test's own deadline is the limit."""
    while True:
        value = probe()
        if hasattr(value, "__await__"):
            value = await value
        if value:
            return value
        await trio.sleep(0.005)


async def append(system: System, *records: NewRecord) -> None:
    await system.ref("event_log").ask(Append(records, durable=True))


async def test_audits_and_documents_reach_their_stores_and_offsets_are_committed(tmp_path: Path) -> None:
    node = Node(tmp_path)
    entries = [
        AuditEntry(
            id=f"e{n}", at=float(n), subject="s", action="user.read", entity="user/u", outcome="ok", request_id=""
        )
        for n in range(300)
    ]
    user = change("u1", 1, name="Ada Lovelace", email="ada@example.org", bio="")
    consumers = {
        "audit": node.group(AuditHandler(node.audit), "audit", AUDIT),
        "search": node.group(SearchHandler(node.search), "search"),
    }
    async with node.running(**consumers) as system:
        audits = [to_record(event(e.id, key=e.id, data=e, topic=AUDIT, type=e.action)) for e in entries]
        await append(system, *audits, to_record(event("c1", data=user)))
        stored = partial(node.audit.query, AuditFilter(), None, 400)
        await until(lambda: _has(stored, 300))
        await until(lambda: _has(partial(node.search.query, "lovelace", "user", 0, 10), 1))
        await until(lambda: _committed(node, "audit", AUDIT, 300))
    again = Node(tmp_path)
    async with again.running(audit=again.group(AuditHandler(again.audit), "audit", AUDIT)) as system:
        assert await again.audit.query(AuditFilter(), None, 400) == sorted(entries, key=lambda e: -e.at)


async def _has(query: Callable[[], Any], count: int) -> bool:
    return len(await query()) == count


async def _committed(node: Node, group: str, topic: str, total: int) -> bool:
    return sum((await node.log.committed(group, topic)).values()) == total


async def test_attempts_survive_a_restart_and_a_replay_comes_back(tmp_path: Path) -> None:
    first, handler = Node(tmp_path), Recorder()
    handler.failing = {"bad": lambda: OSError("no")}
    slow = RetryPolicy(base=30.0, cap=30.0)
    child = first.group(handler, "search")
    async with first.running(search=partial(child, policy=slow)) as system:
        await append(system, to_record(event("bad")), to_record(event("behind")))
        await until(lambda: handler.calls and _attempted(first))
    at = await _attempts_of(tmp_path)
    assert [attempt.attempts for attempt in at] == [1]

    second = Node(tmp_path)
    async with second.running(search=second.group(handler, "search")) as system:
        (dead,) = await until(lambda: second.dead(system, "entity.changed.search.dlt"))
        assert describe(dead).attempts == 3
        await until(lambda: "behind" in handler.done)
        handler.failing.clear()
        await append(system, replay_record(dead))
        await until(lambda: "bad" in handler.done)
        origin = describe(dead).origin.split("/")
        original = await system.ref("event_log").ask(ReadRecord((origin[0], int(origin[1])), int(origin[2])))
        assert (original.key, original.value) == (dead.key, dead.value)


async def _attempted(node: Node) -> bool:
    return any([await node.log.attempts("search", (ENTITY_CHANGED, n)) for n in range(2)])


async def _attempts_of(folder: Path) -> list[Any]:
    node = Node(folder)
    with node.database:
        async with node.engine.opened():
            found = [await node.log.attempts("search", (ENTITY_CHANGED, n)) for n in range(2)]
    return [attempt for partition in found for attempt in partition.values()]


@pytest.mark.parametrize("recovers", [True, False])
async def test_a_webhook_is_called_until_it_answers_or_is_a_dead_letter(tmp_path: Path, recovers: bool) -> None:
    node, sender = Node(tmp_path), Sender()
    hook = msgspec.json.encode({"id": "h", "url": "http://x", "events": ["user.*"], "secret": "whsec_eA=="})
    sender.outcomes["h"] = Failed(Failure("HTTPStatus", "500"))
    options = {"metrics": node.metrics, "policy": POLICY, "rng": Random(1)}
    children = {
        "endpoints": DynamicSupervisor(
            "endpoints",
            partial(
                EndpointDeliveries,
                node.deliveries,
                Senders(sender, Mails(sender)),
                Slots(),
                **options,
            ),
            mailbox=MAILBOX,
            max_children=100,
        ),
        "deliveries": partial(Deliveries, node.deliveries, policy=POLICY),
        "notification": partial(NotificationConsumer, node.deliveries, MailWriter(), options=OPTIONS, **options),
    }
    async with node.running(**children) as system:
        put = Write((Key("webhook", "h"),), lambda *_: Decision(None, put=(Entity("webhook", "h", 1, 0, 0, hook),)))
        await node.entities.transact([put])
        await append(system, to_record(event("e1", data=change("u1", 1, name="Ada", email="ada@example.org"))))
        await until(lambda: len(sender.attempts["h"]) == 2)
        if recovers:
            sender.outcomes.clear()
            await until(lambda: _states(node, {"done": 2}))
        else:
            (dead,) = await until(lambda: node.dead(system, "entity.changed.notification.dlt"))
            await until(lambda: _states(node, {"done": 1, "dead": 1}))
            assert (describe(dead).attempts, describe(dead).endpoint, describe(dead).event_id) == (3, "h", "e1")
    assert len({id for _, id in sender.attempts["h"]}) == 1


async def _states(node: Node, wanted: dict[str, int]) -> bool:
    return {state: n for state, n in (await node.deliveries.counts()).items() if n} == wanted
