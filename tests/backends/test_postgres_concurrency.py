"""Several instances on one PostgreSQL: they start at once, write the same entities, relay one after the other."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio

from backends.asyncio_bridge import asyncio_loop
from backends.ports.entities import Decision, Entity, Key, Refused, Write
from backends.ports.events import NewRecord
from backends.ports.stores import AuditEntry, Delivery, Document
from backends.postgres.audit import AuditStore
from backends.postgres.deliveries import CLAIM_S, DeliveryStore
from backends.postgres.entities import EntityStore
from backends.postgres.errors import NewerSchema
from backends.postgres.outbox import Outbox, Relayed
from backends.postgres.pool import Pool
from backends.postgres.search import SearchIndex
from tests.backends.postgres_pool import open_pool
from tests.backends.test_port_entities import ADA, BOB, event, put, user
from tests.engines.postgres import Server

pytestmark = pytest.mark.engines


@pytest.fixture
def dsn(postgres: Server) -> str:
    return postgres.local_dsn(postgres.create_database())


@asynccontextmanager
async def instances(dsn: str, count: int) -> AsyncIterator[list[Pool]]:
    """Pools of as many instances, opened at once."""
    async with asyncio_loop(), AsyncExitStack() as stack, trio.open_nursery() as nursery:
        pools = [Pool(dsn) for _ in range(count)]
        opened = [trio.Event() for _ in pools]
        done = trio.Event()

        async def run(pool: Pool, ready: trio.Event) -> None:
            async with pool.opened():
                ready.set()
                await done.wait()

        stack.callback(done.set)
        for pool, ready in zip(pools, opened, strict=True):
            nursery.start_soon(run, pool, ready)
        for ready in opened:
            await ready.wait()
        yield pools
        done.set()


def add_one(key: Key, number: str) -> Write:
    """Counts in the entity's body, and tells of it."""

    def decide(found: Sequence[Entity | None], removed: Sequence[int]) -> Decision:
        before = found[0]
        version = before.version + 1 if before else removed[0] + 1
        count = int(before.body) + 1 if before else 1
        entity = Entity(key.kind, key.id, version, 1.0, 1.0, str(count).encode())
        return Decision(count, put=(entity,), events=(event(key.id, f"{key.id}:{count}:{number}"),))

    return Write((key,), decide)


async def test_instances_that_start_at_once_migrate_once(dsn: str) -> None:
    async with instances(dsn, 5) as pools:
        assert all(pool.health() == (True, ()) for pool in pools)
        assert (await pools[0].fetch("SELECT count(*) FROM schema_version"))[0][0] == 1


async def test_a_newer_schema_is_refused_with_a_cure(dsn: str) -> None:
    async with open_pool(dsn) as pool:
        await pool.execute("UPDATE schema_version SET version = 1000")
    with pytest.raises(NewerSchema, match=r"schema is version 1000 and this Weir knows up to \d+; run the Weir"):
        async with open_pool(dsn):
            pass


async def test_no_write_of_any_instance_is_lost_and_events_are_in_the_order_of_the_commits(dsn: str) -> None:
    rounds, writers = 15, 3
    async with instances(dsn, writers) as pools:

        async def write(store: EntityStore, number: int) -> None:
            for n in range(rounds):
                keys = (ADA, BOB) if (n + number) % 2 else (BOB, ADA)  # in both orders: no deadlock
                outcomes = await store.transact([add_one(key, f"{number}.{n}") for key in keys])
                assert all(isinstance(outcome, int) for outcome in outcomes), outcomes

        async with trio.open_nursery() as nursery:
            for number, pool in enumerate(pools):
                nursery.start_soon(write, EntityStore(pool, Relayed()), number)
        found = await EntityStore(pools[0], Relayed()).read([ADA, BOB])
        assert [entity and int(entity.body) for entity in found] == [rounds * writers] * 2
        async with Outbox(pools[0], Relayed()).held() as holder:
            rows = await holder.take(1000)
        ids = [event_id(row.record) for row in rows]
        for key in ("ada", "bob"):
            counted = [int(id.split(":")[1]) for id in ids if id.startswith(key)]
            assert counted == list(range(1, rounds * writers + 1))


def event_id(record: NewRecord) -> str:
    return dict(record.headers)["ce_id"].decode()


