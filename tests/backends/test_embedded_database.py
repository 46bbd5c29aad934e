"""The shared database file: turns, durability, checkpoints, long queries, engine failures."""

import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from backends.embedded.database import PAGE_BYTES, RESTART_BYTES, Database
from backends.embedded.entities import EntityStore
from backends.embedded.reader import Reader
from backends.ports.entities import Decision, Entity, Key, Refused, StoreUnavailable, Write


class Fsync:
    """Counts; waits for `gate` when it is closed; fails once it is told to."""

    def __init__(self) -> None:
        self.calls = 0
        self.error: OSError | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def __call__(self, fd: int) -> None:
        self.calls += 1
        self.entered.set()
        self.gate.wait(10)
        if self.error is not None:
            raise self.error
        os.fsync(fd)


@pytest.fixture
def fsync() -> Iterator[Fsync]:
    fsync = Fsync()
    yield fsync
    fsync.gate.set()


@pytest.fixture
def database(tmp_path: Path, fsync: Fsync) -> Iterator[Database]:
    with Database.open(tmp_path / "weir.db", fsync=fsync) as database:
        yield database


@pytest.fixture
def connection(database: Database) -> Iterator[sqlite3.Connection]:
    connection = database.connect()
    connection.execute("CREATE TABLE scratch (x)")
    yield connection
    connection.close()


@pytest.fixture
async def entities(database: Database) -> AsyncIterator[EntityStore]:
    store = EntityStore(database)
    await store.open()
    yield store
    await store.aclose()


def put(id: str, body: bytes = b"{}") -> Write:
    entity = Entity("user", id, 1, 0.0, 0.0, body)
    return Write((entity.key,), lambda found, removed: Decision("put", put=(entity,)))


async def until(event: threading.Event) -> None:
    await trio.to_thread.run_sync(event.wait, 10)


def scratch(connection: sqlite3.Connection) -> list[int]:
    return [x for (x,) in connection.execute("SELECT x FROM scratch ORDER BY x").fetchall()]


async def test_a_write_that_raises_is_rolled_back(database: Database, connection: sqlite3.Connection) -> None:
    def work() -> None:
        connection.execute("INSERT INTO scratch VALUES (1)")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await database.write(connection, work)
    assert scratch(connection) == []
    assert await database.write(connection, lambda: 7) == 7


async def test_a_cancelled_write_does_nothing(database: Database, connection: sqlite3.Connection) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await database.write(connection, lambda: connection.execute("INSERT INTO scratch VALUES (1)"))
    assert scope.cancelled_caught
    assert scratch(connection) == []


async def test_writers_wait_for_long_work_and_the_loop_does_not(
    database: Database, connection: sqlite3.Connection
) -> None:
    begun, go_on, order = threading.Event(), threading.Event(), []

    def long_work() -> None:
        begun.set()
        go_on.wait(10)
        connection.execute("INSERT INTO scratch VALUES (1)")
        order.append("long")

    async def short_work(other: sqlite3.Connection) -> None:
        await database.write(other, lambda: other.execute("INSERT INTO scratch VALUES (2)"))
        order.append("short")

    other = database.connect()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(database.write_in_thread, connection, long_work)
        await until(begun)
        nursery.start_soon(short_work, other)
        await trio.testing.wait_all_tasks_blocked()
        assert order == []
        go_on.set()
    other.close()
    assert order == ["long", "short"]
    assert scratch(connection) == [1, 2]


async def test_a_write_is_fsynced_once_a_batch(entities: EntityStore, fsync: Fsync) -> None:
    await entities.transact([put(f"u{n}") for n in range(20)])
    assert fsync.calls == 1


async def test_what_changed_nothing_is_not_fsynced(entities: EntityStore, fsync: Fsync) -> None:
    def refuse(found: object, removed: object) -> Decision:
        raise Refused("no")

    await entities.transact([Write((Key("user", "x"),), refuse)])
    assert fsync.calls == 0


async def test_those_who_come_during_an_fsync_share_the_next(database: Database, fsync: Fsync) -> None:
    fsync.gate.clear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(database.sync)
        await until(fsync.entered)
        for _ in range(10):
            nursery.start_soon(database.sync)
        await trio.testing.wait_all_tasks_blocked()
        fsync.gate.set()
    assert fsync.calls == 2


async def test_no_write_is_acknowledged_after_a_failed_fsync(entities: EntityStore, fsync: Fsync) -> None:
    fsync.error = OSError(5, "Input/output error")
    with pytest.raises(StoreUnavailable, match="Input/output error"):
        await entities.transact([put("a")])
    fsync.error = None
    with pytest.raises(StoreUnavailable, match="restart"):
        await entities.transact([put("b")])


async def test_a_full_disk_is_unavailable_and_leaves_nothing(database: Database, entities: EntityStore) -> None:
    await entities.transact([put("before")])
    connection = entities._connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages + 2}").fetchall()
    with pytest.raises(StoreUnavailable, match="full"):
        await entities.transact([put("small"), put("large", bytes(100_000)), put("after")])
    connection.execute("PRAGMA max_page_count = 1000000").fetchall()
    found = await entities.read([Key("user", id) for id in ("before", "small", "large", "after")])
    assert [entity and entity.id for entity in found] == ["before", None, None, None]
    assert await entities.transact([put("large", bytes(100_000))]) == ["put"]


async def test_a_checkpoint_moves_the_log_into_the_database(database: Database, entities: EntityStore) -> None:
    await entities.transact([put(f"u{n}") for n in range(50)])
    done = await database.checkpoint()
    assert done.wal_pages == done.moved_pages > 0
    assert not done.restarted


async def test_a_long_log_starts_anew(database: Database, entities: EntityStore) -> None:
    body = bytes(1024 * 1024)
    for n in range(RESTART_BYTES // len(body) + 1):
        await entities.transact([put(f"u{n}", body)])
    done = await database.checkpoint()
    assert done.restarted
    await entities.transact([put("small")])
    assert (await database.checkpoint()).wal_pages < 20
    wal = os.stat(f"{database.path}-wal").st_size
    assert wal <= RESTART_BYTES + 2 * PAGE_BYTES
    (found,) = await entities.read([Key("user", "u7")])
    assert found is not None
    assert found.body == body


async def test_a_long_query_does_not_keep_the_loop_and_can_be_cancelled(database: Database) -> None:
    endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    reader = Reader(database)
    with trio.move_on_after(0.05) as scope:
        await reader.run(lambda connection: connection.execute(endless).fetchall())
    assert scope.cancelled_caught
    assert await reader.run(lambda connection: connection.execute("SELECT 1").fetchall()) == [(1,)]
    await reader.aclose()


async def test_a_reader_cannot_write(database: Database) -> None:
    reader = Reader(database)
    with pytest.raises(StoreUnavailable, match="readonly"):
        await reader.run(lambda connection: connection.execute("DELETE FROM entity"))
    await reader.aclose()
