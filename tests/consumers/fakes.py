"""An event log and stores in memory, with switches for what can go wrong. Times are trio's: virtual in tests."""

import copy
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from random import Random
from typing import Any

import msgspec
import trio

from actors.cache_manager.messages import FlushAll, Invalidate
from actors.consumers.handler import ConsumerOptions
from actors.event_log import messages as m
from actors.metrics import Counter as Family
from actors.metrics import Metrics
from actors.runtime import Actor, Backoff, Child, Mailbox, Reject, Supervisor, System, open_system
from actors.storage.messages import Read, Scan, Transact
from backends.ports.cloudevents import to_record
from backends.ports.entities import Entity, StoreUnavailable
from backends.ports.event_log import Attempt
from backends.ports.events import ENTITY_CHANGED, Event, NewRecord, Partition, Record
from backends.ports.groups import Commit
from backends.ports.stores import AuditEntry, Delivery, Document

MAILBOX = Mailbox(64)
OPTIONS = ConsumerOptions(max_wait=1.0, refresh=2.0, handler_timeout=30.0)


_CONTENT = ("partitions", "committed", "metadata", "attempts")


class MemoryLog:
    """The log's content; outlives the actor in front of it, as a disk would.

    `refuse` holds message classes that are answered with `StoreUnavailable`.
    """

    def __init__(self) -> None:
        self.partitions: dict[Partition, list[Record]] = {}
        self.committed: dict[tuple[str, Partition], int] = {}
        self.metadata: dict[tuple[str, Partition], str] = {}
        self.attempts: dict[tuple[str, Partition], dict[int, Attempt]] = {}
        self.saved: list[tuple[float, int, Attempt]] = []
        self.refuse: set[type] = set()
        self.refused: Counter[type] = Counter()
        self.asked: Counter[type] = Counter()
        self.appended = trio.Event()

    def add(self, *records: NewRecord) -> list[Record]:
        stored = []
        for record in records:
            partition = (record.topic, record.partition or 0)
            held = self.partitions.setdefault(partition, [])
            now = round(trio.current_time() * 1000)
            held.append(Record(*partition, len(held), now, record.key, record.value, record.headers))
            stored.append(held[-1])
        self.appended.set()
        self.appended = trio.Event()
        return stored

    def frozen(self) -> dict[str, Any]:
        """Its content now, for `restore`."""
        return copy.deepcopy({name: getattr(self, name) for name in _CONTENT})

    def restore(self, content: dict[str, Any]) -> None:
        for name, value in content.items():
            setattr(self, name, value)

    def read(self, topic: str) -> list[Record]:
        return [record for (name, _), records in self.partitions.items() if name == topic for record in records]


class FakeEventLog(Actor[Any]):
    def __init__(self, log: MemoryLog) -> None:
        self._log = log

    async def handle(self, message: Any) -> Any:
        log = self._log
        log.asked[type(message)] += 1
        if type(message) in log.refuse:
            log.refused[type(message)] += 1
            raise Reject(StoreUnavailable("the log is away"))
        match message:
            case m.Append(records):
                return [(r.partition, r.offset) for r in log.add(*records)]
            case m.Fetch():
                later = self.later()
                self.spawn(self._fetch, message, later)
                return later
            case m.Progress(group, topics):
                return {
                    p: Commit(log.committed.get((group, p), 0), log.metadata.get((group, p), ""))
                    for p in log.partitions
                    if p[0] in topics
                }
            case m.Ends(topic):
                return {p: len(records) for p, records in log.partitions.items() if p[0] == topic}
            case m.Commit(group, offsets, metadata):
                for partition, offset in offsets.items():
                    log.committed[group, partition] = offset
                    log.metadata[group, partition] = metadata.get(partition, "")
                    kept = log.attempts.get((group, partition), {})
                    log.attempts[group, partition] = {at: a for at, a in kept.items() if at >= offset}
                return None
            case m.Attempts(group, partition):
                return dict(log.attempts.get((group, partition), {}))
            case m.SaveAttempt(group, partition, offset, attempt):
                log.attempts.setdefault((group, partition), {})[offset] = attempt
                log.saved.append((trio.current_time(), offset, attempt))
                return None
            case m.ReadRecord((topic, number), offset):
                records = log.partitions.get((topic, number), [])
                return records[offset] if offset < len(records) else None

    async def _fetch(self, message: m.Fetch, later: Any) -> None:
        with trio.move_on_after(message.max_wait):
            while not self._ready(message) and not (message.waiter and message.waiter.ended):
                await self._log.appended.wait()
        later.answer(self._ready(message)[: message.limit])

    def _ready(self, message: m.Fetch) -> list[Record]:
        return [r for p, at in message.positions.items() for r in self._log.partitions.get(p, [])[at:]]