async def test_two_instances_cannot_both_create(dsn: str) -> None:
    def create(key: Key) -> Write:
        def decide(found: Sequence[Entity | None], removed: Sequence[int]) -> Decision:
            if found[0] is not None:
                raise Refused("exists")
            return Decision("created", put=(user(key, removed[0] + 1),))

        return Write((key,), decide)

    async with instances(dsn, 4) as pools:
        for n in range(8):
            key = Key("user", f"u{n}")
            outcomes: list[object] = []

            async def attempt(pool: Pool, key: Key = key, outcomes: list[object] = outcomes) -> None:
                outcomes.extend(await EntityStore(pool, Relayed()).transact([create(key)]))

            async with trio.open_nursery() as nursery:
                for pool in pools:
                    nursery.start_soon(attempt, pool)
            assert outcomes.count("created") == 1
            assert sum(isinstance(outcome, Refused) for outcome in outcomes) == 3


async def test_what_a_decision_read_is_as_it_was_read_when_it_is_committed(dsn: str) -> None:
    """Each writes its own entity only while the other's is absent: both at once would be a write skew."""

    def unless(mine: Key, other: Key) -> Write:
        def decide(found: Sequence[Entity | None], removed: Sequence[int]) -> Decision:
            if found[1] is not None:
                raise Refused("taken")
            return Decision("put", put=(user(mine, 1),))

        return Write((mine, other), decide)

    async with instances(dsn, 2) as pools:
        for n in range(10):
            keys = Key("user", f"a{n}"), Key("user", f"b{n}")
            async with trio.open_nursery() as nursery:
                for pool, (mine, other) in zip(pools, (keys, keys[::-1]), strict=True):
                    nursery.start_soon(EntityStore(pool, Relayed()).transact, [unless(mine, other)])
            found = await EntityStore(pools[0], Relayed()).read(keys)
            assert sum(entity is not None for entity in found) == 1


async def test_one_instance_relays_and_the_next_takes_over(dsn: str) -> None:
    async with instances(dsn, 2) as pools:
        relayed = [Relayed(), Relayed()]
        outboxes = [Outbox(pool, own, patience=0.05) for pool, own in zip(pools, relayed, strict=True)]
        async with outboxes[0].held() as holder:
            assert (relayed[0].here, relayed[1].here) == (True, False)
            with trio.move_on_after(0.3) as waited:
                async with outboxes[1].held():
                    pass
            assert waited.cancelled_caught
            # The other instance's commit is told by notification, not found by a poll.
            assert await holder.take(10) == []
            await EntityStore(pools[1], relayed[1]).transact([put(user(ADA, 1), events=(event("ada", "e"),))])
            with trio.fail_after(5):
                await holder.wait(60.0)
            assert len(await holder.take(10)) == 1
        with trio.fail_after(5):
            async with outboxes[1].held() as holder:
                (row,) = await holder.take(10)
                await holder.refuse(row.id, "too large \0")
                assert await holder.take(10) == []
        assert [tuple(row) for row in await pools[0].fetch("SELECT topic, error FROM outbox_refused")] == [
            ("entity.changed", "too large \\u0000")
        ]


async def test_the_backlog_tells_rows_and_age(dsn: str) -> None:
    async with open_pool(dsn) as pool, Outbox(pool, Relayed()).held() as holder:
        assert await holder.backlog() == (0, 0.0)
        writes = [put(user(ADA, 1), events=(event("ada", "e1"), event("ada", "e2")))]
        await EntityStore(pool, Relayed(), now=lambda: 1000.0).transact(writes)
        rows, age = await holder.backlog()
        assert rows == 2
        assert age > 1e9


async def test_an_audit_chain_with_two_writers_has_no_fork_and_no_gap(dsn: str) -> None:
    async with instances(dsn, 3) as pools:

        async def append(pool: Pool, number: int) -> None:
            for n in range(10):
                entries = [audit(f"{number}.{n}.{m}") for m in range(3)]
                assert await AuditStore(pool).append("audit/0", entries) == 3

        async with trio.open_nursery() as nursery:
            for number, pool in enumerate(pools):
                nursery.start_soon(append, pool, number)
        verdict = await AuditStore(pools[0]).verify(trusted=lambda head, signature: False)
        assert (verdict.rows, verdict.broken) == (90, ())


async def test_the_same_entries_by_two_chains_at_once_are_kept_once(dsn: str) -> None:
    async with instances(dsn, 2) as pools:
        counts: list[int] = []

        async def append(pool: Pool, chain: str) -> None:
            counts.append(await AuditStore(pool).append(chain, [audit(str(n)) for n in range(50)]))

        async with trio.open_nursery() as nursery:
            for number, pool in enumerate(pools):
                nursery.start_soon(append, pool, f"audit/{number}")
        assert sum(counts) == 50


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM audit",
        "UPDATE audit SET subject = 'x'",
        "TRUNCATE audit",
        "DELETE FROM audit_chain",
        "TRUNCATE audit_chain",
        "UPDATE audit_chain SET sequence = 0",
        "UPDATE audit_chain SET hash = 'x'",
        "UPDATE audit_chain SET dropped = 1",
    ],
)
async def test_the_trail_refuses_changes(postgres: Server, statement: str) -> None:
    name = postgres.create_database()
    async with open_pool(postgres.local_dsn(name)) as pool:
        await AuditStore(pool).append("audit/0", [audit("1"), audit("2")])
        with pytest.raises(AssertionError, match="append-only"):
            postgres.execute("SET search_path = weir; " + statement, name)


