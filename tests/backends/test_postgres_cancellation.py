"""Work on PostgreSQL, cancelled at every await: the pool is whole afterwards, and nothing is half done."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from backends.ports.entities import Key
from backends.ports.stores import AuditEntry, Delivery, Document
from backends.postgres import pool as pool_module
from backends.postgres.audit import AuditStore
from backends.postgres.deliveries import DeliveryStore
from backends.postgres.entities import EntityStore
from backends.postgres.outbox import Outbox, Relayed
from backends.postgres.pool import Pool
from backends.postgres.search import SearchIndex
from tests.backends.postgres_pool import Cut, open_pool, sessions
from tests.backends.test_port_entities import ADA, BOB, event, put, user
from tests.engines.postgres import Server, emptied

pytestmark = pytest.mark.engines

MOST_AWAITS = 60


@pytest.fixture(scope="module")
def database(postgres: Server) -> str:
    return postgres.create_database()


async def write(pool: Pool) -> None:
    writes = [put(user(ADA, 1), events=(event("ada", "e1"), event("ada", "e2"))), put(user(BOB, 1))]
    assert await EntityStore(pool, Relayed()).transact(writes) == ["put", "put"]


async def read(pool: Pool) -> None:
    await EntityStore(pool, Relayed()).read([ADA, BOB])


async def audit(pool: Pool) -> None:
    entries = [AuditEntry(id=f"a{n}", at=1.0, subject="s", action="a", entity="e", outcome="ok", request_id="r")
               for n in range(3)]  # fmt: skip
    await AuditStore(pool).append("t/0", entries)


async def drop_audits(pool: Pool) -> None:
    await AuditStore(pool).append(
        "t/1", [AuditEntry(id="b", at=1.0, subject="s", action="a", entity="e", outcome="ok", request_id="r")]
    )
    await AuditStore(pool).drop_prefix(5.0, 10, lambda head: "signed")


async def index(pool: Pool) -> None:
    await SearchIndex(pool).apply([Document(type="user", id="x", version=1, fields=("a", "b", "c"))])


async def rebuild(pool: Pool) -> None:
    async with SearchIndex(pool).rebuilding() as fresh:
        await fresh.apply([Document(type="user", id="x", version=1, fields=("a", "b", "c"))])
        await fresh.swap()


async def deliver(pool: Pool) -> None:
    store = DeliveryStore(pool, "me")
    await store.add([Delivery(id="d", channel="webhook", endpoint="w", event_id="e", event_type="t", source="s/0/0",
                              payload=b"{}")])  # fmt: skip
    await store.due(10.0, 5, ())


async def relay(pool: Pool) -> None:
    async with Outbox(pool, Relayed()).held() as holder:
        rows = await holder.take(10)
        await holder.forget([row.id for row in rows])


OPERATIONS = [write, read, audit, drop_audits, index, rebuild, deliver, relay]


async def consistent(pool: Pool) -> None:
    """Two of everything that is written together, or none."""
    (row,) = await pool.fetch(
        "SELECT (SELECT count(*) FROM entity WHERE body IS NOT NULL), (SELECT count(*) FROM outbox), "
        "(SELECT count(*) FROM audit WHERE chain = (SELECT chain FROM audit_chain WHERE name = 't/0')), "
        "(SELECT sequence FROM audit_chain WHERE name = 't/0')"
    )
    entities, events, rows, head = row
    assert (entities, events) in ((0, 0), (2, 2))
    assert rows in (0, 3)
    assert (head or 0) == rows


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
async def test_cancelled_at_every_await_the_pool_is_whole_and_nothing_is_half_done(
    postgres: Server, database: str, monkeypatch: pytest.MonkeyPatch, operation: Callable[[Pool], Awaitable[Any]]
) -> None:
    await_number = 0
    async with open_pool(postgres.local_dsn(database), size=2) as pool:
        await pool_module.crossing(partial(emptied, postgres.admin_dsn(database)))
        for await_number in range(MOST_AWAITS):
            cut = Cut(await_number)
            monkeypatch.setattr(pool_module, "crossing", cut)
            with cut.scope:
                await operation(pool)
            monkeypatch.undo()
            assert pool.in_use == 0
            assert pool.idle <= 2
            await EntityStore(pool, Relayed()).read([Key("user", "nobody")])
            await consistent(pool)
            await pool_module.crossing(partial(emptied, postgres.admin_dsn(database)))
            if not cut.struck:
                break
        assert not cut.struck, "more awaits than were tried"
        assert await_number > 0, "nothing was cut"
        assert sessions(postgres, database, "idle in transaction") == 0


async def test_connecting_and_migrating_can_be_cancelled_at_every_await(
    postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = postgres.create_database()
    for await_number in range(MOST_AWAITS):
        cut = Cut(await_number)
        monkeypatch.setattr(pool_module, "crossing", cut)
        with cut.scope:
            async with open_pool(postgres.local_dsn(name)):
                pass
        monkeypatch.undo()
        if not cut.struck:
            break
    assert not cut.struck, "more awaits than were tried"
    async with open_pool(postgres.local_dsn(name)) as pool:
        assert (await pool.fetch("SELECT count(*) FROM schema_version"))[0][0] == 1
    assert sessions(postgres, name, "idle") == 0