class Recorder:
    """A handler that notes what it was given, and fails where `failing` (event id → error maker) says so."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, list[str]]] = []
        self.done: list[str] = []
        self.failing: dict[str, Callable[[], Exception]] = {}
        self.hang = False

    async def handle(self, events: Sequence[Any]) -> None:
        self.calls.append((trio.current_time(), [event.id for _, event in events]))
        if self.hang:
            await trio.sleep_forever()
        for _, event in events:
            if event.id in self.failing:
                raise self.failing[event.id]()
        self.done += [event.id for _, event in events]

    def times_of(self, id: str) -> list[float]:
        return [at for at, ids in self.calls if ids == [id]]


class MemoryAudit:
    def __init__(self) -> None:
        self.entries: dict[str, AuditEntry] = {}
        self.chains: dict[str, list[str]] = {}

    async def append(self, chain: str, entries: Sequence[AuditEntry]) -> int:
        before = len(self.entries)
        self.chains.setdefault(chain, []).extend(entry.id for entry in entries)
        for entry in entries:
            self.entries.setdefault(entry.id, entry)
        return len(self.entries) - before


class MemoryIndex:
    def __init__(self) -> None:
        self.documents: dict[str, Document] = {}

    async def apply(self, documents: Sequence[Document]) -> int:
        newer = 0
        for document in documents:
            if document.id not in self.documents or document.version > self.documents[document.id].version:
                self.documents[document.id] = document
                newer += 1
        return newer


class MemoryDeliveries:
    """A `DeliveryStore`; `away` makes it refuse everything."""

    def __init__(self) -> None:
        self.rows: dict[str, Delivery] = {}
        self.away = False

    async def add(self, deliveries: Sequence[Delivery]) -> int:
        self._check()
        new = [d for d in deliveries if d.id not in self.rows]
        self.rows |= {d.id: d for d in new}
        return len(new)

    async def endpoints(self, now: float, limit: int, exclude: Sequence[str]) -> list[str]:
        self._check()
        rows = sorted(self._pending(exclude), key=lambda d: d.due_at)
        return list(dict.fromkeys(row.endpoint for row in rows if row.due_at <= now))[:limit]

    async def due(self, endpoint: str, now: float, limit: int) -> list[Delivery]:
        self._check()
        rows = sorted(self._pending(()), key=lambda d: d.due_at)
        return [row for row in rows if row.endpoint == endpoint and row.due_at <= now][:limit]

    async def next_due(self, exclude: Sequence[str]) -> float | None:
        self._check()
        return min((d.due_at for d in self._pending(exclude)), default=None)

    async def pending(self) -> int:
        self._check()
        return len(self._pending(()))

    async def save(self, deliveries: Sequence[Delivery]) -> None:
        self._check()
        self.rows |= {delivery.id: delivery for delivery in deliveries}

    async def reset(self, id: str, now: float) -> bool:
        self._check()
        row = self.rows.get(id)
        if row is None or row.state != "dead":
            return False
        self.rows[id] = msgspec.structs.replace(
            row, state="pending", attempts=0, due_at=now, pending_since=now, replays=row.replays + 1
        )
        return True

    async def withdraw(self, endpoint: str, now: float, reason: str) -> int:
        self._check()
        found = [row for row in self._pending(()) if row.endpoint == endpoint]
        for row in found:
            self.rows[row.id] = msgspec.structs.replace(row, state="withdrawn", last_at=now, error=reason)
        return len(found)

    async def oldest(self) -> float | None:
        self._check()
        return min((row.pending_since for row in self._pending(())), default=None)

    def _pending(self, exclude: Sequence[str]) -> list[Delivery]:
        return [d for d in self.rows.values() if d.state == "pending" and d.endpoint not in exclude]

    def _check(self) -> None:
        if self.away:
            raise StoreUnavailable("the delivery store is away")


class FakeStorage(Actor[Any]):
    """Stands for `storage`, `storage_reader` and `storage_scans`, given the same *entities* and *published*."""

    def __init__(self, entities: list[Entity], published: list[Event] | None = None) -> None:
        self._entities = entities
        self._published = [] if published is None else published

    async def handle(self, message: Any) -> Any:
        match message:
            case Transact(write):
                found = [next((e for e in self._entities if e.key == key), None) for key in write.keys]
                decision = write.decide(found, [0] * len(found))
                put = {entity.key: entity for entity in decision.put}
                self._entities[:] = [put.get(entity.key, entity) for entity in self._entities]
                self._published += decision.events
                return decision.answer
            case Read(key):
                return next((e for e in self._entities if e.key == key), None)
            case Scan(kind, after, limit):
                found = sorted((e for e in self._entities if e.kind == kind and e.id > after), key=lambda e: e.id)
                return found[:limit]


class FakeCache(Actor[Any]):
    def __init__(self, heard: list[Any]) -> None:
        self._heard = heard

    async def handle(self, message: FlushAll | Invalidate) -> None:
        self._heard.append("flush" if isinstance(message, FlushAll) else message.keys)


class Sink(Actor[Any]):
    """Stands for an actor that is only ever told something."""

    async def handle(self, message: Any) -> None:
        return None


@asynccontextmanager
async def running(log: MemoryLog, **children: Any) -> AsyncIterator[System]:
    """A tree of the fake log and *children*, by id: factories of actors, or whole declarations; deterministic backoff,
    small shutdown budgets."""
    specs = [
        Child(id, factory, mailbox=MAILBOX, shutdown=2.0, backoff=Backoff(jitter=0.0)) if callable(factory) else factory
        for id, factory in {"event_log": partial(FakeEventLog, log), **children}.items()
    ]
    async with open_system(Supervisor("root", children=specs), rng=Random(1)) as system:
        yield system


def event(
    id: str, *, key: str = "u1", type: str = "user.created", data: object = None, topic: str = ENTITY_CHANGED
) -> Event:
    return Event(topic=topic, key=key, type=type, id=id, time=1.0, data=msgspec.json.encode(data))


def record(id: str, partition: int = 0, **kwargs: Any) -> NewRecord:
    return msgspec.structs.replace(to_record(event(id, **kwargs)), partition=partition)


def change(id: str, version: int, *, kind: str = "user", previous: object = None, **user: Any) -> dict[str, Any]:
    """The data of an `entity.changed` event; without fields of the user it is a deletion."""
    entity = {"id": id, "version": version, **user} if user else None
    return {"kind": kind, "id": id, "version": version, "entity": entity, "previous": previous, "subject": "root"}


def count(metrics: Metrics, name: str, *labels: str) -> float:
    family = next(f for f in metrics.families() if f.name == name)
    assert isinstance(family, Family)
    return family.values.get(labels, 0)


class MaxJitter(Random):
    """Jitter at its upper end, so that waits are the round numbers of the formula."""

    def random(self) -> float:
        return 1.0