@pytest.mark.parametrize(
    ("tampering", "broken"),
    [
        ("UPDATE audit SET subject = 'somebody else' WHERE sequence = 2", "row 2 (2) was changed"),
        ("DELETE FROM audit WHERE sequence = 2", "row 2 is missing"),
        ("DELETE FROM audit WHERE sequence = 3", "row 3 is missing: the chain ends before row 3"),
        ("UPDATE audit_chain SET hash = decode(repeat('00', 32), 'hex')", "row 3 is not the one that was written last"),
    ],
)
async def test_tampering_behind_its_back_shows(postgres: Server, tampering: str, broken: str) -> None:
    name = postgres.create_database()
    async with open_pool(postgres.local_dsn(name)) as pool:
        await AuditStore(pool).append("audit/0", [audit(str(n)) for n in (1, 2, 3)])
        postgres.execute("SET search_path = weir; SET session_replication_role = replica; " + tampering, name)
        (found,) = (await AuditStore(pool).verify(trusted=lambda head, signature: False)).broken
        assert found.what == broken


async def due(store: DeliveryStore, endpoint: str, now: float) -> list[str]:
    return [found.id for found in await store.due(endpoint, now, 9)]


async def test_an_endpoint_is_one_instances_until_nothing_is_due_or_its_claim_runs_out(dsn: str) -> None:
    async with open_pool(dsn) as pool:
        one, two = DeliveryStore(pool, "one"), DeliveryStore(pool, "two")
        await one.add([delivery("a", "x"), delivery("b", "x"), delivery("c", "y")])
        assert await due(one, "x", 10.0) == ["a", "b"]
        assert await two.endpoints(10.0, 9, ()) == ["y"], "endpoint x is being worked for"
        assert await due(two, "x", 10.0) == []
        assert await two.next_due(("y",)) == 10.0 + CLAIM_S
        await one.save([delivery("a", "x", state="done", last_at=50.0)])
        assert await due(two, "x", 10.0 + CLAIM_S) == [], "each outcome renews the claim"
        assert await two.endpoints(50.0 + CLAIM_S, 9, ("y",)) == ["x"], "one died"
        assert await due(two, "x", 50.0 + CLAIM_S) == ["b"]
        await two.save([delivery("b", "x", state="done", last_at=200.0)])
        assert await due(two, "x", 201.0) == [], "nothing is left: let go"
        await one.add([delivery("d", "x")])
        assert await due(one, "x", 202.0) == ["d"]


async def test_two_instances_that_look_at_once_share_the_work(dsn: str) -> None:
    async with instances(dsn, 2) as pools:
        stores = [DeliveryStore(pool, str(number)) for number, pool in enumerate(pools)]
        await stores[0].add([delivery(f"d{n}", f"e{n % 10}") for n in range(40)])
        taken: list[str] = []

        async def take(store: DeliveryStore) -> None:
            for endpoint in await store.endpoints(10.0, 50, ()):
                taken.extend(await due(store, endpoint, 10.0))

        async with trio.open_nursery() as nursery:
            for store in stores:
                nursery.start_soon(take, store)
        assert sorted(taken) == sorted(f"d{n}" for n in range(40)), "each delivery is one instance's"


async def test_a_rebuild_of_one_instance_gets_the_changes_of_another(dsn: str) -> None:
    async with instances(dsn, 2) as pools:
        builder, other = SearchIndex(pools[0]), SearchIndex(pools[1])
        await other.apply([document("old", 1)])
        async with builder.rebuilding() as fresh:
            await other.apply([document("new", 1)])
            await fresh.swap()
        assert [hit.id for hit in await other.query("word", None, 0, 10)] == ["new"]
        assert await other.count() == 1


def audit(id: str) -> AuditEntry:
    return AuditEntry(id=id, at=1.0, subject="s", action="a", entity="e", outcome="ok", request_id="r")


def delivery(id: str, endpoint: str, state: str = "pending", last_at: float = 0.0) -> Delivery:
    return Delivery(id=id, channel="webhook", endpoint=endpoint, event_id=id, event_type="t", source="s/0/0",
                    payload=b"{}", state=state, last_at=last_at)  # fmt: skip


def document(id: str, version: int) -> Document:
    return Document(type="user", id=id, version=version, fields=("word", "", ""))
