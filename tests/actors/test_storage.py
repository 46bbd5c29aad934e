"""The storage actors on small stores that commit, refuse, hang and fail."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import trio
from actor_helpers import Scripted, child, counts, gather, tree
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.event_log.messages import Appended
from actors.metrics import Metrics
from actors.runtime import ActorCrashed, Child, Reject, System
from actors.storage.messages import Read, Scan, Transact
from actors.storage.reader import StorageReader
from actors.storage.scans import StorageScans
from actors.storage.writer import StorageWriter
from backends.ports.entities import Decision, Entity, Key, Refused, StoreUnavailable, Write
from backends.ports.events import Event

A, B = Key("user", "a"), Key("user", "b")


def entity(key: Key, version: int = 1) -> Entity:
    return Entity(key.kind, key.id, version, 0.0, 0.0, b"{}")


class MemoryStore:
    """Entities in a dict. `gate` holds up reads and scans, `fault` is raised by everything while it is set."""

    def __init__(self) -> None:
        self.rows: dict[Key, Entity] = {}
        self.batches: list[int] = []
        self.reads: list[list[Key]] = []
        self.most_reads_at_once = 0
        self.reading = 0
        self.gate = trio.Event()
        self.gate.set()
        self.fault: Exception | None = None

    async def transact(self, writes: Sequence[Write]) -> list[Any]:
        await trio.lowlevel.checkpoint()
        if self.fault is not None:
            raise self.fault
        self.batches.append(len(writes))
        results: list[Any] = []
        for write in writes:
            try:
                decision = write.decide([self.rows.get(key) for key in write.keys], [0] * len(write.keys))
            except Exception as error:
                results.append(error)
            else:
                self.rows.update((put.key, put) for put in decision.put)
                results.append(decision.answer)
        return results

    async def read(self, keys: Sequence[Key]) -> list[Entity | None]:
        self.reads.append(list(keys))
        self.reading += 1
        self.most_reads_at_once = max(self.most_reads_at_once, self.reading)
        rows = [self.rows.get(key) for key in keys]
        try:
            await self.gate.wait()
        finally:
            self.reading -= 1
        if self.fault is not None:
            raise self.fault
        return rows

    async def scan(self, kind: str, after: str, limit: int) -> list[Entity]:
        await self.gate.wait()
        if self.fault is not None:
            raise self.fault
        ids = sorted(key.id for key in self.rows if key.kind == kind and key.id > after)
        return [self.rows[Key(kind, id)] for id in ids[:limit]]


def put(key: Key, topic: str = "entity.changed") -> Transact:
    event = Event(topic, key.id, "user.created", f"event-{key.id}", 0.0, b"{}")
    return Transact(Write((key,), lambda entities, versions: Decision("done", put=(entity(key),), events=(event,))))


def refusing(error: object) -> Transact:
    def decide(entities: Sequence[Entity | None], versions: Sequence[int]) -> Decision:
        raise Refused(error)

    return Transact(Write((A,), decide))


def failing() -> Transact:
    def decide(entities: Sequence[Entity | None], versions: Sequence[int]) -> Decision:
        raise ZeroDivisionError("a bug of one service")

    return Transact(Write((A,), decide))


class Storage:
    """A tree of the storage actors on one store; what the event log was told is in `told`."""

    def __init__(self, **reader_options: Any) -> None:
        self.store = MemoryStore()
        self.metrics = Metrics()
        self.told: list[Any] = []
        self._reader_options = reader_options

    def children(self) -> tuple[Child, ...]:
        store: Any = self.store
        return (
            child("event_log", partial(Scripted, self._nothing, self.told)),
            child("storage", partial(StorageWriter, store, self.metrics), retry=False),
            child("storage_reader", partial(StorageReader, store, self.metrics, **self._reader_options)),
            child("storage_scans", partial(StorageScans, store, self.metrics)),
        )

    @staticmethod
    async def _nothing(message: Any) -> None:
        return None

    @property
    def queries(self) -> float:
        return counts(self.metrics, "weir_database_queries_total")[()]


def asks(system: System, id: str, *messages: Any) -> list[Callable[[], Any]]:
    return [partial(system.ref(id).ask, message) for message in messages]


# The writer.


async def test_writes_of_one_moment_are_one_transaction(autojump_clock: MockClock) -> None:
    storage = Storage()
    async with tree(*storage.children()) as system:
        answers = await gather(*asks(system, "storage", put(A), put(B), put(A)))
    assert answers == ["done"] * 3
    assert (storage.store.batches, storage.queries) == ([3], 1)


async def test_a_commit_wakes_the_readers_of_the_topics_it_appended_to(autojump_clock: MockClock) -> None:
    storage = Storage()
    async with tree(*storage.children()) as system:
        await gather(*asks(system, "storage", put(A, "audit"), put(B, "entity.changed")))
        await wait_all_tasks_blocked()
        assert storage.told == [Appended(frozenset({"audit", "entity.changed"}))]


async def test_a_refusal_and_a_failed_decision_are_their_askers_alone(autojump_clock: MockClock) -> None:
    storage = Storage()
    async with tree(*storage.children()) as system:
        refused, failed, done = await gather(*asks(system, "storage", refusing("taken"), failing(), put(A)))
        assert system.snapshot()["children"][1]["restarts"] == 0
    assert refused.error == "taken"
    assert isinstance(failed.error, ZeroDivisionError)
    assert done == "done"
    assert counts(storage.metrics, "weir_storage_writes_total") == {
        ("refused",): 1,
        ("failed",): 1,
        ("committed",): 1,
    }


async def test_a_store_that_is_away_is_no_crash_of_the_writer(autojump_clock: MockClock) -> None:
    storage = Storage()
    async with tree(*storage.children()) as system:
        storage.store.fault = StoreUnavailable("away")
        with pytest.raises(Reject) as refused:
            await system.ref("storage").ask(put(A))
        assert isinstance(refused.value.error, StoreUnavailable)
        storage.store.fault = None
        assert await system.ref("storage").ask(put(A)) == "done"
        assert system.snapshot()["children"][1]["restarts"] == 0


async def test_a_crash_of_the_writer_is_told_and_the_next_write_works(autojump_clock: MockClock) -> None:
    storage = Storage()
    async with tree(*storage.children()) as system:
        storage.store.fault = OSError("the disk is gone")
        with pytest.raises(ActorCrashed):
            await system.ref("storage").ask(put(A))
        storage.store.fault = None
        assert await system.ref("storage").ask(put(A)) == "done"


# The reader.


async def test_reads_of_one_moment_are_one_query_of_distinct_keys(autojump_clock: MockClock) -> None:
    storage = Storage()
    storage.store.rows[A] = entity(A)
    async with tree(*storage.children()) as system:
        found = await gather(*asks(system, "storage_reader", Read(A), Read(B), Read(A)))
    assert found == [entity(A), None, entity(A)]
    assert [sorted(keys) for keys in storage.store.reads] == [[A, B]]
    assert storage.queries == 1


async def test_a_read_that_hangs_blocks_no_other(autojump_clock: MockClock) -> None:
    storage = Storage()
    async with tree(*storage.children()) as system, trio.open_nursery() as nursery:
        reader = system.ref("storage_reader")
        open_gate, storage.store.gate = storage.store.gate, trio.Event()
        nursery.start_soon(reader.ask, Read(A))
        await wait_all_tasks_blocked()
        storage.store.gate = open_gate
        with trio.fail_after(0.1):
            assert await reader.ask(Read(B)) is None
        nursery.cancel_scope.cancel()


async def test_beyond_the_limit_reads_wait_together_for_the_next_query(autojump_clock: MockClock) -> None:
    storage = Storage(concurrency=2)
    storage.store.gate = trio.Event()
    async with tree(*storage.children()) as system, trio.open_nursery() as nursery:
        reader = system.ref("storage_reader")
        found: list[Any] = []

        async def read(number: int) -> None:
            found.append(await reader.ask(Read(Key("user", str(number)))))

        for number in range(10):
            nursery.start_soon(read, number)
            await wait_all_tasks_blocked()
        storage.store.gate.set()
    assert (len(found), storage.store.most_reads_at_once) == (10, 2)
    assert sorted(map(len, storage.store.reads)) == [1, 1, 8]


async def test_a_read_never_joins_a_query_that_has_begun(autojump_clock: MockClock) -> None:
    """It could have begun before a write that the asker knows to be done."""
    storage = Storage()
    held = storage.store.gate = trio.Event()
    async with tree(*storage.children()) as system, trio.open_nursery() as nursery:
        reader = system.ref("storage_reader")
        nursery.start_soon(reader.ask, Read(A))
        await wait_all_tasks_blocked()
        storage.store.rows[A] = entity(A, version=2)
        storage.store.gate = trio.Event()
        storage.store.gate.set()
        assert await reader.ask(Read(A)) == entity(A, version=2)
        held.set()


async def test_a_read_that_never_ends_is_given_up(autojump_clock: MockClock) -> None:
    storage = Storage(concurrency=1)
    storage.store.gate = trio.Event()
    async with tree(*storage.children()) as system:
        with trio.fail_after(5.1), pytest.raises(Reject) as refused:
            await system.ref("storage_reader").ask(Read(A))
        assert isinstance(refused.value.error, StoreUnavailable)
        storage.store.gate.set()
        assert await system.ref("storage_reader").ask(Read(A)) is None


@pytest.mark.parametrize("fault", [StoreUnavailable("away"), OSError("a broken page")])
async def test_a_query_that_fails_fails_its_readers_only(fault: Exception, autojump_clock: MockClock) -> None:
    storage = Storage()
    async with tree(*storage.children()) as system:
        storage.store.fault = fault
        with pytest.raises(Reject) as refused:
            await system.ref("storage_reader").ask(Read(A))
        assert refused.value.error is fault
        storage.store.fault = None
        assert await system.ref("storage_reader").ask(Read(A)) is None
        assert system.snapshot()["children"][2]["restarts"] == 0


async def test_reads_under_way_at_a_crash_are_done_by_the_next_incarnation(autojump_clock: MockClock) -> None:
    storage = Storage()
    storage.store.rows[A] = entity(A)
    storage.store.gate = trio.Event()
    async with tree(*storage.children()) as system, trio.open_nursery() as nursery:
        reader = system.ref("storage_reader")
        found: list[Any] = []

        async def read(key: Key) -> None:
            found.append(await reader.ask(Read(key)))

        nursery.start_soon(read, A)
        await wait_all_tasks_blocked()
        system.crash("storage_reader")
        nursery.start_soon(read, A)
        await wait_all_tasks_blocked()
        storage.store.gate.set()
    assert found == [entity(A)] * 2


# Scans.


async def test_a_scan_lists_a_kind_by_id(autojump_clock: MockClock) -> None:
    storage = Storage()
    storage.store.rows = {key: entity(key) for key in (A, B, Key("webhook", "c"))}
    async with tree(*storage.children()) as system:
        scans = system.ref("storage_scans")
        assert await scans.ask(Scan("user", "", 10)) == [entity(A), entity(B)]
        assert await scans.ask(Scan("user", "a", 10)) == [entity(B)]


async def test_a_scan_that_hangs_or_finds_no_engine_says_so(autojump_clock: MockClock) -> None:
    storage = Storage()
    storage.store.gate = trio.Event()
    async with tree(*storage.children()) as system:
        scans = system.ref("storage_scans")
        for _ in range(2):
            with trio.fail_after(10.1), pytest.raises(Reject) as refused:
                await scans.ask(Scan("user", "", 10))
            assert isinstance(refused.value.error, StoreUnavailable)
            storage.store.gate.set()
            storage.store.fault = StoreUnavailable("away")
