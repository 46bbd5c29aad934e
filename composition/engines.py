"""Which engines the settings name, and their life: above the tree, so that a crash of an actor closes no connection."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from backends.asyncio_bridge import asyncio_loop
from backends.embedded.database import Database
from backends.embedded.engine import Engine as EmbeddedEngine
from backends.embedded.lock import data_directory_lock
from backends.kafka.connection import Connection
from backends.kafka.event_log import EventLog
from backends.ports.engine import Engine
from backends.postgres.engine import Engine as PostgresEngine
from backends.postgres.ledger import ConsumerLedger
from backends.postgres.pool import Pool
from backends.redis.engine import RedisEngine
from gateway.ids import new_id
from settings import Settings


@contextmanager
def made_engine(settings: Settings) -> Iterator[Engine]:
    """The data directory under its lock (the operator's token, the control socket and spools are there whatever the
    engine), and the engine that the settings name. No connection is opened yet."""
    with data_directory_lock(settings.data.dir), engine_in(settings, settings.data.dir) as engine:
        yield engine


@contextmanager
def engine_to_look_at(settings: Settings) -> Iterator[Engine]:
    """As `made_engine`, but nothing of it is ever opened or kept: the tree can be declared with it."""
    with tempfile.TemporaryDirectory() as folder, engine_in(settings, Path(folder)) as engine:
        yield engine


@contextmanager
def engine_in(settings: Settings, folder: Path) -> Iterator[Engine]:
    with ExitStack() as stack:
        if settings.postgres.dsn:
            yield _postgres(settings)
        else:
            yield EmbeddedEngine(stack.enter_context(Database.open(folder / "weir.db")))


@asynccontextmanager
async def opened_engines(engine: Engine, redis: RedisEngine | None = None) -> AsyncIterator[None]:
    """asyncio's loop is there only where an engine needs it. Raises `EngineUnusable`."""
    async with AsyncExitStack() as stack:
        if redis is not None or isinstance(engine, PostgresEngine):
            await stack.enter_async_context(asyncio_loop())
        if redis is not None:
            await stack.enter_async_context(redis.opened())
        await stack.enter_async_context(engine.opened())
        yield


def _postgres(settings: Settings) -> PostgresEngine:
    postgres = settings.postgres
    pool = Pool(postgres.dsn, size=postgres.pool_size, budget=postgres.timeout)
    bus = EventLog(Connection(bootstrap=settings.kafka.bootstrap), ConsumerLedger(pool))
    return PostgresEngine(pool, bus, owner=new_id())
