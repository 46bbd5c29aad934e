"""A PostgreSQL that is stopped, killed, hung, not there, or not for us."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest
import trio
from structlog.testing import capture_logs

from backends.ports.entities import StoreUnavailable
from backends.postgres.entities import EntityStore
from backends.postgres.errors import UnusablePostgres
from backends.postgres.outbox import Outbox, Relayed
from backends.postgres.pool import Pool, place_of, retry_delay
from tests.backends.postgres_pool import open_pool
from tests.backends.test_port_entities import ADA, event, put, user
from tests.engines import free_port
from tests.engines.postgres import Server

pytestmark = pytest.mark.engines

RECOVERY_S = 5.0


@contextmanager
def stopped_in(server: Server, how: str) -> Iterator[None]:
    """The server away for the length of the block, and back after it, taking connections or about to."""
    {"stop": server.stop, "kill": server.kill, "suspend": server.suspend}[how]()
    try:
        yield
    finally:
        if how == "suspend":
            server.resume()
        else:
            server.start(wait=False)


@pytest.fixture
def database(own_postgres: Server) -> str:
    if not own_postgres.running:
        own_postgres.start()
    return own_postgres.create_database()


async def until(condition: Callable[[], Awaitable[bool]], within: float) -> None:
    with trio.fail_after(within):
        while not await condition():  # noqa: ASYNC110 - a real server, not an event of ours
            await trio.sleep(0.02)


class Load:
    """One writer and one reader, who go on whatever happens and remember what they were told."""

    def __init__(self, pool: Pool) -> None:
        self._store = EntityStore(pool, Relayed())
        self.acknowledged = 0
        self.failed: list[str] = []
        self.last_ok = trio.current_time()

    async def write_forever(self) -> None:
        version = 0
        while True:
            version += 1
            written = put(user(ADA, version), events=(event("ada", f"e{version}"),))
            try:
                with trio.fail_after(10):
                    (outcome,) = await self._store.transact([written])
            except StoreUnavailable as error:
                self.failed.append(str(error))
                version += 1  # it may have been committed: that version is used up
                await trio.sleep(0.02)
            else:
                assert outcome == "put", outcome
                self.acknowledged = version
                self.last_ok = trio.current_time()

    async def read_forever(self) -> None:
        while True:
            try:
                await self._store.read([ADA])
            except StoreUnavailable:
                await trio.sleep(0.02)
            await trio.sleep(0.001)

    async def has_failed(self) -> bool:
        return bool(self.failed)

    async def recovered(self, within: float) -> None:
        since = trio.current_time()

        async def written() -> bool:
            return self.last_ok > since

        await until(written, within)


@pytest.mark.parametrize("how", ["stop", "kill", "suspend"])
async def test_under_load_errors_are_the_engines_recovery_is_quick_and_nothing_acknowledged_is_lost(
    own_postgres: Server, database: str, how: str
) -> None:
    async with open_pool(own_postgres.dsn(database), budget=1.0) as pool, trio.open_nursery() as nursery:
        load = Load(pool)
        nursery.start_soon(load.write_forever)
        for _ in range(4):
            nursery.start_soon(load.read_forever)
        await load.recovered(10.0)
        with stopped_in(own_postgres, how):
            await until(load.has_failed, 10.0)
            await trio.sleep(1.0)
            assert not await reads(pool)
            assert pool.health().problems
        if how != "suspend":
            await trio.to_thread.run_sync(own_postgres.wait)
        await load.recovered(RECOVERY_S)
        await trio.sleep(0.2)
        assert pool.health() == (True, ())
        nursery.cancel_scope.cancel()
    async with open_pool(own_postgres.dsn(database)) as pool:
        rows = await pool.fetch("SELECT version, (SELECT count(*) FROM outbox) FROM entity")
        version, events = rows[0]
        assert version >= load.acknowledged
        assert events >= load.acknowledged / 2 - len(load.failed)


async def reads(pool: Pool) -> bool:
    try:
        await EntityStore(pool, Relayed()).read([ADA])
    except StoreUnavailable:
        return False
    return True


async def test_a_hung_server_costs_the_budget_and_no_more(own_postgres: Server, database: str) -> None:
    async with open_pool(own_postgres.dsn(database), budget=0.5) as pool:
        with stopped_in(own_postgres, "suspend"):
            began = trio.current_time()
            assert not await reads(pool)
            assert trio.current_time() - began < 2.0
        await until(partial(reads, pool), RECOVERY_S)


async def test_a_server_that_is_away_at_the_start_is_found_when_it_comes(own_postgres: Server, database: str) -> None:
    own_postgres.stop()
    async with open_pool(own_postgres.dsn(database)) as pool:
        health = pool.health()
        assert not health.reached
        assert f"127.0.0.1:{own_postgres.port}/{database}" in health.problems[0]
        with pytest.raises(StoreUnavailable, match=r"postgres\.dsn"):
            await EntityStore(pool, Relayed()).read([ADA])
        await trio.to_thread.run_sync(own_postgres.start)

        async def reached() -> bool:
            return pool.health().reached

        await until(reached, RECOVERY_S)
        assert await EntityStore(pool, Relayed()).read([ADA]) == [None]


@pytest.mark.parametrize(
    ("user", "password", "known", "says"),
    [
        ("weir", "wrong-secret", True, "correct the user or the password"),
        ("nobody", "wrong-secret", True, "correct the user or the password"),
        ("weir", "weir-secret", False, "create the database"),
    ],
)
async def test_what_waiting_does_not_cure_is_one_line_without_the_password(
    postgres: Server, user: str, password: str, known: bool, says: str
) -> None:
    name = postgres.create_database() if known else "no_such_database"
    with capture_logs() as logs, pytest.raises(UnusablePostgres) as refused:
        async with open_pool(postgres.dsn(name, user=user, password=password)):
            pass
    line = str(refused.value)
    assert says in line
    assert f"postgres.dsn ({user}@127.0.0.1:{postgres.port}/{name})" in line
    assert "\n" not in line
    assert "secret" not in line + repr(logs)


async def test_a_user_without_rights_is_told_which(postgres: Server) -> None:
    name = postgres.create_database()
    postgres.execute("CREATE ROLE stranger LOGIN PASSWORD 'x'")
    with pytest.raises(UnusablePostgres, match=r"permission denied for database.*grant it CREATE"):
        async with open_pool(postgres.dsn(name, user="stranger", password="x")):
            pass


async def test_a_server_too_old_is_refused(postgres: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backends.postgres.pool.OLDEST_SERVER", 99)
    with pytest.raises(UnusablePostgres, match=r"it is PostgreSQL \d+; Weir needs PostgreSQL 99 or newer"):
        async with open_pool(postgres.local_dsn(postgres.create_database())):
            pass


async def test_a_standby_is_not_written_to(own_postgres: Server, database: str) -> None:
    """A primary that was demoted: its connections go, and writes wait for one that takes them."""
    async with open_pool(own_postgres.local_dsn(database)) as pool:
        store = EntityStore(pool, Relayed())
        await store.transact([put(user(ADA, 1))])
        own_postgres.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        own_postgres.execute("SELECT pg_reload_conf()")

        async def written(version: int) -> bool:
            try:
                return await store.transact([put(user(ADA, version))]) == ["put"]
            except StoreUnavailable:
                return False

        async def refused() -> bool:
            return not await written(2)

        await until(refused, 10.0)
        own_postgres.execute("ALTER SYSTEM RESET default_transaction_read_only")
        own_postgres.execute("SELECT pg_reload_conf()")
        await until(partial(written, 5), RECOVERY_S)


async def test_a_port_where_nobody_listens_is_tried_again_with_growing_waits() -> None:
    async with open_pool(f"postgresql://weir:secret@127.0.0.1:{free_port()}/weir") as pool:
        assert not pool.health().reached
        await trio.sleep(0.3)
        assert not pool.health().reached
    assert [retry_delay(n) for n in (1, 2, 3, 20)] == [0.05, 0.1, 0.2, 1.0]


async def test_the_relay_that_loses_its_connection_is_told(own_postgres: Server, database: str) -> None:
    async with open_pool(own_postgres.local_dsn(database)) as pool:
        async with Outbox(pool, Relayed()).held() as holder:
            await holder.take(1)
            own_postgres.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'")
            with trio.fail_after(10):  # and not the thirty seconds, for rows that cannot come
                await holder.wait(30.0)
            with pytest.raises(StoreUnavailable):
                await holder.take(1)
        async with Outbox(pool, Relayed()).held() as holder:
            assert await holder.take(1) == []


@pytest.mark.parametrize(
    ("dsn", "place"),
    [
        ("postgresql://me:p%40ss@host:5432/weir", "me@host:5432/weir"),
        ("postgresql://host/weir?password=secret", "host/weir"),
        ("postgresql://me:secret@one:1,two:2/weir?target_session_attrs=any", "me@one:1,two:2/weir"),
        ("postgresql://me@/weir?host=/run/postgresql", "me@/run/postgresql/weir"),
    ],
)
def test_a_dsn_is_shown_without_its_secrets(dsn: str, place: str) -> None:
    assert place_of(dsn) == place
