"""A tree for the services: real storage, cache and auth actors on an entity store in memory, and a publisher
that remembers. Time stands still at `NOW` unless a test moves it."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from random import Random
from typing import Any
from urllib.parse import urlencode

import msgspec
import trio
from trio.testing import wait_all_tasks_blocked

from actors.authenticator.messages import Principal
from actors.cache_manager.actor import CacheManager
from actors.cache_manager.loaders import entity_loader, token_loader
from actors.cache_manager.messages import CONFIGURATION, TOKEN_VALIDATION, USER_PROFILE
from actors.cache_manager.store import KindPolicy, LocalTier
from actors.metrics import Metrics
from actors.runtime import Actor, Child, Mailbox, Supervisor, System, open_system
from actors.storage.reader import StorageReader
from actors.storage.scans import StorageScans
from actors.storage.writer import StorageWriter
from backends.ports.entities import Decision, Entity, Key, Refused, StoreUnavailable, Write
from backends.ports.events import Event
from backends.ports.stores import AuditEntry, AuditFilter, SearchHit
from gateway.request import Request, Response
from gateway.services.audit.service import AuditService
from gateway.services.auth.service import OAuth
from gateway.services.configuration.service import Configuration
from gateway.services.messages import ServiceRequest
from gateway.services.openapi import OpenApi
from gateway.services.routes import DOCUMENTED
from gateway.services.search.service import SearchService
from gateway.services.users.service import Users
from gateway.services.webhooks.service import Webhooks

NOW = 1_770_000_000.0
JSON = (b"content-type", b"application/json")
FORM = (b"content-type", b"application/x-www-form-urlencoded")


class MemoryStore:
    """The `EntityStore` port on a dict. `fail` makes every call raise; `lose` commits and then raises;
    `hang` answers never."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.entities: dict[Key, Entity] = {}
        self.versions: dict[Key, int] = {}
        self.events: list[Event] = []
        self.reads: list[Key] = []
        self.fail: Exception | None = None
        self.lose = False
        self.hang = False

    async def open(self) -> None: ...
    async def aclose(self) -> None: ...

    async def transact(self, writes: Sequence[Write]) -> list[Any]:
        await self._begin()
        outcomes = [self._apply(write) for write in writes]
        if self.lose:
            raise StoreUnavailable("the connection broke during the commit")
        return outcomes

    async def read(self, keys: Sequence[Key]) -> list[Entity | None]:
        await self._begin()
        self.reads.extend(keys)
        return [self._living(key) for key in keys]

    async def scan(self, kind: str, after: str, limit: int) -> list[Entity]:
        await self._begin()
        found = sorted((key for key in self.entities if key.kind == kind and key.id > after), key=lambda key: key.id)
        return [entity for key in found if (entity := self._living(key)) is not None][:limit]

    async def purge_expired(self, now: float, limit: int) -> int:
        return 0

    def commit(self, write: Write) -> Any:
        """Apply one write at once, for a test's preparations."""
        outcome = self._apply(write)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def _begin(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.hang:
            await trio.sleep_forever()
        if self.fail is not None:
            raise self.fail

    def _living(self, key: Key) -> Entity | None:
        entity = self.entities.get(key)
        return None if entity is None or 0 < entity.expires_at <= self.now() else entity

    def _apply(self, write: Write) -> Any:
        found = [self._living(key) for key in write.keys]
        removed = [0 if entity else self.versions.get(key, 0) for key, entity in zip(write.keys, found, strict=True)]
        try:
            # Twice, as a retried transaction would: a decision that is not pure shows.
            first, decision = write.decide(found, removed), write.decide(found, removed)
        except Refused as refused:
            return refused
        except Exception as error:
            return error
        assert first == decision
        self._change(decision)
        return decision.answer

    def _change(self, decision: Decision) -> None:
        for entity in decision.put:
            assert entity.version > self.versions.get(entity.key, 0), "a version went back"
            self.versions[entity.key] = entity.version
            self.entities[entity.key] = entity
        for key in decision.remove:
            del self.entities[key]
            self.versions[key] += 1
        self.events.extend(decision.events)


class MemoryAudits:
    """The `AuditStore` port on a list."""

    def __init__(self) -> None:
        self.entries: list[AuditEntry] = []
        self.asked: list[AuditFilter] = []

    async def open(self) -> None: ...
    async def aclose(self) -> None: ...

    async def append(self, entries: Sequence[AuditEntry]) -> int:
        self.entries.extend(entries)
        return len(entries)

    async def query(self, where: AuditFilter, before: tuple[float, str] | None, limit: int) -> list[AuditEntry]:
        await trio.lowlevel.checkpoint()
        self.asked.append(where)
        newest = sorted(self.entries, key=lambda entry: (entry.at, entry.id), reverse=True)
        return [entry for entry in newest if before is None or (entry.at, entry.id) < before][:limit]


class MemoryIndex:
    """The `SearchIndex` port with scripted hits."""

    def __init__(self) -> None:
        self.hits: list[SearchHit] = []
        self.asked: list[tuple[str, str | None, int, int]] = []
        self.error: Exception | None = None

    async def open(self) -> None: ...
    async def aclose(self) -> None: ...

    async def apply(self, documents: Sequence[Any]) -> int:
        return 0

    async def query(self, q: str, type: str | None, offset: int, limit: int) -> list[SearchHit]:
        await trio.lowlevel.checkpoint()
        self.asked.append((q, type, offset, limit))
        if self.error is not None:
            raise self.error
        return self.hits[offset : offset + limit]


class WatchedCache(CacheManager):
    """The cache manager, remembering what it was asked."""

    def __init__(self, asked: list[Any], *args: Any) -> None:
        super().__init__(*args)
        self._asked = asked

    def handle_batch(self, messages: list[Any]) -> list[Any]:
        self._asked.extend(messages)
        return super().handle_batch(messages)


class Sink(Actor[Any]):
    """Remembers what it is told."""

    def __init__(self, seen: list[Any]) -> None:
        self._seen = seen

    async def handle(self, message: Any) -> None:
        self._seen.append(message)


class World:
    """Everything the services live on, and a client for them."""

    def __init__(self) -> None:
        self.time = NOW
        self.store = MemoryStore(lambda: self.time)
        self.audits = MemoryAudits()
        self.index = MemoryIndex()
        self.metrics = Metrics()
        self.published: list[Any] = []
        self.cache_asked: list[Any] = []
        self.system: System
        self._ids = count(1)
        self._requests = count(1)

    def now(self) -> float:
        return self.time

    def new_id(self) -> str:
        return f"01970000-0000-7000-8000-{next(self._ids):012x}"

    def tree(self) -> Supervisor:
        common: dict[str, Any] = {"new_id": self.new_id, "now": self.now, "metrics": self.metrics}
        ttl = {USER_PROFILE: 300.0, TOKEN_VALIDATION: 60.0, CONFIGURATION: 1800.0}
        tier = LocalTier({kind: KindPolicy(ttl=seconds, jitter=0) for kind, seconds in ttl.items()}, Random(1))
        loaders = {
            USER_PROFILE: entity_loader("user", self.now),
            CONFIGURATION: entity_loader("configuration", self.now),
            TOKEN_VALIDATION: token_loader(self.now),
        }
        factories: dict[str, Callable[[], Actor[Any]]] = {
            "storage": partial(StorageWriter, self.store, self.metrics),
            "storage_reader": partial(StorageReader, self.store, self.metrics),
            "storage_scans": partial(StorageScans, self.store, self.metrics),
            "event_log": partial(Sink, []),
            "publisher": partial(Sink, self.published),
            "cache_manager": partial(WatchedCache, self.cache_asked, tier, loaders, self.metrics),
            "oauth": partial(OAuth, **common),
            "users": partial(Users, **common),
            "configuration": partial(Configuration, **common),
            "search_service": partial(SearchService, self.index, **common),
            "webhooks": partial(Webhooks, **common),
            "audit_service": partial(AuditService, self.audits, **common),
            "openapi": partial(OpenApi, DOCUMENTED, **common),
        }
        children = [Child(id, factory, mailbox=Mailbox(1024)) for id, factory in factories.items()]
        return Supervisor("root", intensity=None, children=children)

    async def call(
        self,
        service: str,
        method: str,
        rest: str = "",
        *,
        json: Any = msgspec.UNSET,
        body: bytes = b"",
        form: dict[str, str] | None = None,
        query: dict[str, Any] | str = "",
        headers: Sequence[tuple[bytes, bytes]] = (),
        subject: str | None = "alice",
    ) -> Response:
        """One request to *service*, as the pipeline would pass it on."""
        sent = list(headers)
        if json is not msgspec.UNSET:
            body = msgspec.json.encode(json)
            sent.append(JSON)
        if form is not None:
            body = urlencode(form).encode()
            sent.append(FORM)
        raw = query if isinstance(query, str) else urlencode(query)
        principal = None if subject is None else Principal(subject, frozenset(), "", NOW + 60, "digest")
        request = Request(
            method, f"/{service}{rest}", raw.encode(), sent, body, "192.0.2.7", f"r{next(self._requests)}"
        )
        request.principal = principal
        response: Response = await self.system.ref(service).ask(ServiceRequest(request, rest), timeout=60)
        return response

    async def audit_trail(self) -> list[tuple[str, str, str, int]]:
        """(action, entity, outcome, status) of every audit, those of transactions first. Waits until all is still."""
        await wait_all_tasks_blocked()
        events = [event for event in self.store.events if event.topic == "audit"]
        events += [message.event for message in self.published]
        entries = [msgspec.json.decode(event.data, type=AuditEntry) for event in events]
        return [(entry.action, entry.entity, entry.outcome, entry.status) for entry in entries]

    def events(self, topic: str) -> list[tuple[str, Any]]:
        """(type, data) of the events of *topic* that transactions carried."""
        return [(event.type, msgspec.json.decode(event.data)) for event in self.store.events if event.topic == topic]


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    made = World()
    async with open_system(made.tree()) as system:
        made.system = system
        yield made


def document(response: Response) -> Any:
    return msgspec.json.decode(response.body)


def header(response: Response, name: bytes) -> bytes | None:
    return next((value for key, value in response.headers if key == name), None)
